"""Does the map act on the class's boundary?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.measures.columns import names_of
from unetcam.measures.map_stats import MapStats, by_blocks, where_known
from unetcam.measures.regions import (
    FAR,
    INNER_BAND,
    INTERIOR,
    OUTER_BAND,
    PROFILE,
    PROFILE_BINS,
    Geometry,
)

BOUNDARY_NAMES: tuple[str, ...] = names_of("boundary")


def boundary_numbers(stats: MapStats) -> dict[str, Tensor]:
    """The numbers of :func:`boundary_activation` from statistics that other questions share."""
    geometry = stats.geometry
    mass, pixels = stats.zone_mass, stats.part(geometry.zone_pixels)
    known, has_contour = stats.present, stats.part(geometry.has_contour)
    bounded = known & has_contour

    def mean(zones: slice) -> Tensor:
        # 0 / 0 where the zone has no pixel: NaN, as it should be.
        return mass[..., zones].sum(-1) / pixels[..., zones].sum(-1) / stats.peak

    inner, interior = mean(INNER_BAND), mean(INTERIOR)
    band = slice(INNER_BAND.start, OUTER_BAND.stop)
    mass_share = mass[..., band].sum(-1) / stats.mass
    area_share = pixels[..., band].sum(-1) / stats.valid_pixels
    numbers = {
        "boundary_inner": where_known(bounded, inner),
        "boundary_outer": where_known(bounded, mean(OUTER_BAND)),
        "boundary_interior": where_known(known, interior),
        "boundary_far": where_known(known, mean(FAR)),
        "boundary_ratio": where_known(bounded & (interior > 0), inner / interior),
        "band_mass_share": where_known(bounded, mass_share),
        "band_area_share": where_known(has_contour, area_share),
        "band_mass_ratio": where_known(bounded, mass_share / area_share),
    }
    profile = mass[..., PROFILE] / pixels[..., PROFILE] / stats.peak[..., None]
    profile = where_known(bounded[..., None], profile)
    numbers.update(zip(BOUNDARY_NAMES[-PROFILE_BINS:], profile.unbind(-1), strict=True))
    return numbers


@torch.no_grad()
def boundary_activation(
    maps: Tensor,
    classes: Sequence[int],
    truth: Tensor,
    *,
    num_classes: int,
    band: float | None = None,
) -> dict[str, Tensor]:
    """Boundary activation strength: how hot the map is along the class's contour.

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
        Each ``(B, T)`` float64 on the same device. With m the map divided by its own maximum
        over the pixels that count, d the distance to the contour as :class:`Geometry` defines
        it, w the band's width, and M(Z) the sum of m over a set Z:

        - ``boundary_inner``: mean of m over the class's pixels with d <= w;
        - ``boundary_outer``: mean of m over the pixels outside with d <= w;
        - ``boundary_interior``: mean of m over the class's pixels with d > w;
        - ``boundary_far``: mean of m over the pixels outside with d > w;
        - ``boundary_ratio``: ``boundary_inner / boundary_interior``; NaN where the interior
          is empty of pixels or of evidence;
        - ``band_mass_share``: M(both bands) / M(all pixels);
        - ``band_area_share``: the pixels of both bands / all pixels;
        - ``band_mass_ratio``: the former over the latter; 1 where the map takes no notice of
          the boundary, more where it gathers there;
        - ``profile_00`` ... ``profile_15``: the mean of m in 16 bins of signed distance from
          -4 w (inside) to +4 w (outside), each w / 2 wide. Bins 7 and 8 touch the contour:
          bin 8 + k holds the outside pixels with k w/2 < d <= (k + 1) w/2, and bin 7 - k the
          inside pixels with the same d. NaN for a bin without a pixel.

        Means are of the map scaled by its own maximum; shares and ratios need no scale. All are
        NaN for an absent class, an empty map and a map with NaN (``band_area_share``, which
        only asks the truth, for an absent class alone). A class that fills every pixel has
        no contour and only ``boundary_interior``.

    Raises
    ------
    MeasureError
        If shapes, classes or values do not fit.

    References
    ----------
    The band is that of B. Cheng et al., "Boundary IoU: Improving Object-Centric Image
    Segmentation Evaluation", CVPR 2021 (section 4), with an exact distance in place of its
    repeated 3 x 3 erosion, and with the border of the image not taken for a contour. The means,
    ratios and the profile over it are this package's own.

    Examples
    --------
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    >>> maps = torch.tensor([[[[0.0, 0.0, 1.0, 4.0, 2.0, 2.0]]]])
    >>> numbers = boundary_activation(maps, [1], truth, num_classes=2)
    >>> [round(numbers[f"boundary_{k}"].item(), 3) for k in ("inner", "outer", "interior", "far")]
    [1.0, 0.25, 0.5, 0.0]
    >>> numbers["boundary_ratio"].item()
    2.0
    """
    geometry = Geometry(truth, classes, num_classes=num_classes, band=band, tolerance=0.0)
    return by_blocks(maps, geometry, boundary_numbers)
