"""Between the size of an image and that of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, K, *spatial) at the size of an image: bilinear or trilinear.

    >>> import torch
    >>> enlarged(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(maps, size=tuple(size), mode=mode, align_corners=False)


def shrunk(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (B, T, *spatial) of an image at the size of a layer: the mean over what a pixel covers.

    >>> import torch
    >>> shrunk(torch.tensor([[[[0.0, 1.0, 3.0, 3.0]]]]), (1, 2))
    tensor([[[[0.5000, 3.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="area")
