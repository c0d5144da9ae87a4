"""Between the size of an image and that of a layer: the one place where maps are resized."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def interpolated(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps at another size: bilinear in 2-D and trilinear in 3-D, ``align_corners=False``.

    Parameters
    ----------
    maps : Tensor
        (B, K, *spatial), floating point.
    size : sequence of int
        The spatial size that is wanted.

    Returns
    -------
    Tensor
        (B, K, *size); the same tensor where it has that size.

    Examples
    --------
    >>> import torch
    >>> interpolated(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode=_LINEAR[len(size)], align_corners=False)


def averaged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps of an image at the smaller size of a layer: the mean over what a pixel covers.

    Parameters
    ----------
    maps : Tensor
        (B, T, *spatial), floating point.
    size : sequence of int
        The layer's spatial size.

    Returns
    -------
    Tensor
        (B, T, *size); the same tensor where it has that size.

    Examples
    --------
    >>> import torch
    >>> averaged(torch.tensor([[[[0.0, 1.0, 3.0, 3.0]]]]), (1, 2))
    tensor([[[[0.5000, 3.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="area")
