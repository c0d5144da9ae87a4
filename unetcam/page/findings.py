"""Findings: plain-language diagnoses, each backed by a number, its threshold and its evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from unetcam.page.model import RunLike
from unetcam.page.readings import Reading, prepared, readings
from unetcam.page.sentences import sentences
from unetcam.page.thresholds import (
    ADVICE,
    DIAGNOSES,
    NAMES,
    STRONG_DIAGNOSES,
    SYMPTOMS,
    Criterion,
    Severity,
    Symptom,
)

SEVERITIES: tuple[Severity, ...] = ("high", "medium", "note")
_BACKGROUND_NAMES = {"background", "bg", "backdrop"}


@dataclass(frozen=True)
class Finding:
    """A diagnosis that a person who does not program can act on.

    Attributes
    ----------
    symptom : {"scattered", "background", "boundary"}
    class_index, class_name, layer
        What it is about: the layer that shows it most clearly.
    severity : {"high", "medium", "note"}
    number, threshold : float
        The number of the median image (of the worse quarter of the images where fewer than half
        show the symptom; ``statistic`` says which) and the value from which it is a symptom.
    criterion : Criterion
        The number's meaning, direction and reasoning.
    affected, support : int
        How many images are beyond the threshold, of how many that could be judged.
    images : tuple of (str, float)
        The images that show it most, worst first, with their numbers.
    evidence : tuple of str
        Sentences that say what was measured.
    advice : tuple of str
        What to try.
    also : tuple of Reading
        The other layers that show it.
    """

    symptom: Symptom
    class_index: int
    class_name: str
    layer: str
    severity: Severity
    number: float
    statistic: str
    threshold: float
    criterion: Criterion
    affected: int
    support: int
    images: tuple[tuple[str, float], ...]
    evidence: tuple[str, ...]
    advice: tuple[str, ...]
    also: tuple[Reading, ...]

    @property
    def title(self) -> str:
        """The symptom's name; what is no background for the background itself."""
        if self.symptom == "background" and self.class_name.lower() in _BACKGROUND_NAMES:
            return "Activation away from the class"
        return NAMES[self.symptom]

    @property
    def diagnosis(self) -> str:
        """What the number means, in one sentence."""
        measure = self.criterion.measure
        strong = self.criterion.beyond(self.number, severe=True) and measure in STRONG_DIAGNOSES
        text = STRONG_DIAGNOSES[measure] if strong else DIAGNOSES[measure]
        return text.replace("{name}", self.class_name)


def find_in_rows(rows: pd.DataFrame, layers: Sequence[str]) -> list[Finding]:
    """The findings of a table of rows; ``layers`` deepest first. See :func:`find`."""
    frame = prepared(rows)
    grouped: dict[tuple[int, Symptom], list[Reading]] = {}
    for reading in readings(frame, layers):
        grouped.setdefault((reading.class_index, reading.symptom), []).append(reading)
    found = _linked(
        finding
        for group in grouped.values()
        if (finding := _conclude(group, frame, layers)) is not None
    )
    order = {severity: place for place, severity in enumerate(SEVERITIES)}
    return sorted(
        found,
        key=lambda f: (
            order[f.severity],
            -f.affected / f.support,
            f.class_index,
            SYMPTOMS.index(f.symptom),
        ),
    )


def find(run: RunLike) -> list[Finding]:
    """Diagnose a run: at most one finding per class and symptom, the gravest first.

    A symptom is raised at a layer when at least a quarter of the images that can be judged are
    beyond its threshold: a *note* up to half of the images, *medium* from half on, *high* when the
    median image is also beyond the severe threshold and the 95 % Wilson interval of the share of
    images lies above one half. It is lowered by one step when the finest layer does not show it,
    because earlier layers are coarser and later ones correct them, and to a note when it stands
    on fewer than ``MIN_SUPPORT`` images or on less than half of those that contain the class.
    The thresholds and their reasons are in :mod:`unetcam.page.thresholds`.

    Parameters
    ----------
    run : RunData
        A finished run: its ``rows`` and ``layers`` (deepest first) are used.

    Returns
    -------
    list of Finding
    """
    return find_in_rows(run.rows, run.layers)


def _conclude(group: list[Reading], frame: pd.DataFrame, layers: Sequence[str]) -> Finding | None:
    """One finding from a class's readings of one symptom over its layers (deepest first)."""
    raised = [reading for reading in group if reading.severity is not None]
    if not raised:
        return None
    depth = {layer: place for place, layer in enumerate(layers)}
    gravest = min(SEVERITIES.index(_grade(reading)) for reading in raised)
    candidates = [r for r in raised if SEVERITIES.index(_grade(r)) == gravest]
    head = max(candidates, key=lambda reading: depth[reading.layer])
    finest = max(group, key=lambda reading: depth[reading.layer])
    on_finest = finest.severity is not None
    severity = SEVERITIES[gravest if on_finest else min(gravest + 1, len(SEVERITIES) - 1)]
    rows = frame[(frame["class_index"] == head.class_index) & (frame["layer"] == head.layer)]
    return Finding(
        symptom=head.symptom,
        class_index=head.class_index,
        class_name=head.class_name,
        layer=head.layer,
        severity=severity,
        number=head.shown,
        statistic="median image" if head.usual else "worse quarter of the images",
        threshold=head.criterion.threshold,
        criterion=head.criterion,
        affected=head.affected,
        support=head.support,
        images=_worst_images(head.criterion, rows),
        evidence=sentences(head, finest, rows, frame),
        advice=ADVICE[head.symptom],
        also=tuple(reading for reading in raised if reading is not head),
    )


def _linked(found: Iterable[Finding]) -> list[Finding]:
    """Say where one finding explains another: a scattered map also covers the background."""
    findings = list(found)
    scattered = {(f.class_index, f.layer) for f in findings if f.symptom == "scattered"}
    said = "The map of this class is also scattered, which by itself puts it on the background."
    return [
        replace(f, evidence=(*f.evidence, said))
        if f.symptom == "background" and (f.class_index, f.layer) in scattered
        else f
        for f in findings
    ]


def _grade(reading: Reading) -> Severity:
    return reading.severity or "note"


def _worst_images(
    criterion: Criterion, rows: pd.DataFrame, most: int = 3
) -> tuple[tuple[str, float], ...]:
    shown = rows[["image", criterion.measure]].dropna()
    shown = shown[[criterion.beyond(float(value)) for value in shown[criterion.measure]]]
    ranked = shown.sort_values(
        [criterion.measure, "image"], ascending=[criterion.worse == "low", True]
    ).head(most)
    return tuple((str(image), float(value)) for image, value in ranked.itertuples(index=False))
