"""What the page shows as tables: numbers with their support, each beside its null."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.measures.columns import columns, of_the_map
from unetcam.measures.regions import PROFILE_BINS
from unetcam.page.nulls import Null, null_of
from unetcam.page.text import DASH, number, percent, plural
from unetcam.runs.spec import ERROR_KINDS

if TYPE_CHECKING:
    from unetcam.runs import Run


@dataclass(frozen=True)
class Measure:
    """A number that the page explains: a column of the rows in plain words.

    ``typical`` says what stands for all images: a ratio whose divisor can be next to nothing has
    no useful mean. ``question`` is asked of a map where the number answers one.
    """

    column: str
    title: str
    meaning: str
    share: bool
    better: str
    typical: Literal["mean", "median"] = "mean"
    question: str = ""

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
        True, "lower is better", question="How much of the map lies away from the class?",
    ),
    Measure(
        "boundary_ratio", "Edge strength",
        "Mean of the map just inside the class's edge, divided by its mean in the interior. "
        "1: the edge is as strong as the interior.",
        False, "near or above 1 is better", "median",
        "How strong is the map along the boundary?",
    ),
    Measure(
        "effective_area", "Area covered",
        "The share of the image over which the map spreads; a uniform map covers 100 %. Compare "
        "it with the size of the class.",
        True, "near the size of the class is better",
        question="How far is the map scattered over the image?",
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
#: The three symptoms of the literature, as measures: scattered, background, weak boundary.
SYMPTOM_MEASURES = tuple(m for m in KEY_MEASURES if m.question)


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
    """A number in a table: its text, how warm its background is (0 to 1), and what it stands on.

    ``null`` is what random channel weights give there, and ``apart`` whether the number differs
    from that.
    """

    text: str
    support: int
    heat: float = 0.0
    interval: str = ""
    typical: str = "mean"
    null: str = ""
    apart: bool = True

    @property
    def hint(self) -> str:
        """What a pointer resting on the cell is told."""
        if not self.support:
            return "no image has a value"
        parts = [
            f"{self.typical} of {plural(self.support, 'image')}",
            f"95 % interval {self.interval}" if self.interval else "",
            f"random channel weights give {self.null}" if self.null else "",
            "" if self.apart else "within the range of random channel weights",
        ]
        return "; ".join(filter(None, parts))


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


def prepared(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as the page reads them: empty maps without numbers, and the class's share.

    A map without any positive evidence has no place where it could be scattered or wrong, so every
    measure of it becomes NaN here; ``empty`` still counts it. ``class_share`` is the class's part
    of the image's labelled pixels.

    Examples
    --------
    >>> rows = pd.DataFrame({"image": ["a", "a"], "layer": "up1", "class_index": [0, 1],
    ...                      "empty": [False, True], "truth_pixels": [75.0, 25.0], "gini": 0.5})
    >>> prepared(rows)[["class_share", "gini"]].values.tolist()
    [[0.75, 0.5], [0.25, nan]]
    """
    frame = rows.copy()
    if "empty" in rows:
        empty = rows["empty"].fillna(False).astype(bool)
        for name in rows.select_dtypes("number").columns:
            if of_the_map(name) and name not in ("class_index", "stage_stride"):
                frame[name] = frame[name].astype(float).mask(empty)
    pixels = frame["truth_pixels"].fillna(0.0).astype(float)
    total = pixels.groupby([frame["image"], frame["layer"]]).transform("sum")
    return frame.assign(class_share=pixels / total.where(total > 0))


def explains_errors(rows: pd.DataFrame) -> bool:
    """Whether the maps explain mistakes: then no side of a map's number is the better one."""
    return "target" in rows and bool(rows["target"].isin(ERROR_KINDS).any())


def judging(run: Run, measures: Sequence[Measure]) -> list[Measure]:
    """The measures, without better sides and questions where the maps explain mistakes."""
    if not explains_errors(run.rows):
        return list(measures)
    return [replace(measure, better="", question="") for measure in measures]


class MeasureTables:
    """The tables of a run's numbers, asked by class.

    Parameters
    ----------
    run : Run
    rows : DataFrame
        From :func:`prepared`.
    """

    def __init__(self, run: Run, rows: pd.DataFrame) -> None:
        self._run, self._rows = run, rows
        self.stats = Stats(run.summary)
        self._groups = dict(list(rows.groupby(["class_index", "layer"], sort=False)))
        self._nulls: dict[tuple[int, str, str], Null | None] = {}

    def null(self, class_index: int, layer: str, measure: Measure) -> Null | None:
        """What random channel weights give; None where the run has not asked them."""
        key = class_index, layer, measure.column
        if key not in self._nulls:
            group = self._groups.get((class_index, layer))
            self._nulls[key] = (
                None if group is None else null_of(group, measure.column, measure.typical)
            )
        return self._nulls[key]

    def cell(self, class_index: int, layer: str, measure: Measure) -> Cell:
        """A measure's number at a layer, beside its null."""
        stat = self.stats(class_index, layer, measure.column)
        if not stat.judged:
            return Cell(DASH, 0)
        shown = stat.mean if measure.typical == "mean" else stat.median
        null = self.null(class_index, layer, measure)
        interval = f"{measure.write(stat.low)} to {measure.write(stat.high)}"
        return Cell(
            text=measure.write(shown),
            support=stat.support,
            heat=min(max(shown, 0.0), 1.0),
            interval=interval if measure.typical == "mean" else "",
            typical=measure.typical,
            null="" if null is None else measure.write(null.value),
            apart=null is None or null.apart,
        )

    def overview(self) -> list[tuple[Measure, HeatTable]]:
        """Class by layer, for each of the numbers of the overview."""
        layers = tuple(self._run.layers)
        tables = []
        for measure in judging(self._run, OVERVIEW_MEASURES):
            rows = tuple(
                (name, tuple(self.cell(index, layer, measure) for layer in layers))
                for index, name in explained(self._run)
            )
            table = HeatTable(measure.title, measure.meaning, "class", layers, rows)
            tables.append((measure, table))
        return tables

    def of_class(self, class_index: int) -> list[tuple[str, list[Cell]]]:
        """A class's key numbers: one line per layer."""
        return [
            (layer, [self.cell(class_index, layer, measure) for measure in KEY_MEASURES])
            for layer in self._run.layers
        ]

    def symptoms(self, class_index: int) -> list[tuple[str, str]]:
        """The three symptoms at the finest layer: a question and its answer in words."""
        if explains_errors(self._run.rows):
            return []
        layer = self._run.layers[-1]
        answers = []
        for measure in SYMPTOM_MEASURES:
            cell = self.cell(class_index, layer, measure)
            if not cell.support:
                answers.append((measure.question, "No image could be measured."))
                continue
            said = f"{measure.title}: {cell.text} at {layer} ({plural(cell.support, 'image')})."
            null = self.null(class_index, layer, measure)
            if null is not None:
                said += " " + null.sentence(layer, measure.write)
            answers.append((measure.question, said))
        return answers

    def full(self, class_index: int) -> list[FullLine]:
        """Every number of a class that has a value, a cell per layer; the profile has its chart."""
        run, lines = self._run, []
        for column in columns(len(run.classes.names), 3 if "hot_z" in run.rows else 2):
            if column.name.startswith(("profile_", "leak_", "predicted_as_")):
                continue
            stats = [self.stats(class_index, layer, column.name) for layer in run.layers]
            if any(stat.judged for stat in stats):
                cells = tuple(_full_cell(stat, column.unit) for stat in stats)
                lines.append(FullLine(column.title, column.explanation, cells))
        return lines

    def profiles(self, class_index: int) -> tuple[dict[str, NDArray[np.float64]], int]:
        """Mean distance profile of a class at every layer, and the number of images behind it.

        A bin that no image has is NaN.
        """
        columns = [f"profile_{number:02d}" for number in range(PROFILE_BINS)]
        own = self._rows[self._rows["class_index"] == class_index]
        own = own[own[columns].notna().any(axis=1)]
        curves = {
            layer: own.loc[own["layer"] == layer, columns].mean().to_numpy(np.float64)
            for layer in self._run.layers
        }
        return curves, int(own["image"].nunique())

    def leakage(self, layer: str) -> tuple[HeatTable, NDArray[np.float64]]:
        """How the mass of each class's map divides over the true classes, mean over images.

        Rows are the explained classes, columns the true ones; each row's mean stands on the images
        in which the class's map has any mass. The baseline is what a uniform map would give: the
        mean share of the image that each class fills.
        """
        names = list(self._run.classes.names)
        here = self._rows[self._rows["layer"] == layer]
        columns = [f"leak_{index}" for index in range(len(names))]
        matrix = np.full((len(names), len(names)), np.nan)
        lines, baseline = [], [Cell(DASH, 0)] * len(names)
        for index, name in explained(self._run):
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


def explained(run: Run) -> list[tuple[int, str]]:
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
