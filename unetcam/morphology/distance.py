"""The exact Euclidean distance transform, on the device, for images and volumes alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from unetcam.errors import MeasureError

_BLOCK_CPU = 1 << 18
_BLOCK_CUDA = 1 << 25
"""Values worked on at once: what a core's cache holds, and what keeps a GPU busy."""


def _integer_dtype(reach: int) -> torch.dtype:
    """The smallest integer that holds a squared distance plus one more squared offset."""
    largest = 2 * reach * reach + 1
    if largest <= torch.iinfo(torch.int16).max:
        return torch.int16
    return torch.int32 if largest <= torch.iinfo(torch.int32).max else torch.int64


def _along_last_axis(mask: Tensor, reach: int, dtype: torch.dtype) -> Tensor:
    """Distance to the nearest True of the same line, ``reach + 1`` where it is farther.

    Steps of 1, 2, 4, ... reach every offset below their sum, so their number is
    logarithmic in the reach.
    """
    distance = torch.where(mask, 0, reach + 1).to(dtype)
    step = 1
    while step <= reach and step < mask.shape[-1]:
        nearer = distance.clone()
        torch.minimum(nearer[..., step:], distance[..., :-step] + step, out=nearer[..., step:])
        torch.minimum(nearer[..., :-step], distance[..., step:] + step, out=nearer[..., :-step])
        distance = nearer
        step *= 2
    return distance


def _parabolas(squared: Tensor, reach: int) -> Tensor:
    """Min over k of ``squared[:, x + k] + k ** 2`` for ``(R, n, K)`` lines along the middle."""
    size = squared.shape[1]
    span = min(reach, size - 1)
    padded = F.pad(squared, (0, 0, span, span), value=reach * reach + 1)
    nearest = squared.clone()
    candidate = torch.empty_like(nearest)
    for offset in range(1, span + 1):
        before = padded.narrow(1, span - offset, size)
        after = padded.narrow(1, span + offset, size)
        torch.minimum(before, after, out=candidate)
        candidate += offset * offset
        torch.minimum(nearest, candidate, out=nearest)
    return nearest


def _along_axis(squared: Tensor, axis: int, reach: int) -> Tensor:
    """The same along any axis but the last, in blocks that stay in a processor's cache."""
    lines = squared.reshape(-1, squared.shape[axis], math.prod(squared.shape[axis + 1 :]))
    block = _BLOCK_CUDA if squared.is_cuda else _BLOCK_CPU
    columns = max(1, min(lines.shape[2], block // lines.shape[1]))
    rows = max(1, block // (lines.shape[1] * columns))
    nearest = torch.empty_like(lines)
    for top in range(0, lines.shape[0], rows):
        for left in range(0, lines.shape[2], columns):
            part = slice(top, top + rows), slice(None), slice(left, left + columns)
            nearest[part] = _parabolas(lines[part].contiguous(), reach)
    return nearest.view(squared.shape)


def squared_distance(mask: Tensor, reach: int, *, spatial_dims: int) -> Tensor:
    """Squared Euclidean distance to the nearest True pixel, exact up to a reach.

    Parameters
    ----------
    mask : Tensor
        ``(..., *spatial)``, bool, any device; the leading axes are a batch.
    reach : int
        Distances above it are not told apart, in pixels.
    spatial_dims : int
        How many of the last axes are space: 1, 2 or 3.

    Returns
    -------
    Tensor
        Shape and device of the mask, an integer dtype wide enough; 0 where the mask is True,
        ``reach ** 2 + 1`` where no True pixel lies within the reach. Pixels beyond the border
        of the image are never True.

    Notes
    -----
    The transform is separable: along the last axis the distance itself, then along each other
    axis ``min_k f(x + k) + k ** 2`` [1]_. The cost is that of ``reach`` shifted minima per
    axis for the whole batch at once, in integers, so the result is exact.

    References
    ----------
    .. [1] P. Felzenszwalb and D. Huttenlocher, "Distance Transforms of Sampled Functions",
       Theory of Computing 8, 2012.

    Examples
    --------
    >>> import torch
    >>> mask = torch.zeros(3, 4, dtype=torch.bool)
    >>> mask[0, 0] = True
    >>> squared_distance(mask, 3, spatial_dims=2)
    tensor([[ 0,  1,  4,  9],
            [ 1,  2,  5, 10],
            [ 4,  5,  8, 10]], dtype=torch.int16)
    """
    if mask.dtype != torch.bool or not 1 <= spatial_dims <= min(3, mask.ndim):
        raise MeasureError(
            f"A distance needs a bool mask with 1 to 3 spatial axes: "
            f"got {mask.dtype}, shape {tuple(mask.shape)} and {spatial_dims} axes."
        )
    dtype = _integer_dtype(reach)
    limit = reach * reach
    line = _along_last_axis(mask, reach, dtype)
    squared = torch.where(line > reach, limit + 1, line * line).to(dtype)
    for axis in range(-2, -spatial_dims - 1, -1):
        squared = _along_axis(squared, axis, reach).clamp_(max=limit + 1)
    return squared


def distance_transform(
    mask: Tensor, *, spatial_dims: int = 2, reach: float | None = None
) -> Tensor:
    """Euclidean distance of every pixel's centre to the centre of the nearest True pixel.

    Parameters
    ----------
    mask : Tensor
        ``(..., *spatial)``, bool, any device.
    spatial_dims : int
        How many of the last axes are space: 1, 2 or 3.
    reach : float, optional
        Distances above it become infinity, in pixels; less reach is faster. Default: no limit.

    Returns
    -------
    Tensor
        Shape and device of the mask, float32, in pixels; infinity where no True pixel lies
        within the reach.

    Raises
    ------
    MeasureError
        If the mask is not bool or the number of axes does not fit.

    Examples
    --------
    >>> import torch
    >>> mask = torch.tensor([[True, False, False], [False, False, False]])
    >>> distance_transform(mask)
    tensor([[0.0000, 1.0000, 2.0000],
            [1.0000, 1.4142, 2.2361]])
    """
    if reach is None:
        reach = math.sqrt(sum(n * n for n in mask.shape[-spatial_dims:]))
    whole = math.ceil(reach)
    squared = squared_distance(mask, whole, spatial_dims=spatial_dims)
    return torch.where(squared > largest_square(reach), torch.inf, squared.float().sqrt())


def largest_square(distance: float) -> int:
    """The largest squared pixel distance whose root is at most ``distance``.

    Squared distances are whole numbers, so "at most this far" can be asked without rounding.

    Examples
    --------
    >>> largest_square(1.5), largest_square(5.0), largest_square(3**0.5)
    (2, 25, 3)
    """
    square = math.floor(distance * distance)
    if math.sqrt(square + 1) <= distance:
        return square + 1
    return square if math.sqrt(square) <= distance else square - 1


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
