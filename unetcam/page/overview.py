"""Each class in one line, what limits the numbers, and the guard over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from unetcam.page.badges import check_lines
from unetcam.page.findings import SEVERITY_WORDS
from unetcam.page.mistakes import ClassErrors, Errors
from unetcam.page.tables import Stat, Stats, explained
from unetcam.page.text import listed, number, percent, plural

if TYPE_CHECKING:
    from unetcam.diagnosis import Diagnosis
    from unetcam.runs import Run

#: Numbers that stand on fewer images get a caution.
FEW_IMAGES = 5
#: A layer whose maps are empty in more than this share of the images gets a caution: its other
#: numbers then describe a minority.
EMPTY_SHARE = 0.25
#: Prediction and masks that agree less than this beyond chance, by Cohen's kappa, agree nowhere.
LEAST_KAPPA = 0.05
#: A class of which less than this share is right, of the masks and of the prediction, agrees
#: nowhere.
LEAST_SHARE = 0.01

_CHECKS = (
    "Check that each mask belongs to its image and is read with the right values and class order, "
    "that the checkpoint is the trained one, and that images reach the network as in training "
    "(value range, mean and std, channel order, size)."
)


@dataclass(frozen=True)
class ClassLine:
    """A class's line in the overview.

    ``status`` is the severity of its gravest finding, ``"ok"`` where it was tested and nothing was
    found, and ``"unknown"`` where it was not tested; ``verdict`` says so in words.
    """

    index: int
    name: str
    colour: str
    iou: Stat
    present: int
    images: int
    share: float
    errors: ClassErrors
    taken_for: str
    verdict: str
    status: str


def class_lines(
    run: Run, stats: Stats, rows: pd.DataFrame, errors: Errors, diagnosis: Diagnosis | None
) -> list[ClassLine]:
    """One line per explained class; ``rows`` come from :func:`unetcam.page.tables.prepared`."""
    colours = list(run.classes.display_colours())
    finest = rows[rows["layer"] == run.layers[-1]]
    lines = []
    for index, name in explained(run):
        own = finest[finest["class_index"] == index]
        here = own[own["truth_pixels"] > 0]
        verdict, status = _verdict(index, diagnosis, errors.classes[index])
        lines.append(
            ClassLine(
                index=index,
                name=name,
                colour=colours[index],
                iou=stats(index, run.layers[-1], "class_iou"),
                present=len(here),
                images=len(own),
                share=float(here["class_share"].astype(float).mean()),
                errors=errors.classes[index],
                taken_for=_taken_for(run, errors, index),
                verdict=verdict,
                status=status,
            )
        )
    return lines


def warnings(run: Run) -> list[str]:
    """What says that prediction and masks do not belong together, each with what to check.

    It is said before anything else: where it holds, no other number means what it seems to.

    Parameters
    ----------
    run : Run

    Returns
    -------
    list of str
        Sentences; empty for a run whose prediction and masks agree.
    """
    errors = Errors(run)
    if not errors.pixels:
        return []
    said = []
    present = len(_present(errors))
    only = [one for one in errors.classes.values() if one.predicted_pixels == errors.pixels]
    if only and present > 1:
        said.append(
            f"Every pixel of every image is predicted as {run.classes.names[only[0].class_index]}, "
            f"and the masks hold {plural(present, 'class', 'classes')}. {_CHECKS}"
        )
    elif errors.kappa < LEAST_KAPPA:
        said.append(
            f"Prediction and masks agree on {percent(errors.correct / errors.pixels)} of the "
            f"pixels, no better than chance would have it (kappa {number(errors.kappa)}). {_CHECKS}"
        )
    if said:
        return said
    for one in _present(errors):
        name = run.classes.names[one.class_index]
        pixels = plural(one.truth_pixels, "pixel")
        if not one.predicted_pixels:
            said.append(
                f"{name} is never predicted, and the masks hold {pixels} of it. Check that the "
                "masks' value for it is the class that the network was trained with, and that "
                "the training had such pixels."
            )
        elif one.recall < LEAST_SHARE and one.precision < LEAST_SHARE:
            said.append(
                f"{name} is predicted, but not where the masks have it: of its {pixels} "
                f"{one.common:,} are right. Check that the order of the classes and the masks' "
                "values are those of the training."
            )
    return said


def empty_maps(run: Run) -> list[tuple[str, str, int, int]]:
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


def cautions(run: Run, lines: Sequence[ClassLine]) -> list[str]:
    """What limits the numbers as a whole, in sentences."""
    said = check_lines(run)
    absent = [line.name for line in lines if line.present == 0]
    if absent:
        said.append(f"In no image: {listed(absent)}. Nothing can be said about the maps of it.")
    few = [line.name for line in lines if 0 < line.present < FEW_IMAGES]
    if few:
        said.append(
            f"In fewer than {FEW_IMAGES} images: {listed(few)}. Numbers that stand on so few "
            "images can change a lot with the next one."
        )
    often: dict[str, list[str]] = {}
    for name, layer, empty, total in empty_maps(run):
        if empty > EMPTY_SHARE * total:
            often.setdefault(name, []).append(f"{layer} ({empty} of {total})")
    layers = [
        f"{name} at {'every layer' if len(at) == len(run.layers) > 1 else listed(at)}"
        for name, at in often.items()
    ]
    if layers:
        said.append(
            f"Often without any evidence, an empty map: {listed(layers)}. The other numbers there "
            "describe only the images that have a map."
        )
    return said


def _present(errors: Errors) -> list[ClassErrors]:
    return [one for one in errors.classes.values() if one.truth_pixels]


def _taken_for(run: Run, errors: Errors, index: int) -> str:
    """The class that most of a class's missed pixels are taken for, with its share of them."""
    missed = errors.classes[index].missed
    if errors.confusion is None or not missed:
        return ""
    counts = errors.confusion[index].copy()
    counts[index] = 0
    most = int(counts.argmax())
    return f"{run.classes.names[most]} ({percent(float(counts[most] / missed))})"


def _verdict(index: int, diagnosis: Diagnosis | None, errors: ClassErrors) -> tuple[str, str]:
    if diagnosis is None:
        return "Not tested", "unknown"
    own = [one.severity for one in diagnosis.findings if one.class_index == index]
    for severity, words in SEVERITY_WORDS.items():
        if severity in own:
            return words, severity
    if errors.truth_pixels and not errors.common:
        return "Not judged: no pixel is right", "unknown"
    if any(test.class_index == index and test.tested for test in diagnosis.tests):
        return "Nothing found", "ok"
    return "Not tested", "unknown"
