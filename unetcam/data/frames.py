"""The way back: from the network's input to the image's own size and frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from unetcam.errors import DataError

Size = tuple[int, int]


@dataclass(frozen=True)
class Frame:
    """How an image was resized and padded, and how maps are brought back.

    Attributes
    ----------
    original : (int, int)
        Height and width of the image.
    resized : (int, int)
        Height and width that it was resized to.
    offset : (int, int)
        Row and column at which it lies within the padding.
    padded : (int, int)
        Height and width of the network's input.
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
        return cls(size, size, (0, 0), size)

    def restore(self, maps: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Undo padding and resizing, on the device the maps are on.

        Parameters
        ----------
        maps : Tensor, shape (..., h, w)
            Maps, logits or labels at the size of the network's input (`padded`).
        mode : {"bilinear", "nearest"}
            Bilinear, with ``align_corners=False``, for maps and logits of a floating type; the
            nearest pixel's value, measured between pixel centres, for labels of any type.

        Returns
        -------
        Tensor, shape (..., H, W)
            At the image's own size (`original`), of the same type and on the same device. Where
            nothing was resized the values are the same to the bit.

        Raises
        ------
        DataError
            If the maps have another size, or integers are to be interpolated.

        Examples
        --------
        >>> frame = Frame(original=(2, 3), resized=(2, 3), offset=(1, 0), padded=(4, 4))
        >>> frame.restore(torch.arange(16.0).reshape(4, 4))
        tensor([[ 4.,  5.,  6.],
                [ 8.,  9., 10.]])
        """
        if mode not in ("bilinear", "nearest"):
            raise DataError(f"maps can't be restored by '{mode}'; choose bilinear or nearest")
        if tuple(maps.shape[-2:]) != self.padded:
            raise DataError(
                f"the maps have the shape {tuple(maps.shape)} and the network's input was "
                f"{self.padded}; resize them to the input first"
            )
        (top, left), (height, width) = self.offset, self.resized
        inner = maps[..., top : top + height, left : left + width]
        if self.resized == self.original:
            return inner
        if mode == "nearest":
            rows = _nearest(height, self.original[0], maps.device)
            columns = _nearest(width, self.original[1], maps.device)
            return inner.index_select(-2, rows).index_select(-1, columns)
        if not maps.is_floating_point():
            raise DataError(
                f"labels of the type {maps.dtype} can't be averaged; use mode='nearest'"
            )
        flat = inner.reshape(1, -1, height, width)
        resized = F.interpolate(flat, self.original, mode="bilinear", align_corners=False)
        return resized.reshape(*maps.shape[:-2], *self.original)


def _nearest(length: int, wanted: int, device: torch.device) -> Tensor:
    """For each of `wanted` pixels the one of `length` whose span holds its centre."""
    centres = 2 * torch.arange(wanted, device=device) + 1
    return torch.div(centres * length, 2 * wanted, rounding_mode="floor")
