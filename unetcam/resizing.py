"""Between the size of an image and that of a layer: the one place where maps are resized."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
    >>> interpolated(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    tensor([[[[0.0000, 0.2500, 0.7500, 1.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode=_LINEAR[len(size)], align_corners=False)


def nearest(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Masks or cells at another size: each pixel takes the value of the one that holds its centre.

    Parameters
    ----------
    labels : Tensor
        (..., *spatial) of any type, with as many spatial axes as `size` has.
    size : sequence of int
        The spatial size that is wanted.

    Returns
    -------
    Tensor
        (..., *size) of the same type and the same values; the same tensor where it has that size.

    Examples
    --------
    >>> nearest(torch.tensor([[7, -1]]), (1, 4))
    tensor([[ 7,  7, -1, -1]])
    """
    for axis, wanted in enumerate(size, start=-len(size)):
        length = labels.shape[axis]
        if length != wanted:
            # In whole numbers, which torch's own resizing of floating point is not.
            centres = 2 * torch.arange(wanted, device=labels.device) + 1
            at = torch.div(centres * length, 2 * wanted, rounding_mode="floor")
            labels = labels.index_select(axis, at)
    return labels


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
    >>> averaged(torch.tensor([[[[0.0, 1.0, 3.0, 3.0]]]]), (1, 2))
    tensor([[[[0.5000, 3.0000]]]])
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=tuple(size), mode="area")
