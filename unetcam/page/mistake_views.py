"""The errors of a run as the page shows them: tables, a confusion matrix, and pictures of why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unetcam.page.gallery import Tile, page_width, shown_as, tile
from unetcam.page.mistakes import Errors, ImageErrors, Mistake, Pair
from unetcam.page.overlays import in_threads, outlined, overlay, resized
from unetcam.page.tables import Cell, HeatTable, explained
from unetcam.page.text import DASH, percent, plural

if TYPE_CHECKING:
    from unetcam.runs import Run


@dataclass(frozen=True)
class MistakeCard:
    """A pair of classes with its sentence and its pictures."""

    pair: Pair
    title: str
    sentence: str
    image_id: str
    slice_title: str
    tiles: tuple[Tile, ...]


def error_content(run: Run, errors: Errors, mistakes: Sequence[Mistake]) -> dict[str, Any]:
    """What the template shows of a run's errors.

    Parameters
    ----------
    run : Run
    errors : Errors
    mistakes : sequence of Mistake

    Returns
    -------
    dict
        ``confusion`` (a HeatTable, or None), ``pairs``, ``cards``, ``missed`` and ``made_up``
        (the worst images), ``accuracy``, ``wrong`` and ``pixels``.
    """
    width = page_width(len(mistakes) * 3)
    return {
        "confusion": confusion_table(run, errors),
        "cards": in_threads(lambda one: _card(run, errors, one, width), mistakes),
        "pairs": errors.pairs(),
        "missed": _lines(run, errors.worst_images("missed")),
        "made_up": _lines(run, errors.worst_images("made up")),
        "wrong": errors.pixels - errors.correct,
        "pixels": errors.pixels,
    }


def confusion_table(run: Run, errors: Errors) -> HeatTable | None:
    """Pixels by true and predicted class, each cell with its share of the true class."""
    if errors.confusion is None:
        return None
    rows = []
    for index, name in explained(run):
        counts = errors.confusion[index]
        total = int(counts.sum())
        cells = tuple(
            Cell(percent(count / total), int(count), count / total) if total else Cell(DASH, 0)
            for count in counts.tolist()
        )
        rows.append((name, cells))
    return HeatTable("Confusion", "", "true class", tuple(run.classes.names), tuple(rows))


def _lines(run: Run, worst: Sequence[ImageErrors]) -> list[dict[str, Any]]:
    names = run.classes.names
    return [
        {
            "name": names[one.class_index],
            "class_index": one.class_index,
            "image": one.image_id,
            "pixels": one.pixels,
            "share": one.pixels / one.of,
        }
        for one in worst
    ]


def _card(run: Run, errors: Errors, mistake: Mistake, width: int) -> MistakeCard:
    pair, names = mistake.pair, run.classes.names
    truth, taken_for = names[pair.truth], names[pair.taken_for]
    whole = errors.classes[pair.truth].truth_pixels
    sentence = (
        f"{plural(pair.pixels, 'pixel')} of {truth}, {percent(pair.pixels / whole)} of it, "
        f"{'is' if pair.pixels == 1 else 'are'} taken for {taken_for}, in "
        f"{plural(pair.images, 'image')}; {pair.worst_pixels:,} of them here."
    )
    return MistakeCard(
        pair,
        f"{truth} taken for {taken_for}",
        sentence,
        pair.worst,
        mistake.slice_title,
        tuple(_tiles(mistake, truth, taken_for, width)),
    )


def _tiles(mistake: Mistake, truth: str, taken_for: str, width: int) -> list[Tile]:
    width = min(width, max(160, 3 * mistake.image.shape[1]))
    shown = shown_as(mistake.pair.worst, mistake.slice_title)
    drawn = outlined(resized(mistake.image, width), mistake.region)
    tiles = [
        tile(
            "image", drawn,
            f"{shown} with the outline of what is {truth} and taken for {taken_for}.",
            f"outlined: {truth} taken for {taken_for}", "image",
        )
    ]  # fmt: skip
    for one in mistake.why:
        if np.isnan(one.heat).all() or not np.nanmax(one.heat) > 0:
            continue
        # no outline here: an error is often so thin that it would hide its own map
        drawn = overlay(mistake.image, one.heat, width=width)
        note = f"speaks for {taken_for} against {truth}"
        alt = f"Map at layer {one.layer} of what {note} there, over {shown[0].lower()}{shown[1:]}."
        tiles.append(tile(one.layer, drawn, alt, note, "layer"))
    return tiles
