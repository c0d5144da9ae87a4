"""All questions at once: one row per image, layer and class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.background import background_numbers
from unetcam.measures.boundary import boundary_numbers
from unetcam.measures.checks import require_band, require_threshold
from unetcam.measures.concentration import concentration_numbers
from unetcam.measures.map_stats import MapStats, by_blocks
from unetcam.measures.overlap import overlap_numbers
from unetcam.measures.regions import Geometry
from unetcam.measures.segmentation import quality_numbers


def _require_same(
    geometry: Geometry,
    classes: Sequence[int],
    truth: Tensor,
    prediction: Tensor,
    num_classes: int,
    band: float | None,
    tolerance: float,
) -> None:
    """Refuse a geometry that was made for something else."""
    same = (
        geometry.classes == tuple(int(c) for c in classes)
        and geometry.num_classes == num_classes
        and geometry.band == require_band(band, geometry.spatial)
        and geometry.tolerance == tolerance
        and geometry.prediction is not None
        and torch.equal(geometry.truth, truth.flatten(1).to(geometry.truth))
        and torch.equal(
            geometry.prediction.flatten(1), prediction.flatten(1).to(geometry.prediction.dtype)
        )
    )
    if not same:
        raise MeasureError(
            "The geometry was made for other masks, classes or settings: "
            "make one with the same truth, prediction, classes, band and tolerance."
        )


@torch.no_grad()
def measure(
    maps: Tensor,
    classes: Sequence[int],
    truth: Tensor,
    prediction: Tensor,
    *,
    num_classes: int,
    band: float | None = None,
    threshold: float = 0.5,
    tolerance: float = 15.0,
    geometry: Geometry | None = None,
) -> dict[str, Tensor]:
    """All numbers of all questions for a batch of maps.

    Parameters
    ----------
    maps : Tensor
        ``(B, T, H, W)`` or ``(B, T, D, H, W)`` raw maps at the masks' resolution, values >= 0
        or NaN, any floating dtype and device.
    classes : sequence of int
        The class of each of the T maps. A class may come more than once, so the maps of several
        layers can be measured in one call, side by side along T.
    truth, prediction : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices on the maps' device; -1 in the truth
        marks ignored pixels, which count nowhere.
    num_classes : int
        The number of classes C.
    band : float, optional
        Width of the boundary band in pixels. Default: 2 % of the image diagonal, at least 1.
    threshold : float
        The fixed threshold of the overlap, a share of the map's maximum, in (0, 1].
    tolerance : float
        The pointing game's tolerance in pixels.
    geometry : Geometry, optional
        Made beforehand from the same masks, classes and settings, to share it between layers.

    Returns
    -------
    dict of str to Tensor
        Each ``(B, T)`` on the maps' device, in the order of
        :func:`~unetcam.measures.columns`: the numbers of
        :func:`~unetcam.measures.segmentation_quality`; ``empty`` (bool: the map is zero on
        every pixel that counts); and those of
        :func:`~unetcam.measures.boundary_activation`,
        :func:`~unetcam.measures.background_activation`,
        :func:`~unetcam.measures.map_overlap` and
        :func:`~unetcam.measures.map_concentration`. Counts of truth and predicted pixels are
        int64, flags bool, everything else float64.

    Raises
    ------
    MeasureError
        If shapes, classes, values or settings do not fit, or the geometry is of other masks.

    Notes
    -----
    NaN, never 0, stands for what can't be asked: numbers about the truth where it lacks the
    class, numbers about the prediction where that lacks it, every number of a map with NaN, and
    every number of an empty map but ``empty`` itself.

    Examples
    --------
    >>> import torch
    >>> truth = torch.zeros(1, 32, 32, dtype=torch.long)
    >>> truth[:, 8:24, 8:24] = 1
    >>> maps = torch.stack([truth == 0, truth == 1], dim=1).float()
    >>> row = measure(maps, [0, 1], truth, truth, num_classes=2)
    >>> row["truth_best_iou"]
    tensor([[1., 1.]], dtype=torch.float64)
    >>> row["leak_0"]
    tensor([[1., 0.]], dtype=torch.float64)
    """
    require_threshold(threshold)
    if geometry is None:
        geometry = Geometry(
            truth, classes, prediction, num_classes=num_classes, band=band, tolerance=tolerance
        )
    else:
        _require_same(geometry, classes, truth, prediction, num_classes, band, tolerance)

    def of_maps(stats: MapStats) -> dict[str, Tensor]:
        return {
            "empty": stats.empty,
            **boundary_numbers(stats),
            **background_numbers(stats),
            **overlap_numbers(stats, threshold),
            **concentration_numbers(stats),
        }

    return {**quality_numbers(geometry), **by_blocks(maps, geometry, of_maps)}
