"""The measures once more, one map at a time, in NumPy, SciPy, scikit-image and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

Array = NDArray[Any]
Row = dict[str, float]


def contour_distance(truth: Array, c: int) -> Array:
    """Distance of each pixel to the nearest one of the other side; infinite without one."""
    inside, outside = truth == c, (truth != c) & (truth >= 0)
    far = np.full(truth.shape, np.inf)
    to_inside = ndimage.distance_transform_edt(~inside) if inside.any() else far
    to_outside = ndimage.distance_transform_edt(~outside) if outside.any() else far
    return np.where(inside, to_outside, to_inside)


def default_band(shape: Sequence[int]) -> float:
    return max(1.0, 0.02 * float(np.linalg.norm(shape)))


def _mean(values: Array) -> float:
    return float(values.mean()) if values.size else np.nan


def _usable(values: Array, truth: Array) -> bool:
    return bool(np.isfinite(values).all() and (values[truth >= 0] > 0).any())


def boundary(values: Array, c: int, truth: Array, band: float | None = None) -> Row:
    names = ["inner", "outer", "interior", "far", "ratio"]
    row = {f"boundary_{n}": np.nan for n in names}
    row |= {f"band_{n}": np.nan for n in ("mass_share", "area_share", "mass_ratio")}
    row |= {f"profile_{k:02d}": np.nan for k in range(16)}
    valid = truth >= 0
    inside, outside = truth == c, valid & (truth != c)
    band = band or default_band(truth.shape)
    distance = contour_distance(truth, c)
    bounded = inside.any() and outside.any()
    near = valid & (distance <= band)
    if bounded:
        row["band_area_share"] = near.sum() / valid.sum()
    if not inside.any() or not _usable(values, truth):
        return row
    scaled = values.astype(np.float64) / values[valid].max()
    row["boundary_interior"] = _mean(scaled[inside & ~near])
    row["boundary_far"] = _mean(scaled[outside & ~near])
    if bounded:
        row["boundary_inner"] = _mean(scaled[inside & near])
        row["boundary_outer"] = _mean(scaled[outside & near])
        if row["boundary_interior"] > 0:
            row["boundary_ratio"] = row["boundary_inner"] / row["boundary_interior"]
        row["band_mass_share"] = scaled[near].sum() / scaled[valid].sum()
        row["band_mass_ratio"] = row["band_mass_share"] / row["band_area_share"]
        for k in range(8):
            ring = (distance > k * band / 2) & (distance <= (k + 1) * band / 2)
            row[f"profile_{8 + k:02d}"] = _mean(scaled[outside & ring])
            row[f"profile_{7 - k:02d}"] = _mean(scaled[inside & ring])
    return row


def background(
    values: Array, c: int, truth: Array, num_classes: int, band: float | None = None
) -> Row:
    axes = "zyx"[-truth.ndim :]
    names = ["outside_share", "outside_far_share", "hot_background", "hot_count", "hot_area"]
    names += ["hot_largest_area", *(f"hot_{a}" for a in axes)]
    names += [f"leak_{j}" for j in range(num_classes)]
    row = dict.fromkeys(names, np.nan)
    valid = truth >= 0
    if not (truth == c).any() or not _usable(values, truth):
        return row
    values = values.astype(np.float64)
    outside = valid & (truth != c)
    far = outside & (contour_distance(truth, c) > (band or default_band(truth.shape)))
    total = values[valid].sum()
    row["outside_share"] = values[outside].sum() / total
    row["outside_far_share"] = values[far].sum() / total
    hot = outside & (values > 0.5 * values[valid].max())
    if outside.any():
        row["hot_background"] = hot.sum() / outside.sum()
    regions = regionprops(label(hot, connectivity=truth.ndim))
    row["hot_count"], row["hot_area"] = len(regions), hot.sum()
    row["hot_largest_area"] = max((r.area for r in regions), default=0)
    if regions:
        # max() keeps the first of equals, and skimage labels in raster order.
        centre = max(regions, key=lambda r: r.area).centroid
        row |= {f"hot_{a}": x for a, x in zip(axes, centre, strict=True)}
    for j in range(num_classes):
        row[f"leak_{j}"] = values[truth == j].sum() / total
    return row


def _region(values: Array, region: Array, valid: Array, threshold: float, tolerance: float) -> Row:
    names = ["iou", "dice", "best_iou", "best_dice", "best_threshold", "ap", "pointing"]
    row = dict.fromkeys([*names, "energy", "rank"], np.nan)
    if not region.any() or not _usable(values, np.where(valid, 0, -1)):
        return row
    scores, positives = values[valid], region[valid]
    peak = scores.max()
    hot = scores >= scores.dtype.type(threshold) * peak
    row["iou"], row["dice"] = jaccard_score(positives, hot), f1_score(positives, hot)
    cuts = np.unique(scores[scores > 0])[::-1]
    ious = [(positives & (scores >= t)).sum() / (positives | (scores >= t)).sum() for t in cuts]
    best = int(np.argmax(ious))
    row["best_iou"], row["best_threshold"] = ious[best], float(cuts[best]) / float(peak)
    row["best_dice"] = f1_score(positives, scores >= cuts[best])
    row["ap"] = average_precision_score(positives, scores)
    distance = ndimage.distance_transform_edt(~region)
    row["pointing"] = _mean((distance <= tolerance)[valid][scores == peak].astype(float))
    row["energy"] = scores[positives].sum(dtype=np.float64) / scores.sum(dtype=np.float64)
    size = int(positives.sum())
    last = np.sort(scores)[::-1][size - 1]
    tied = scores == last
    sure = positives[scores > last].sum()
    row["rank"] = (sure + (size - (scores > last).sum()) * positives[tied].mean()) / size
    return row


def overlap(
    values: Array,
    c: int,
    truth: Array,
    prediction: Array,
    threshold: float = 0.5,
    tolerance: float = 15.0,
) -> Row:
    valid = truth >= 0
    regions = {"truth": truth == c, "prediction": (prediction == c) & valid}
    return {
        f"{name}_{key}": value
        for name, region in regions.items()
        for key, value in _region(values, region, valid, threshold, tolerance).items()
    }


def concentration(values: Array, truth: Array) -> Row:
    if not _usable(values, truth):
        return dict.fromkeys(("entropy", "gini", "effective_area"), np.nan)
    found = values[truth >= 0].astype(np.float64)
    share = found / found.sum()
    positive = share[share > 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        entropy = -(positive * np.log(positive)).sum() / np.log(len(share))
    # Half the mean absolute difference over the mean, by its pairs, in place of the order.
    gini = np.abs(share[:, None] - share[None, :]).mean() / (2 * share.mean())
    return {
        "entropy": entropy if len(share) > 1 else np.nan,
        "gini": gini,
        "effective_area": share.sum() ** 2 / (share**2).sum() / len(share),
    }


def quality(c: int, truth: Array, prediction: Array, num_classes: int = 4) -> Row:
    valid = truth >= 0
    region, predicted = truth[valid] == c, prediction[valid] == c
    present = bool(region.any())
    return {
        "truth_pixels": region.sum(),
        "predicted_pixels": predicted.sum(),
        "class_iou": jaccard_score(region, predicted) if present else np.nan,
        "class_dice": f1_score(region, predicted) if present else np.nan,
        "present": present,
        "predicted": bool(predicted.any()),
        **{f"predicted_as_{j}": (prediction[valid][region] == j).sum() for j in range(num_classes)},
    }


class Scene:
    """Random blobs as truth and prediction, and maps of every awkward kind over them."""

    def __init__(
        self,
        seed: int,
        shape: Sequence[int],
        *,
        batch: int = 3,
        num_classes: int = 4,
        ignored: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        rng = np.random.default_rng(seed)
        self.num_classes = num_classes
        self.classes = [*range(num_classes), 1, 0]

        def blobs() -> Array:
            noise = rng.normal(size=(batch, num_classes, *shape))
            smooth = ndimage.gaussian_filter(noise, (0, 0, *(2.5,) * len(shape)))
            return smooth.argmax(1)

        truth, prediction = blobs(), blobs()
        truth[0][truth[0] == num_classes - 1] = 0  # one class absent
        prediction[1][prediction[1] == 0] = 1  # one class not predicted
        truth[2] = 1  # one class fills its image
        if ignored:
            hole = ndimage.gaussian_filter(
                rng.normal(size=(batch, *shape)), (0, *(2,) * len(shape))
            )
            truth[hole > np.quantile(hole, 0.93)] = -1
        values = rng.normal(size=(batch, len(self.classes), *shape))
        values[:, 1::2] = ndimage.gaussian_filter(values, (0, 0, *(1.5,) * len(shape)))[:, 1::2]
        values = np.maximum(values, 0)
        values[0, 1] = np.ceil(values[0, 1] * 8) / 8  # many ties
        values[1, 2] = 0  # an empty map
        values[1, 3][(0,) * len(shape)] = np.nan  # an unknown map
        values[0, 4] = truth[0] == 1  # a perfect map
        values[1, 0] = 1  # an even map
        self.maps = torch.from_numpy(values).to(dtype)
        self.truth = torch.from_numpy(truth)
        self.prediction = torch.from_numpy(prediction)

    def rows(self, reference: Any) -> dict[str, Array]:
        """``reference(values, class, truth, prediction)`` for every map, as ``(B, T)`` arrays."""
        rows = [
            [
                reference(
                    self.maps[b, t].numpy(), c, self.truth[b].numpy(), self.prediction[b].numpy()
                )
                for t, c in enumerate(self.classes)
            ]
            for b in range(len(self.truth))
        ]
        names = rows[0][0].keys()
        return {n: np.array([[cell[n] for cell in row] for row in rows], float) for n in names}
