"""How a layer's output holds its feature map: as a map, channels last, or as tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

#: By how much a map's strides may differ between its axes, with room to spare: in a plane by
#: rounding and borders, in a volume by pooling that spares the slices.
_APART = {2: 2, 3: 8}
#: By how much they may differ for a map to be told by its shape.
_ALIKE = 1.5


class UnclearError(Exception):
    """What a tensor holds can't be told from its shape: a run has to be traced."""


def is_clearly_map(shape: Sequence[int], size: Sequence[int]) -> bool:
    """Whether a tensor can only be a map (B, K, *spatial), and no tokens or channels last.

    Parameters
    ----------
    shape : sequence of int
        The tensor's.
    size : sequence of int
        The image's spatial size.

    Examples
    --------
    >>> is_clearly_map((2, 64, 16, 16), size=(128, 128))
    True
    >>> is_clearly_map((2, 16, 16, 64), size=(128, 128))
    False
    """
    if len(shape) != len(size) + 2 or len(size) not in _APART:
        return False

    def unevenness(own: Sequence[int]) -> float:
        strides = [side / pixels for side, pixels in zip(size, own, strict=True)]
        return max(strides) / min(strides)

    return unevenness(shape[2:]) < _ALIKE and unevenness(shape[1:-1]) > _APART[len(size)]


@dataclass(frozen=True)
class Layout:
    """Where channels and pixels are in a tensor.

    Attributes
    ----------
    grid : tuple of int
        The map's spatial size.
    axis : {1, -1}
        The channels' axis; all others but the batch's hold the pixels, in raster order.
    flat : bool
        Whether the pixels share one axis: tokens (B, N, K), or (B, K, N).
    start : int
        How many tokens that belong to no pixel, such as a class token, come before the pixels'.

    Examples
    --------
    >>> import torch
    >>> Layout((2, 3), axis=-1, flat=True).to_map(torch.zeros(1, 6, 8)).shape
    torch.Size([1, 8, 2, 3])
    """

    grid: tuple[int, ...]
    axis: int = 1
    flat: bool = False
    start: int = 0

    @property
    def is_map(self) -> bool:
        """Whether the tensor is a map (B, K, *spatial) as it stands."""
        return self.axis == 1 and not self.flat

    def to_map(self, tensor: Tensor) -> Tensor:
        """The map (B, K, *spatial) that a tensor of this layout holds; a view where it can be."""
        if self.is_map:
            return tensor
        tokens = tensor.movedim(self.axis, 1).flatten(2)
        pixels = tokens.narrow(2, self.start, math.prod(self.grid))
        return pixels.reshape(*pixels.shape[:2], *self.grid)
