"""Does the map lie on the class, as the truth and as the prediction has it?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.measures.checks import require_threshold
from unetcam.measures.columns import names_of
from unetcam.measures.map_stats import MapStats, by_blocks, where_known
from unetcam.measures.regions import INSIDE, Geometry

OVERLAP_NAMES: tuple[str, ...] = names_of("overlap")


def _of_ranks(stats: MapStats, threshold: float) -> tuple[Tensor, ...]:
    """The numbers that follow from the order of the values alone.

    Returns
    -------
    tuple of Tensor
        IoU at the threshold, best IoU, its threshold, average precision, rank accuracy; each
        ``(2, b, t)`` float64 for truth and prediction, without meaning where the region or the
        map is empty.
    """
    geometry, ranking, peak = stats.geometry, stats.ranking, stats.peak.flatten()
    pixels = torch.stack((stats.part(geometry.truth_pixels), stats.part(geometry.predicted_pixels)))
    pixels, shape = pixels.flatten(1), pixels.shape
    size, counted = pixels.double(), stats.valid_pixels.expand(shape[1:]).flatten()
    positive = ranking.positive.expand_as(pixels)

    best_iou, value = ranking.best_cut(size)
    # What is not reached by positive values lies among the zeros, which share the last cut.
    left = size - ranking.hits_up_to(positive)
    average_precision = (ranking.precision_gained() + left * (size / counted)) / size

    chosen = ranking.at_least((threshold * peak)[:, None]).T.expand_as(pixels)
    common = ranking.hits_up_to(chosen)
    iou = common / (chosen + size - common)

    lowest = ranking.value_at((pixels - 1).clamp(min=0).T)
    some = (lowest > 0).T
    above = torch.where(some, ranking.above(lowest).T, positive)
    at_least = torch.where(some, ranking.at_least(lowest).T.double(), counted)
    sure = ranking.hits_up_to(above)
    possible = torch.where(some, ranking.hits_up_to(at_least.long()), size)
    rank = (sure + (possible - sure) * (size - above) / (at_least - above)) / size
    parts = (iou, best_iou, value / peak, average_precision, rank)
    return tuple(part.view(shape) for part in parts)


def overlap_numbers(stats: MapStats, threshold: float) -> dict[str, Tensor]:
    """The numbers of :func:`map_overlap` from statistics that other questions share."""
    geometry = stats.geometry
    iou, best_iou, best_threshold, precision, rank = _of_ranks(stats, threshold)
    top = (stats.values == stats.peak[..., None]) & stats.part(geometry.valid)
    tops = top.sum(-1).double()
    regions = (
        ("truth", geometry.truth_pixels, geometry.near_truth, stats.zone_mass[..., INSIDE].sum(-1)),
        ("prediction", geometry.predicted_pixels, geometry.near_prediction, stats.predicted_mass),
    )
    numbers: dict[str, Tensor] = {}
    for k, (name, pixels, near, mass) in enumerate(regions):
        known = stats.usable & (stats.part(pixels) > 0)
        values = {
            "iou": iou[k],
            "dice": 2 * iou[k] / (1 + iou[k]),
            "best_iou": best_iou[k],
            "best_dice": 2 * best_iou[k] / (1 + best_iou[k]),
            "best_threshold": best_threshold[k],
            "ap": precision[k],
            "pointing": (top & stats.part(near)).sum(-1) / tops,
            "energy": mass / stats.mass,
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
    require_threshold(threshold)
    return by_blocks(maps, geometry, lambda stats: overlap_numbers(stats, threshold))
