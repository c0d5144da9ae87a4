"""What the page shows as tables: numbers with their support, ready for the templates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.measures import columns
from unetcam.page.model import RunLike
from unetcam.page.readings import explains_errors
from unetcam.page.text import DASH, number, percent, plural
from unetcam.page.thresholds import FAR_OUTSIDE, WEAK_EDGE, Criterion

PROFILE_BINS = 16


@dataclass(frozen=True)
class Measure:
    """A number that the page explains: a column of the rows in plain words.

    ``criterion`` is the finding's, where the number can raise one. ``typical`` says what
    stands for all images: a ratio whose divisor can be next to nothing has no useful mean.
    """

    column: str
    title: str
    meaning: str
    share: bool
    better: str
    criterion: Criterion | None = None
    typical: Literal["mean", "median"] = "mean"

    def write(self, value: float) -> str:
        """The number as text."""
        return percent(value) if self.share else number(value)


#: The numbers that everybody sees first. The others stand in each class's full table.
KEY_MEASURES: tuple[Measure, ...] = (
    Measure(
        "truth_energy", "On the class",
        "How much of the map's total lies on pixels that truly are of the class.",
        True, "higher is better",
    ),
    Measure(
        "outside_far_share", "Away from the class",
        "How much of the map's total lies neither on the class nor in the band around its edge.",
        True, "lower is better", FAR_OUTSIDE,
    ),
    Measure(
        "boundary_ratio", "Edge strength",
        "Mean of the map just inside the class's edge, divided by its mean in the interior. "
        "1: the edge is as strong as the interior.",
        False, "near or above 1 is better", WEAK_EDGE, "median",
    ),
    Measure(
        "effective_area", "Area covered",
        "The share of the image over which the map spreads; a uniform map covers 100 %. Compare "
        "it with the size of the class.",
        True, "near the size of the class is better",
    ),
    Measure(
        "truth_pointing", "Peak on the class",
        "How often the hottest pixel of the map lies on the class, give or take 15 pixels.",
        True, "higher is better",
    ),
    Measure(
        "truth_best_iou", "Best overlap",
        "The map cut off at its best threshold, compared with the true mask (IoU).",
        False, "higher is better",
    ),
)  # fmt: skip
OVERVIEW_MEASURES = KEY_MEASURES[:4]


@dataclass(frozen=True)
class Stat:
    """A mean with its 95 % bootstrap interval and the number of images that it stands on."""

    mean: float
    low: float
    high: float
    median: float
    support: int

    @property
    def judged(self) -> bool:
        """Whether any image has a value."""
        return self.support > 0 and isfinite(self.mean)


NO_STAT = Stat(float("nan"), float("nan"), float("nan"), float("nan"), 0)


class Stats:
    """The summary's long table, asked by class, layer and measure."""

    def __init__(self, summary: pd.DataFrame) -> None:
        columns = ["class_index", "layer", "metric", "mean", "low", "high", "median", "support"]
        self._stats = {
            (int(index), str(layer), str(metric)): Stat(
                float(mean), float(low), float(high), float(median), int(support)
            )
            for index, layer, metric, mean, low, high, median, support in summary[
                columns
            ].itertuples(index=False)
        }

    def __call__(self, class_index: int, layer: str, metric: str) -> Stat:
        """The statistic, or one with support 0 where there is none."""
        return self._stats.get((class_index, layer, metric), NO_STAT)


@dataclass(frozen=True)
class Cell:
    """A number in a table: its text, how warm its background is (0 to 1), and what it stands on."""

    text: str
    support: int
    heat: float = 0.0
    interval: str = ""
    flag: str = ""
    typical: str = "mean"

    @property
    def hint(self) -> str:
        """What a pointer resting on the cell is told."""
        if not self.support:
            return "no image has a value"
        parts = [f"95 % interval {self.interval}" if self.interval else "", self.flag]
        return "; ".join(
            p for p in (*parts, f"{self.typical} of {plural(self.support, 'image')}") if p
        )


@dataclass(frozen=True)
class HeatTable:
    """A matrix of numbers with coloured cells."""

    title: str
    meaning: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    baseline: tuple[Cell, ...] = ()


@dataclass(frozen=True)
class FullLine:
    """One number of a class at every layer, with what it means."""

    title: str
    meaning: str
    cells: tuple[Cell, ...]


def stat_cell(measure: Measure, stat: Stat) -> Cell:
    """A measure's cell; flagged where the number is beyond the threshold of a finding."""
    if not stat.judged:
        return Cell(DASH, 0)
    shown = stat.mean if measure.typical == "mean" else stat.median
    beyond = measure.criterion is not None and measure.criterion.beyond(stat.median)
    return Cell(
        text=measure.write(shown),
        support=stat.support,
        heat=min(max(shown, 0.0), 1.0),
        interval=(
            f"{measure.write(stat.low)} to {measure.write(stat.high)}"
            if measure.typical == "mean"
            else ""
        ),
        flag="beyond the threshold" if beyond else "",
        typical=measure.typical,
    )


def judging(run: RunLike, measures: Sequence[Measure]) -> list[Measure]:
    """The measures, without thresholds and better sides where the maps are not judged."""
    if not explains_errors(run.rows):
        return list(measures)
    return [replace(measure, criterion=None, better="") for measure in measures]


def overview_heat(run: RunLike, stats: Stats) -> list[tuple[Measure, HeatTable]]:
    """Class by layer, for each of the numbers of the overview."""
    tables = []
    for measure in judging(run, OVERVIEW_MEASURES):
        rows = tuple(
            (
                name,
                tuple(
                    stat_cell(measure, stats(index, layer, measure.column)) for layer in run.layers
                ),
            )
            for index, name in explained(run)
        )
        table = HeatTable(measure.title, measure.meaning, "class", tuple(run.layers), rows)
        tables.append((measure, table))
    return tables


def class_table(run: RunLike, stats: Stats, class_index: int) -> list[tuple[str, list[Cell]]]:
    """A class's key numbers: one line per layer."""
    return [
        (
            layer,
            [
                stat_cell(measure, stats(class_index, layer, measure.column))
                for measure in judging(run, KEY_MEASURES)
            ],
        )
        for layer in run.layers
    ]


def full_table(run: RunLike, stats: Stats, class_index: int) -> list[FullLine]:
    """Every number of a class that has a value, one cell per layer; the profile has its chart."""
    lines = []
    for column in columns(len(run.classes.names), 3 if "hot_z" in run.rows else 2):
        if column.name.startswith(("profile_", "leak_")):
            continue
        found = [stats(class_index, layer, column.name) for layer in run.layers]
        if any(stat.judged for stat in found):
            cells = tuple(_full_cell(stat, column.unit) for stat in found)
            lines.append(FullLine(column.title, column.explanation, cells))
    return lines


def profiles(
    run: RunLike, rows: pd.DataFrame, class_index: int
) -> tuple[dict[str, NDArray[np.float64]], int]:
    """Mean distance profile of a class at every layer, and the number of images behind it.

    A bin that no image has is NaN; ``rows`` come from ``readings.prepared``.
    """
    columns = [f"profile_{place:02d}" for place in range(PROFILE_BINS)]
    own = rows[rows["class_index"] == class_index]
    own = own[own[columns].notna().any(axis=1)]
    curves = {
        layer: own.loc[own["layer"] == layer, columns].mean().to_numpy(np.float64)
        for layer in run.layers
    }
    return curves, int(own["image"].nunique())


def leakage(run: RunLike, rows: pd.DataFrame, layer: str) -> tuple[HeatTable, NDArray[np.float64]]:
    """How the mass of each class's map divides over the true classes, mean over images.

    Rows are the explained classes, columns the true ones; each row's mean stands on the images
    in which the class's map has any mass. The baseline is what a uniform map would give: the mean
    share of the image that each class fills. ``rows`` come from ``readings.prepared``.
    """
    names = list(run.classes.names)
    here = rows[rows["layer"] == layer]
    columns = [f"leak_{index}" for index in range(len(names))]
    matrix = np.full((len(names), len(names)), np.nan)
    lines, baseline = [], [Cell(DASH, 0)] * len(names)
    for index, name in explained(run):
        own = here[here["class_index"] == index]
        matrix[index] = own[columns].mean().to_numpy(np.float64)
        counts = own[columns].notna().sum().to_numpy()
        cells = tuple(
            Cell(percent(float(value)), int(count), float(np.nan_to_num(value)))
            for value, count in zip(matrix[index], counts, strict=True)
        )
        lines.append((name, cells))
        shares = own["class_share"].to_numpy(np.float64)
        shares = shares[~np.isnan(shares)]
        if shares.size:
            baseline[index] = Cell(percent(float(shares.mean())), len(shares))
    table = HeatTable(layer, "", "map of", tuple(names), tuple(lines), tuple(baseline))
    return table, matrix


def explained(run: RunLike) -> list[tuple[int, str]]:
    """Index and name of the classes that have rows."""
    there = {int(value) for value in run.rows["class_index"]}
    return [(index, name) for index, name in enumerate(run.classes.names) if index in there]


def _full_cell(stat: Stat, unit: str) -> Cell:
    if not stat.judged:
        return Cell(DASH, 0)

    def write(value: float) -> str:
        if unit in ("share", "yes/no"):
            return percent(value)
        return number(value, 1 if unit in ("pixels", "pixel index", "count") else 3)

    return Cell(write(stat.mean), stat.support, interval=f"{write(stat.low)} to {write(stat.high)}")
