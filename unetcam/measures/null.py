"""What a number would be if the map said nothing: the channels weighed at random."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.boundary import boundary_numbers
from unetcam.measures.map_stats import MapStats, by_blocks, where_known
from unetcam.measures.regions import FAR, INSIDE, Geometry

NULL_MEASURES = ("truth_energy", "outside_far_share", "boundary_ratio", "effective_area")
"""The measures that have a null."""

NULL_DRAWS = 10
"""How often a layer's channels are weighed at random for the null of an image."""

NULL_IMAGES = 8
"""In how many images of a run the null is measured."""

_SPREAD = (0.025, 0.975)


def null_columns() -> tuple[str, ...]:
    """The names of :func:`null_numbers`, in order.

    >>> null_columns()[:3]
    ('truth_energy_null', 'truth_energy_null_low', 'truth_energy_null_high')
    """
    return tuple(f"{name}_null{end}" for name in NULL_MEASURES for end in ("", "_low", "_high"))


def null_sample(images: int, most: int = NULL_IMAGES) -> tuple[int, ...]:
    """The positions, evenly spread, of the images in which a run's null is measured.

    >>> null_sample(5), null_sample(100, 4)
    ((0, 1, 2, 3, 4), (0, 25, 50, 75))
    """
    count = min(images, most)
    return tuple(k * images // count for k in range(count))


@torch.no_grad()
def null_numbers(
    draws: Iterable[Tensor],
    classes: Sequence[int],
    truth: Tensor,
    *,
    num_classes: int,
    band: float | None = None,
) -> dict[str, Tensor]:
    """The measures of maps whose channels were weighed at random: mean and spread over the draws.

    Parameters
    ----------
    draws : iterable of Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` maps of one layer, values >= 0, one tensor for each draw
        of random channel weights; such a map knows nothing of any class.
    classes : sequence of int
        The T classes.
    truth : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices, -1 where ignored, on the same device.
    num_classes : int
        The number of classes C.
    band : float, optional
        Width of the band in pixels. Default: 2 % of the image diagonal, at least 1.

    Returns
    -------
    dict of str to Tensor
        For each of :data:`NULL_MEASURES` its mean over the draws as ``{name}_null``, and the
        2.5 % and 97.5 % quantiles of the draws as ``{name}_null_low`` and ``{name}_null_high``;
        each ``(B, T)`` float64. A measure that lies between the two says nothing of the network
        that the layer alone would not say. NaN where no draw has the number.

    Raises
    ------
    MeasureError
        If shapes, classes or values do not fit.

    Examples
    --------
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 1, 1]]])
    >>> even = torch.ones(1, 1, 4)
    >>> null_numbers([even, even], [1], truth, num_classes=2)["truth_energy_null"]
    tensor([[0.5000]], dtype=torch.float64)
    """
    geometry = Geometry(truth, classes, num_classes=num_classes, band=band, tolerance=0.0)
    # One draw after the other: the geometry of T classes serves all of them.
    shape = (-1, len(geometry.classes), *geometry.spatial)
    parts = [by_blocks(draw[:, None].expand(shape), geometry, _numbers) for draw in draws]
    if not parts:
        raise MeasureError("There is no draw: give the maps of one set of random weights or more.")
    numbers: dict[str, Tensor] = {}
    for name in NULL_MEASURES:
        values = torch.stack([part[name] for part in parts])
        low, high = torch.nanquantile(values, values.new_tensor(_SPREAD), dim=0)
        numbers[f"{name}_null"] = values.nanmean(0)
        numbers[f"{name}_null_low"], numbers[f"{name}_null_high"] = low, high
    return numbers


def _numbers(stats: MapStats) -> dict[str, Tensor]:
    mass, weights = stats.mass, stats.values.double()
    effective = mass.square() / (stats.valid_pixels * torch.linalg.vecdot(weights, weights))
    return {
        "truth_energy": where_known(stats.present, stats.zone_mass[..., INSIDE].sum(-1) / mass),
        "outside_far_share": where_known(stats.present, stats.zone_mass[..., FAR].sum(-1) / mass),
        "boundary_ratio": boundary_numbers(stats)["boundary_ratio"],
        "effective_area": where_known(stats.usable, effective),
    }
