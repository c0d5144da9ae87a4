"""The way back: from the network's input to the image's or volume's own size and frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from unetcam.errors import DataError
from unetcam.resizing import interpolated, nearest

Size = tuple[int, ...]
"""Sides in pixels: (height, width) of an image, (depth, height, width) of a volume."""


def rounded_up(length: int, stride: int) -> int:
    """The next multiple of a stride.

    Examples
    --------
    >>> rounded_up(33, 16)
    48
    """
    return -(-length // stride) * stride


@dataclass(frozen=True)
class Frame:
    """How an image or a volume was resized and padded, and how maps are brought back.

    Attributes
    ----------
    original : tuple of int
        Height and width of the image; depth, height and width of a volume.
    resized : tuple of int
        The sides that it was resized to.
    offset : tuple of int
        Where it lies within the padding: its first row and column; of a volume also plane.
    padded : tuple of int
        The sides of the network's input.
    """

    original: Size
    resized: Size
    offset: Size
    padded: Size

    @classmethod
    def identity(cls, size: Size) -> Frame:
        """The frame of an image that is neither resized nor padded.

        Examples
        --------
        >>> Frame.identity((4, 6)).padded
        (4, 6)
        """
        return cls(size, size, (0,) * len(size), size)

    @property
    def inside(self) -> tuple[slice, ...]:
        """Where the image lies in the network's input, an index for its spatial axes.

        Examples
        --------
        >>> Frame(original=(2, 3), resized=(2, 3), offset=(1, 0), padded=(4, 4)).inside
        (slice(1, 3, None), slice(0, 3, None))
        """
        sides = zip(self.offset, self.resized, strict=True)
        return tuple(slice(start, start + length) for start, length in sides)

    def restore(self, maps: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Undo padding and resizing, on the device the maps are on.

        Parameters
        ----------
        maps : Tensor, shape (..., h, w) or (..., d, h, w)
            Maps, logits or labels at the size of the network's input (`padded`).
        mode : {"bilinear", "nearest"}
            Bilinear (of a volume trilinear), with ``align_corners=False``, for maps and logits of
            a floating type; the nearest pixel's value, measured between pixel centres, for labels
            of any type.

        Returns
        -------
        Tensor, shape (..., H, W) or (..., D, H, W)
            At the image's own size (`original`), of the same type and on the same device. Where
            nothing was resized the values are the same to the bit.

        Raises
        ------
        DataError
            If the maps have another size, or integers are to be interpolated.

        Examples
        --------
        >>> import torch
        >>> frame = Frame(original=(2, 3), resized=(2, 3), offset=(1, 0), padded=(4, 4))
        >>> frame.restore(torch.arange(16.0).reshape(4, 4))
        tensor([[ 4.,  5.,  6.],
                [ 8.,  9., 10.]])
        """
        if mode not in ("bilinear", "nearest"):
            raise DataError(f"maps can't be restored by '{mode}'; choose bilinear or nearest")
        dims = len(self.padded)
        if tuple(maps.shape[-dims:]) != self.padded:
            raise DataError(
                f"the maps have the shape {tuple(maps.shape)} and the network's input was "
                f"{self.padded}; resize them to the input first"
            )
        lead = (slice(None),) * (maps.ndim - dims)
        inner = maps[(*lead, *self.inside)]
        if self.resized == self.original:
            return inner
        if mode == "nearest":
            return nearest(inner, self.original)
        if not maps.is_floating_point():
            raise DataError(
                f"labels of the type {maps.dtype} can't be averaged; use mode='nearest'"
            )
        flat = inner.reshape(1, -1, *self.resized)
        return interpolated(flat, self.original).reshape(*maps.shape[:-dims], *self.original)
