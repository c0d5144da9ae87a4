"""Does the map lie on the class, as the truth and as the prediction has it?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.measures.checks import require_threshold
from unetcam.measures.columns import names_of
from unetcam.measures.map_stats import MapStats, where_known
from unetcam.measures.regions import Geometry

OVERLAP_NAMES: tuple[str, ...] = names_of("overlap")

_CHUNK = 1 << 22
"""Values ranked at once; bounds the memory of large batches to some hundred megabytes."""


def _at(table: Tensor, index: Tensor) -> Tensor:
    """One entry per row of the last axis."""
    return table.gather(-1, index.clamp(0, table.shape[-1] - 1)[..., None])[..., 0]


def _up_to(hits: Tensor, count: Tensor) -> Tensor:
    """How many of the first ``count`` ranks are hits, from the running count."""
    return torch.where(count > 0, _at(hits, count - 1), 0)


def _ranked(ordered: Tensor, regions: Tensor, level: Tensor, peak: Tensor) -> tuple[Tensor, ...]:
    """The numbers that follow from the order of the values alone.

    Parameters
    ----------
    ordered : Tensor
        ``(R, N)`` values in descending order, ignored pixels last as -1.
    regions : Tensor
        ``(2, R, N)`` bool, whether the pixel of each rank lies in the truth, the prediction.
    level, peak : Tensor
        ``(R,)``, the fixed threshold as a value, and the maximum.

    Returns
    -------
    tuple of Tensor
        IoU at the level, best IoU, its threshold, average precision, rank accuracy; each
        ``(2, R)`` float64, without meaning where the region is empty.
    """
    count = ordered.shape[-1]
    hits = regions.to(torch.int32).cumsum(-1, dtype=torch.int32)
    size = hits[..., -1].long()
    place = torch.arange(1, count + 1, device=ordered.device, dtype=torch.int32)

    # Equal values share a threshold: a cut is possible behind the last of them only. Factors of
    # 0 and 1 blank out the rest, which is faster than filling by mask.
    last = torch.ones_like(ordered, dtype=torch.bool)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=last[:, :-1])

    union = place + size.int()[..., None] - hits
    best_iou, where = (hits / union.double() * (last & (ordered > 0)).double()).max(-1)
    threshold = _at(ordered.expand(2, -1, -1), where).double() / peak

    cuts = last.int()
    at_cuts = hits * cuts
    before = at_cuts.cummax(-1).values.roll(1, -1)
    before[..., 0] = 0
    gained = (at_cuts - before) * cuts
    average_precision = (gained * (hits / place.double())).sum(-1) / size

    chosen = (ordered >= level[:, None]).sum(-1).expand_as(size)
    common = _up_to(hits, chosen)
    iou = common / (chosen + size - common).double()

    lowest = _at(ordered.expand(2, -1, -1), size - 1)[..., None]
    above, at_least = (ordered > lowest).sum(-1), (ordered >= lowest).sum(-1)
    sure, possible = _up_to(hits, above), _up_to(hits, at_least)
    drawn = (size - above) / (at_least - above).double()
    rank = (sure + (possible - sure) * drawn) / size
    return iou, best_iou, threshold, average_precision, rank


def overlap_numbers(stats: MapStats, threshold: float) -> dict[str, Tensor]:
    """The numbers of :func:`map_overlap` from statistics that other questions share."""
    geometry = stats.geometry
    regions = torch.stack((geometry.inside, geometry.predicted_inside))
    near = (geometry.near_truth, geometry.near_prediction)
    shape = stats.peak.shape

    ordered, pixels = (part.flatten(0, 1) for part in stats.ranking)
    flat = regions.flatten(1, 2)
    peak = stats.peak.flatten()
    level = threshold * peak
    step = max(1, _CHUNK // ordered.shape[-1])
    parts = []
    for start in range(0, ordered.shape[0], step):
        rows = slice(start, start + step)
        chosen = flat[:, rows]
        inside = chosen.gather(-1, pixels[rows].expand_as(chosen))
        parts.append(_ranked(ordered[rows], inside, level[rows], peak[rows]))
    iou, best_iou, best_threshold, precision, rank = (
        torch.cat(part, dim=1).view(2, *shape) for part in zip(*parts, strict=True)
    )

    top = (stats.values == stats.peak[..., None]) & geometry.valid
    numbers: dict[str, Tensor] = {}
    for k, (region, name) in enumerate(zip(regions, ("truth", "prediction"), strict=True)):
        known = stats.usable & region.any(-1)
        values = {
            "iou": iou[k],
            "dice": 2 * iou[k] / (1 + iou[k]),
            "best_iou": best_iou[k],
            "best_dice": 2 * best_iou[k] / (1 + best_iou[k]),
            "best_threshold": best_threshold[k],
            "ap": precision[k],
            "pointing": (top & near[k]).sum(-1) / top.sum(-1).double(),
            "energy": (stats.weights * region).sum(-1) / stats.mass,
            "rank": rank[k],
        }
        numbers.update((f"{name}_{key}", where_known(known, v)) for key, v in values.items())
    return numbers


@torch.no_grad()
def map_overlap(
    maps: Tensor,
    classes: Sequence[int],
    truth: Tensor,
    prediction: Tensor,
    *,
    num_classes: int,
    threshold: float = 0.5,
    tolerance: float = 15.0,
) -> dict[str, Tensor]:
    """Overlap of the map with the class's region, in the truth and in the prediction.

    Parameters
    ----------
    maps : Tensor
        ``(B, T, H, W)`` or ``(B, T, D, H, W)``, floating, values >= 0 or NaN, any device.
    classes : sequence of int
        The class of each of the T maps.
    truth, prediction : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices on the same device; -1 in the truth
        marks ignored pixels, which are left out of both.
    num_classes : int
        The number of classes C.
    threshold : float
        The fixed threshold, a share of the map's maximum, in (0, 1].
    tolerance : float
        How far from the region the maximum may lie in the pointing game, in pixels.

    Returns
    -------
    dict of str to Tensor
        Each ``(B, T)`` float64 on the same device, under ``truth_*`` and ``prediction_*``. With
        R the region and S(t) the pixels whose value is at least t times the map's maximum:

        - ``iou``, ``dice``: ``|S ∩ R| / |S ∪ R|`` and ``2 |S ∩ R| / (|S| + |R|)`` at the fixed
          threshold;
        - ``best_iou``, ``best_dice``, ``best_threshold``: the largest over all thresholds
          t in (0, 1], exactly (every distinct positive value of the map is tried), and the
          threshold that gives it, the higher one among equals. Both are largest at the same t;
        - ``ap``: average precision of the values as scores of R's pixels, sum_n (r_n - r_{n-1})
          p_n over the distinct values in descending order, without interpolation [1]_;
        - ``pointing``: pointing game [2]_: 1 where the map's maximum lies in R or at most the
          tolerance away from it, else 0. Where several pixels share the maximum, the share of
          them that hits;
        - ``energy``: energy-based pointing game [3]_ with the region in place of the bounding
          box: the map's sum over R / its sum over all pixels;
        - ``rank``: relevance rank accuracy [4]_: the share of the ``|R|`` highest values that
          lie in R. Where the last of them is shared by more pixels than fit, its expectation
          under a random choice among these.

        NaN for a region without a pixel, an empty map and a map with NaN.

    Raises
    ------
    MeasureError
        If shapes, classes, values, the threshold or the tolerance do not fit.

    Notes
    -----
    The pointing game was published for maps of photographs of some 500 pixels; on much smaller
    images 15 pixels are generous.

    References
    ----------
    .. [1] C. Manning, P. Raghavan and H. Schuetze, "Introduction to Information Retrieval",
       section 8.4, 2008; as scikit-learn's ``average_precision_score``.
    .. [2] J. Zhang, Z. Lin, J. Brandt, X. Shen and S. Sclaroff, "Top-down Neural Attention by
       Excitation Backprop", ECCV 2016.
    .. [3] H. Wang et al., "Score-CAM: Score-Weighted Visual Explanations for Convolutional
       Neural Networks", CVPR Workshops 2020.
    .. [4] L. Arras, A. Osman and W. Samek, "CLEVR-XAI: A benchmark dataset for the ground truth
       evaluation of neural network explanations", Information Fusion 81, 2022.

    Examples
    --------
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 1, 1]]])
    >>> maps = torch.tensor([[[[0.0, 3.0, 4.0, 1.0]]]])
    >>> numbers = map_overlap(maps, [1], truth, truth, num_classes=2, tolerance=0)
    >>> keys = ("iou", "best_iou", "best_threshold", "ap")
    >>> [round(numbers[f"truth_{k}"].item(), 3) for k in keys]
    [0.333, 0.667, 0.25, 0.833]
    >>> [numbers[f"truth_{k}"].item() for k in ("pointing", "energy", "rank")]
    [1.0, 0.625, 0.5]
    """
    geometry = Geometry(truth, classes, prediction, num_classes=num_classes, tolerance=tolerance)
    return overlap_numbers(MapStats(maps, geometry), require_threshold(threshold))
