"""The page's charts and pictures as PNG files, for slides and papers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unetcam.page import charts
from unetcam.page.gallery import Example
from unetcam.page.overlays import Bytes, Outlines, in_threads, overlay, resized
from unetcam.page.tables import OVERVIEW_MEASURES, MeasureTables, explained
from unetcam.page.text import file_names

if TYPE_CHECKING:
    from unetcam.runs import Run

#: Widths of an overlay's file, in pixels: outlines need room on small images, and files of huge
#: ones would fill the disk.
SMALLEST_WIDTH, LARGEST_WIDTH = 480, 1600
#: How hard a picture's file is packed: a photograph gains little from more, which takes long.
_PACKING = 1


def write_figures(
    run: Run, tables: MeasureTables, examples: Sequence[Example], folder: Path
) -> None:
    """Write every chart and every overlay as PNG.

    Parameters
    ----------
    run : Run
    tables : MeasureTables
    examples : sequence of Example
    folder : Path
        An existing folder.
    """
    _write_charts(run, tables, folder)

    def draw(named: tuple[str, Callable[[], Bytes]]) -> None:
        stem, picture = named
        Image.fromarray(picture()).save(folder / f"{stem}.png", compress_level=_PACKING)

    in_threads(draw, _example_pictures(run, examples))


def _write_charts(run: Run, tables: MeasureTables, folder: Path) -> None:
    classes, layers = explained(run), list(run.layers)
    class_names = [name for _, name in classes]
    for measure in OVERVIEW_MEASURES:
        values = np.array(
            [
                [
                    getattr(tables.stats(index, layer, measure.column), measure.typical)
                    for layer in layers
                ]
                for index, _ in classes
            ]
        )
        chart = charts.heat_figure(
            values, class_names, layers, title=f"{measure.title} ({measure.typical})",
            row_title="class",
            column_title="layer, deepest first", shares=measure.share,
        )  # fmt: skip
        charts.save_png(chart, folder / f"overview_{measure.column}.png")
    ink = charts.print_ink(len(layers))
    for (index, name), stem in zip(classes, file_names(class_names), strict=True):
        curves, _ = tables.profiles(index)
        chart = charts.profile_figure(curves, ink, title=f"Distance profile: {name}")
        charts.save_png(chart, folder / f"profile_{stem}.png")
    for layer, stem in zip(layers, file_names(layers), strict=True):
        _, matrix = tables.leakage(layer)
        chart = charts.heat_figure(
            matrix[[index for index, _ in classes]], class_names, list(run.classes.names),
            title=f"Leakage at {layer}", row_title="map of", column_title="true class",
        )  # fmt: skip
        charts.save_png(chart, folder / f"leakage_{stem}.png")


def _example_pictures(
    run: Run, examples: Sequence[Example]
) -> Iterator[tuple[str, Callable[[], Bytes]]]:
    """Every picture of the examples, to be drawn, by its file's stem."""
    names = dict(zip(run.classes.names, file_names(run.classes.names), strict=True))
    for example in examples:
        stem = f"example_{names[run.classes.names[example.class_index]]}_{example.role}"
        truth, prediction = (
            mask == example.class_index for mask in (example.truth, example.prediction)
        )
        width = min(max(example.image.shape[1], SMALLEST_WIDTH), LARGEST_WIDTH)
        plain = resized(example.image, width)
        outlines = Outlines(plain.shape[:2], truth, prediction)
        yield f"{stem}_image", partial(outlines.over, plain)
        heats = dict(zip(file_names(run.layers), map(example.maps.get, run.layers), strict=True))
        if example.origin is not None:
            heats["where_from"] = example.origin.heat
        for name, heat in heats.items():
            if heat is not None:
                yield f"{stem}_{name}", partial(_mapped, example, heat, outlines, width)


def _mapped(example: Example, heat: NDArray[np.float32], outlines: Outlines, width: int) -> Bytes:
    return outlines.over(overlay(example.image, heat, width=width))
