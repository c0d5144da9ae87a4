"""How far is the map spread over the image?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.measures.columns import names_of
from unetcam.measures.map_stats import MapStats, by_blocks, where_known
from unetcam.measures.regions import Geometry

CONCENTRATION_NAMES: tuple[str, ...] = tuple(n for n in names_of("concentration") if n != "empty")


def concentration_numbers(stats: MapStats) -> dict[str, Tensor]:
    """The numbers of :func:`map_concentration` from statistics that other questions share."""
    pixels, known, mass, shape = stats.valid_pixels, stats.usable, stats.mass, stats.peak.shape
    weights = stats.ranking.weights
    # With p = w / M: -sum(p ln p) = ln M - sum(w ln w) / M, and w ln w is 0 where w is.
    logs = weights.clamp(min=torch.finfo(torch.float64).tiny).log_()
    entropy = (mass.log() - torch.linalg.vecdot(weights, logs).view(shape) / mass) / pixels.log()
    # In descending order the k-th value has the ascending rank N - k + 1; zeros come last.
    rank = torch.arange(weights.shape[-1], device=mass.device, dtype=torch.float64) + 0.5
    gini = 1 - 2 * (weights @ rank).view(shape) / (mass * pixels)
    effective = mass.square() / (pixels * torch.linalg.vecdot(weights, weights).view(shape))
    return {
        "entropy": where_known(known & (pixels > 1), entropy),
        "gini": where_known(known, gini),
        "effective_area": where_known(known, effective),
    }


@torch.no_grad()
def map_concentration(
    maps: Tensor, classes: Sequence[int], truth: Tensor, *, num_classes: int
) -> dict[str, Tensor]:
    """Concentration: whether the map gathers in few pixels or is scattered over the image.

    Parameters
    ----------
    maps : Tensor
        ``(B, T, H, W)`` or ``(B, T, D, H, W)``, floating, values >= 0 or NaN, any device.
    classes : sequence of int
        The class of each of the T maps.
    truth : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices, -1 where ignored; it only says which
        pixels count.
    num_classes : int
        The number of classes C.

    Returns
    -------
    dict of str to Tensor
        Each ``(B, T)`` float64 on the same device. With p the map divided by its sum over the N
        pixels that count:

        - ``entropy``: normalised Shannon entropy, -sum(p ln p) / ln N; 0 for a single pixel, 1
          for an even map; NaN for N = 1;
        - ``gini``: Gini index, 1 - 2 sum_k p_(k) (N - k + 1/2) / N with p_(1) <= ... <= p_(N)
          [1]_ (equation of table I); 0 for an even map, 1 - 1/N for a single pixel;
        - ``effective_area``: 1 / (N sum(p^2)), the share of the image that an even map of the
          same concentration would fill: Hill's number of order 2 [2]_ over N.

        They ask nothing of the class, so an absent one has them too; NaN for an empty map
        and a map with NaN.

    Raises
    ------
    MeasureError
        If shapes, classes or values do not fit.

    References
    ----------
    .. [1] N. Hurley and S. Rickard, "Comparing Measures of Sparsity", IEEE Transactions on
       Information Theory 55, 2009.
    .. [2] M. Hill, "Diversity and Evenness: A Unifying Notation and Its Consequences", Ecology
       54, 1973.

    Examples
    --------
    >>> import torch
    >>> truth = torch.zeros(1, 1, 4, dtype=torch.long)
    >>> maps = torch.tensor([[[[0.0, 0.0, 5.0, 5.0]]]])
    >>> numbers = map_concentration(maps, [0], truth, num_classes=1)
    >>> {k: round(v.item(), 6) for k, v in numbers.items()}
    {'entropy': 0.5, 'gini': 0.5, 'effective_area': 0.5}
    """
    geometry = Geometry(truth, classes, num_classes=num_classes)
    return by_blocks(maps, geometry, concentration_numbers)
