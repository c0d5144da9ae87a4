"""Readings: one symptom's number for one class at one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import pandas as pd

from unetcam.measures import of_the_map
from unetcam.page.thresholds import (
    CRITERIA,
    LARGEST_JUDGED_SHARE,
    MIN_SUPPORT,
    SOME_SHARE,
    SYMPTOMS,
    USUAL_SHARE,
    Criterion,
    Severity,
    Symptom,
)
from unetcam.runs.spec import ERROR_KINDS

_Z95 = 1.959963984540054


@dataclass(frozen=True)
class Reading:
    """One symptom's number for one class at one layer, and what it amounts to.

    ``severity`` is ``None`` where the number is on the good side; ``support`` is the number of
    images that have a value, ``affected`` how many of these are beyond the threshold, ``present``
    the number of images that contain the class. At least half of the images have ``median`` or a
    worse number, at least a quarter have ``quartile`` or worse: both are numbers of images, so
    that they agree with ``affected`` to the image.
    """

    symptom: Symptom
    criterion: Criterion
    class_index: int
    class_name: str
    layer: str
    median: float
    quartile: float
    affected: int
    support: int
    present: int
    severity: Severity | None

    @property
    def usual(self) -> bool:
        """Whether at least half of the images show the symptom."""
        return self.support > 0 and self.affected >= USUAL_SHARE * self.support

    @property
    def shown(self) -> float:
        """The number to report: the median image, or the worse quarter where only some show it."""
        return self.median if self.usual or self.severity is None else self.quartile


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927).

    Examples
    --------
    >>> low, high = wilson(15, 20)
    >>> round(low, 3), round(high, 3)
    (0.531, 0.888)
    >>> wilson(0, 0)
    (0.0, 1.0)
    """
    if trials == 0:
        return 0.0, 1.0
    share = hits / trials
    centre = share + _Z95**2 / (2 * trials)
    half = _Z95 * sqrt(share * (1 - share) / trials + _Z95**2 / (4 * trials**2))
    scale = 1 + _Z95**2 / trials
    return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)


def prepared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the report judges them: empty maps without numbers, and four columns more.

    A map without any positive evidence has no place where it could be scattered or wrong, so every
    measure of it becomes NaN here; ``empty`` still counts it. ``class_share`` is the class's part
    of the image's labelled pixels, ``spread`` is
    ``(effective_area - class_share) / (1 - class_share)``, at least 0: 0 for a map no wider than
    the class, 1 for a uniform map. ``spread`` is NaN where the class fills more than
    ``LARGEST_JUDGED_SHARE`` of the image or is absent. ``edge_ratio`` is ``boundary_ratio`` where
    the class holds at least the share of the map that a uniform map would put there, and
    ``thin_band_ratio`` is ``band_mass_ratio`` there where ``boundary_ratio`` has no value and the
    class fills less than half of the image.

    Examples
    --------
    >>> rows = pd.DataFrame({"image": ["a", "a"], "layer": "up1", "class_index": [0, 1],
    ...                      "empty": False, "truth_pixels": [75.0, 25.0],
    ...                      "effective_area": [0.8, 0.625], "boundary_ratio": 1.0,
    ...                      "band_mass_ratio": 2.0, "truth_energy": 0.9})
    >>> prepared(rows)[["class_share", "spread"]].round(2).values.tolist()
    [[0.75, 0.2], [0.25, 0.5]]
    """
    frame = rows.copy()
    if "empty" in rows:
        empty = rows["empty"].fillna(False).astype(bool)
        for name in rows.select_dtypes("number").columns:
            if of_the_map(name) and name not in ("class_index", "stage_stride"):
                frame[name] = frame[name].astype(float).mask(empty)
    pixels = frame["truth_pixels"].fillna(0.0).astype(float)
    total = pixels.groupby([frame["image"], frame["layer"]]).transform("sum")
    share = pixels / total.where(total > 0)
    spread = (frame["effective_area"] - share) / (1 - share)
    judged = (share > 0) & (share <= LARGEST_JUDGED_SHARE)
    met = (share > 0) & (frame["truth_energy"] >= share)
    thin = met & frame["boundary_ratio"].isna() & (share < 0.5)
    return frame.assign(
        class_share=share,
        spread=spread.clip(lower=0.0).where(judged),
        edge_ratio=frame["boundary_ratio"].where(met),
        thin_band_ratio=frame["band_mass_ratio"].where(thin),
    )


def explains_errors(rows: pd.DataFrame) -> bool:
    """Whether the maps explain mistakes, for which the thresholds of a class's maps don't hold."""
    return "target" in rows and bool(rows["target"].isin(ERROR_KINDS).any())


def readings(rows: pd.DataFrame, layers: Sequence[str]) -> list[Reading]:
    """Every symptom's number for every class and layer, in the order class, symptom, layer.

    ``rows`` come from :func:`prepared`.
    """
    found: list[Reading] = []
    for index in sorted({int(value) for value in rows["class_index"]}):
        group = rows[rows["class_index"] == index]
        name = str(group["class_name"].iloc[0])
        parts = dict(list(group.groupby("layer", sort=False)))
        for symptom in SYMPTOMS:
            found.extend(
                _read(symptom, index, name, layer, parts[layer])
                for layer in layers
                if layer in parts
            )
    return found


def _read(symptom: Symptom, index: int, name: str, layer: str, rows: pd.DataFrame) -> Reading:
    """The first criterion that raises the symptom, else the first that could be judged."""
    made = [_judge(criterion, index, name, layer, rows) for criterion in CRITERIA[symptom]]
    raised = [reading for reading in made if reading.severity is not None]
    judged = [reading for reading in made if reading.support]
    return (raised or judged or made)[0]


def _judge(criterion: Criterion, index: int, name: str, layer: str, rows: pd.DataFrame) -> Reading:
    values = rows[criterion.measure].to_numpy(float)
    if explains_errors(rows):
        values = values[:0]
    values = np.sort(values[~np.isnan(values)])
    values = values[::-1] if criterion.worse == "high" else values
    affected = sum(criterion.beyond(float(value)) for value in values)
    support = len(values)
    median, quartile = (
        float(values[ceil(share * support) - 1]) if support else float("nan")
        for share in (USUAL_SHARE, SOME_SHARE)
    )
    present = int((rows["truth_pixels"] > 0).sum())
    severity: Severity | None = None
    if support and affected >= SOME_SHARE * support:
        severity = "note"
        enough = support >= max(MIN_SUPPORT, USUAL_SHARE * present)
        if enough and affected >= USUAL_SHARE * support:
            firm = wilson(affected, support)[0] > USUAL_SHARE
            severity = "high" if firm and criterion.beyond(median, severe=True) else "medium"
    return Reading(
        symptom=criterion.symptom,
        criterion=criterion,
        class_index=index,
        class_name=name,
        layer=layer,
        median=median,
        quartile=quartile,
        affected=affected,
        support=support,
        present=present,
        severity=severity,
    )
