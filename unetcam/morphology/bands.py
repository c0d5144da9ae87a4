"""The pixels along a mask's contour, on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from unetcam.morphology.distance import largest_square, squared_distance


def default_width(spatial: Sequence[int]) -> float:
    """The band's default width: 2 % of the image's diagonal and at least 1 pixel.

    >>> default_width((300, 400)), default_width((8, 8))
    (10.0, 1.0)
    """
    return max(1.0, 0.02 * math.sqrt(sum(n * n for n in spatial)))


def contour_bands(
    inside: Tensor, outside: Tensor, width: float, *, spatial_dims: int
) -> tuple[Tensor, Tensor]:
    """The pixels of either side that are at most a distance away from the other side.

    Where the image ends there is no contour, and none towards pixels that belong to neither side.

    Parameters
    ----------
    inside, outside : Tensor
        ``(..., *spatial)``, bool, any device; the leading axes are a batch.
    width : float
        In pixels, between the centres of pixels; those that touch are 1 apart.
    spatial_dims : int
        How many of the last axes are space: 1, 2 or 3.

    Returns
    -------
    inner, outer : Tensor
        Shape and device of the masks, bool.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([[0, 0, 0, 1, 1, 1]]).bool()
    >>> inner, outer = contour_bands(mask, ~mask, 2.0, spatial_dims=2)
    >>> inner.int(), outer.int()
    (tensor([[0, 0, 0, 1, 1, 0]], dtype=torch.int32),
     tensor([[0, 1, 1, 0, 0, 0]], dtype=torch.int32))
    """
    reach, limit = math.ceil(width), largest_square(width)
    to_outside = squared_distance(outside, reach, spatial_dims=spatial_dims)
    to_inside = squared_distance(inside, reach, spatial_dims=spatial_dims)
    return inside & (to_outside <= limit), outside & (to_inside <= limit)
