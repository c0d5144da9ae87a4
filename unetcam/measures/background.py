"""Does the map act where the class is not?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.measures.columns import background_columns
from unetcam.measures.map_stats import MapStats, by_blocks, where_known
from unetcam.measures.regions import FAR, OUTSIDE, Geometry
from unetcam.morphology import connected_components

HOT = 0.5
"""A pixel is hot above this share of its map's maximum."""


def background_names(num_classes: int, spatial_dims: int) -> tuple[str, ...]:
    """The names of :func:`background_activation`'s numbers, in order, for C classes in 2-D or 3-D.

    Examples
    --------
    >>> background_names(2, 2)
    ('outside_share', 'outside_far_share', 'hot_background', 'hot_count', 'hot_area',
     'hot_largest_area', 'hot_y', 'hot_x', 'leak_0', 'leak_1')
    """
    return tuple(one.name for one in background_columns(num_classes, spatial_dims))


def background_numbers(stats: MapStats) -> dict[str, Tensor]:
    """The numbers of :func:`background_activation` from statistics that other questions share."""
    geometry, known, total = stats.geometry, stats.present, stats.mass
    outside_pixels = stats.valid_pixels - stats.part(geometry.truth_pixels)

    # Ignored pixels are 0, and so never hot.
    hot = stats.values > (HOT * stats.peak)[..., None]
    hot &= ~stats.part(geometry.inside)
    hot &= known[..., None]
    hot_parts = connected_components(hot.reshape(-1, *geometry.spatial))
    shape = known.shape
    area = hot_parts.area.view(shape)
    centre = hot_parts.centroid.view(*shape, -1).unbind(-1)
    leak = where_known(known[..., None], stats.class_mass / total[..., None])
    values = (
        where_known(known, stats.zone_mass[..., OUTSIDE].sum(-1) / total),
        where_known(known, stats.zone_mass[..., FAR].sum(-1) / total),
        where_known(known & (outside_pixels > 0), area / outside_pixels),
        where_known(known, hot_parts.count.view(shape)),
        where_known(known, area),
        where_known(known, hot_parts.largest.view(shape)),
        *(where_known(known, axis) for axis in centre),
        *leak.unbind(-1),
    )
    names = background_names(geometry.num_classes, len(geometry.spatial))
    return dict(zip(names, values, strict=True))


@torch.no_grad()
def background_activation(
    maps: Tensor,
    classes: Sequence[int],
    truth: Tensor,
    *,
    num_classes: int,
    band: float | None = None,
) -> dict[str, Tensor]:
    """Background false activation: how much of the map lies where the class is not.

    Parameters
    ----------
    maps : Tensor
        ``(B, T, H, W)`` or ``(B, T, D, H, W)``, floating, values >= 0 or NaN, any device.
    classes : sequence of int
        The class of each of the T maps.
    truth : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices, -1 where ignored, on the same device.
    num_classes : int
        The number of classes C.
    band : float, optional
        Width of the band in pixels. Default: 2 % of the image diagonal, at least 1.

    Returns
    -------
    dict of str to Tensor
        Each ``(B, T)`` float64 on the same device. With M(Z) the sum of the map over a set Z of
        pixels, *outside* the pixels of every other class, and *hot* a value above half the
        map's maximum (the maximum is over the whole image):

        - ``outside_share``: M(outside) / M(all);
        - ``outside_far_share``: M(outside and farther from the contour than the band) /
          M(all): what the halo of a coarse layer around the class can't explain;
        - ``hot_background``: hot pixels outside / pixels outside; NaN where there are none;
        - ``hot_count``: the connected components of hot pixels outside (8 neighbours, 26 in
          3-D);
        - ``hot_area``, ``hot_largest_area``: the pixels of all of them, and of the largest;
        - ``hot_y``, ``hot_x`` (``hot_z`` first in 3-D): the centroid of the largest as pixel
          indices, of the first in raster order among equals; NaN where nothing outside is hot;
        - ``leak_0`` ... ``leak_{C-1}``: M(pixels whose truth is j) / M(all), row i of the
          leakage matrix for a map of class i. A row sums to 1.

        All are NaN for an absent class, an empty map and a map with NaN.

    Raises
    ------
    MeasureError
        If shapes, classes or values do not fit.

    Notes
    -----
    ``outside_share`` is one minus the energy-based pointing game of H. Wang et al., "Score-CAM:
    Score-Weighted Visual Explanations for Convolutional Neural Networks", CVPR Workshops 2020
    (section 4.3), with the mask in place of the bounding box. The band is that of Boundary IoU
    (:class:`Geometry`). The hot components and the leakage matrix are this package's own.

    Examples
    --------
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 0, 0, 1, 1]]])
    >>> maps = torch.tensor([[[[3.0, 0.0, 0.0, 1.0, 4.0, 2.0]]]])
    >>> numbers = background_activation(maps, [1], truth, num_classes=2)
    >>> [numbers[k].item() for k in ("outside_share", "outside_far_share", "hot_count", "hot_x")]
    [0.4, 0.3, 1.0, 0.0]
    >>> numbers["leak_0"].item(), numbers["leak_1"].item()
    (0.4, 0.6)
    """
    geometry = Geometry(truth, classes, num_classes=num_classes, band=band, tolerance=0.0)
    return by_blocks(maps, geometry, background_numbers)
