"""Each class in one line: is it segmented, are its maps in order, and what limits the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from unetcam.page.findings import Finding
from unetcam.page.model import RunLike
from unetcam.page.readings import Reading
from unetcam.page.tables import Stat, Stats, explained
from unetcam.page.text import DASH, number, percent
from unetcam.page.thresholds import EMPTY_SHARE, MIN_SUPPORT, QUESTIONS, SYMPTOMS, Symptom


@dataclass(frozen=True)
class Check:
    """One of the three questions about a class, and its answer."""

    symptom: Symptom
    question: str
    title: str
    status: str
    layer: str
    value: str
    limit: str
    support: int


@dataclass(frozen=True)
class ClassSummary:
    """A class's line in the overview."""

    index: int
    name: str
    colour: str
    iou: Stat
    present: int
    images: int
    share: float
    verdict: str
    status: str
    checks: tuple[Check, ...]


def class_summaries(
    run: RunLike,
    stats: Stats,
    rows: pd.DataFrame,
    readings: Sequence[Reading],
    findings: Sequence[Finding],
) -> list[ClassSummary]:
    """One line per explained class; ``rows`` has ``class_share`` (see readings.prepared)."""
    colours = list(run.classes.display_colours())
    finest = rows[rows["layer"] == run.layers[-1]]
    lines = []
    for index, name in explained(run):
        own = finest[finest["class_index"] == index]
        here = own[own["truth_pixels"] > 0]
        checks = tuple(_check(symptom, index, readings, findings) for symptom in SYMPTOMS)
        verdict, status = _verdict(checks, len(here))
        lines.append(
            ClassSummary(
                index=index,
                name=name,
                colour=colours[index],
                iou=stats(index, run.layers[-1], "class_iou"),
                present=len(here),
                images=len(own),
                share=float(here["class_share"].astype(float).mean()),
                verdict=verdict,
                status=status,
                checks=checks,
            )
        )
    return lines


def empty_maps(run: RunLike) -> list[tuple[str, str, int, int]]:
    """Class, layer, number of empty maps and number of maps, where there are empty ones."""
    rows = run.rows.assign(empty=run.rows["empty"].fillna(False).astype(bool))
    counts: dict[tuple[int, str], list[bool]] = {}
    for index, layer, empty in rows[["class_index", "layer", "empty"]].itertuples(index=False):
        counts.setdefault((int(index), str(layer)), []).append(bool(empty))
    return [
        (name, layer, sum(counts[index, layer]), len(counts[index, layer]))
        for index, name in explained(run)
        for layer in run.layers
        if any(counts.get((index, layer), []))
    ]


def cautions(run: RunLike, lines: Sequence[ClassSummary]) -> list[str]:
    """What limits the numbers as a whole, in sentences."""
    said = []
    absent = [line.name for line in lines if line.present == 0]
    if absent:
        said.append(f"In no image: {_listed(absent)}. Nothing can be said about the maps of it.")
    few = [line.name for line in lines if 0 < line.present < MIN_SUPPORT]
    if few:
        said.append(
            f"In fewer than {MIN_SUPPORT} images: {_listed(few)}. Numbers that stand on so few "
            "images can change a lot with the next one."
        )
    often: dict[str, list[str]] = {}
    for name, layer, empty, total in empty_maps(run):
        if empty > EMPTY_SHARE * total:
            often.setdefault(name, []).append(f"{layer} ({empty} of {total})")
    places = [
        f"{name} at {'every layer' if len(at) == len(run.layers) > 1 else _listed(at)}"
        for name, at in often.items()
    ]
    if places:
        said.append(
            f"Often without any evidence, an empty map: {_listed(places)}. The other numbers there "
            "describe only the images that have a map."
        )
    return said


def _check(
    symptom: Symptom, index: int, readings: Sequence[Reading], findings: Sequence[Finding]
) -> Check:
    own = [r for r in readings if r.class_index == index and r.symptom == symptom]
    finding = next((f for f in findings if f.class_index == index and f.symptom == symptom), None)
    judged = [reading for reading in own if reading.support]
    question = QUESTIONS[symptom]
    if finding is not None:
        write = percent if finding.criterion.percent else number
        return Check(
            symptom=symptom,
            question=question,
            title=finding.criterion.title,
            status=finding.severity,
            layer=finding.layer,
            value=write(finding.number),
            limit=write(finding.threshold),
            support=finding.support,
        )
    if not judged:
        return Check(symptom, question, "", "unknown", "", DASH, "", 0)
    last = judged[-1]
    write = percent if last.criterion.percent else number
    return Check(
        symptom=symptom,
        question=question,
        title=last.criterion.title,
        status="ok",
        layer=last.layer,
        value=write(last.median),
        limit=write(last.criterion.threshold),
        support=last.support,
    )


def _verdict(checks: Sequence[Check], present: int) -> tuple[str, str]:
    statuses = [check.status for check in checks]
    if present == 0 or all(status == "unknown" for status in statuses):
        return "Could not be judged", "unknown"
    for status, words in (
        ("high", "Needs attention"),
        ("medium", "Worth a look"),
        ("note", "Small notes"),
    ):
        if status in statuses:
            return words, status
    return "No symptom found", "ok"


def _listed(names: Sequence[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
