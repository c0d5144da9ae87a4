"""What a number would be if the map said nothing: the channels weighed at random."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import islice

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.boundary import boundary_numbers
from unetcam.measures.checks import require_maps
from unetcam.measures.map_stats import MapStats, block_values, where_known
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
def null_numbers(draws: Iterable[Tensor], geometry: Geometry) -> dict[str, Tensor]:
    """The measures of maps whose channels were weighed at random: mean and spread over the draws.

    Parameters
    ----------
    draws : iterable of Tensor
        ``(1, H, W)`` or ``(1, D, H, W)`` maps of one image at one layer, values >= 0, one tensor
        for each draw of random channel weights; such a map knows nothing of any class.
    geometry : Geometry
        Where the T classes lie in the image, on the maps' pixels and device; it serves all layers.

    Returns
    -------
    dict of str to Tensor
        For each of :data:`NULL_MEASURES` its mean over the draws as ``{name}_null``, and the
        2.5 % and 97.5 % quantiles of the draws as ``{name}_null_low`` and ``{name}_null_high``;
        each ``(1, T)`` float64. A measure that lies between the two says nothing of the network
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
    >>> geometry = Geometry(truth, [1], num_classes=2)
    >>> null_numbers([even, even], geometry)["truth_energy_null"]
    tensor([[0.5000]], dtype=torch.float64)
    """
    # All draws lie side by side with the one image's geometry, as many at once as a block holds.
    shape = (-1, len(geometry.classes), *geometry.spatial)
    at_once = max(1, block_values(geometry.device) // math.prod(shape[1:]))
    parts: list[dict[str, Tensor]] = []
    remaining = iter(draws)
    while group := list(islice(remaining, at_once)):
        for draw in group:
            require_maps(draw[:, None], 1, 1, geometry.spatial)
        parts.append(_numbers(MapStats(torch.cat(group)[:, None].expand(shape), geometry)))
    if not parts:
        raise MeasureError("There is no draw: give the maps of one set of random weights or more.")
    numbers: dict[str, Tensor] = {}
    for name in NULL_MEASURES:
        values = torch.cat([part[name] for part in parts])
        low, high = torch.nanquantile(values, values.new_tensor(_SPREAD), dim=0, keepdim=True)
        numbers[f"{name}_null"] = values.nanmean(0, keepdim=True)
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
