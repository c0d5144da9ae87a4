"""The page: one self-contained report.html, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from unetcam import methods
from unetcam._version import __version__
from unetcam.errors import UnetcamError
from unetcam.page import charts, tables
from unetcam.page.examples import Example
from unetcam.page.findings import find_in_rows
from unetcam.page.gallery import Gallery, file_names
from unetcam.page.model import RunLike
from unetcam.page.overlays import COLORMAP, Bytes, outlined, overlay, resized
from unetcam.page.overview import ClassSummary, cautions, class_summaries, empty_maps
from unetcam.page.readings import explains_errors, prepared, readings
from unetcam.page.text import number, percent, plural
from unetcam.page.threads import in_threads
from unetcam.page.thresholds import CRITERIA, HOT, MIN_SUPPORT, NAMES, SYMPTOMS

#: With more classes than this, sections without a grave finding start folded.
FOLD_CLASSES = 6
#: Findings that stand open; the rest is one click away.
OPEN_FINDINGS = 8

#: Widths of an overlay's file, in pixels: outlines need room on small images, and files of huge
#: ones would fill the disk.
SMALLEST_FIGURE, LARGEST_FIGURE = 480, 1600
#: How hard a picture's file is packed: a photograph gains little from more, which takes long.
_PACKING = 2

#: Characters of the layers' names in the header; a longer list is told by its ends.
LONGEST_LIST = 60

TARGETS = {
    "class": "each class's mean score over the whole image",
    "predicted": "each class's mean score over the pixels predicted as it",
    "truth": "each class's mean score over the pixels that truly are of it",
    "false-positives": "each class's mean score over the pixels that are wrongly predicted as it",
    "false-negatives": "each class's mean score over those of its pixels that are missed",
    "boundary-errors": "each class's mean score over the wrong pixels along its true contour",
    "missed-components": "each class's mean score over its objects that are missed altogether",
}


def write_report(run: RunLike, examples: Sequence[Example], out: Path | None = None) -> Path:
    """Write ``report.html`` and ``figures/`` for a finished run.

    The page needs no other file and no network: images, styles and its few lines of script are
    inside, and its content security policy forbids everything else.

    Parameters
    ----------
    run : RunData
        A finished run.
    examples : sequence of Example
        What :func:`~unetcam.page.examples.choose_examples` chose, explained again.
    out : Path, optional
        The folder to write into. Default: the run's own.

    Returns
    -------
    Path
        Of ``report.html``.
    """
    folder = Path(run.path if out is None else out)
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    write_figures(run, examples, pictures)
    page = folder / "report.html"
    page.write_text(render(run, examples), encoding="utf-8")
    return page


def render(run: RunLike, examples: Sequence[Example]) -> str:
    """The page as text; see :func:`write_report`."""
    environment = Environment(
        loader=PackageLoader("unetcam.page", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "number": number, "plural": plural, "breakable": breakable,
    }  # fmt: skip
    source = environment.loader
    assert source is not None
    style, script = (
        Markup(source.get_source(environment, name)[0]) for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html").render(
        style=style, script=script, script_digest=digest, **_content(run, examples)
    )


def breakable(text: str) -> Markup:
    """The text, escaped, with places where a long name may be broken.

    Examples
    --------
    >>> breakable("decoder.blocks<1>")
    Markup('decoder.<wbr>blocks&lt;1&gt;')
    """
    parts = re.split(r"(?<=[._/\\-])", text)
    return Markup("<wbr>").join(parts)


def write_figures(run: RunLike, examples: Sequence[Example], folder: Path) -> None:
    """Write every chart and every overlay as PNG."""
    rows = prepared(run.rows)
    stats = tables.Stats(run.summary)
    classes, layers = tables.explained(run), list(run.layers)
    class_names = [name for _, name in classes]
    for measure in tables.OVERVIEW_MEASURES:
        values = np.array(
            [
                [getattr(stats(i, layer, measure.column), measure.typical) for layer in layers]
                for i, _ in classes
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
        curves, _ = tables.profiles(run, rows, index)
        chart = charts.profile_figure(curves, ink, title=f"Distance profile: {name}")
        charts.save_png(chart, folder / f"profile_{stem}.png")
    for layer, stem in zip(layers, file_names(layers), strict=True):
        _, matrix = tables.leakage(run, rows, layer)
        chart = charts.heat_figure(
            matrix[[index for index, _ in classes]], class_names, list(run.classes.names),
            title=f"Leakage at {layer}", row_title="map of", column_title="true class",
        )  # fmt: skip
        charts.save_png(chart, folder / f"leakage_{stem}.png")

    def draw(named: tuple[str, Callable[[], Bytes]]) -> None:
        stem, picture = named
        Image.fromarray(picture()).save(folder / f"{stem}.png", compress_level=_PACKING)

    in_threads(draw, _example_pictures(run, examples))


def _example_pictures(
    run: RunLike, examples: Sequence[Example]
) -> Iterator[tuple[str, Callable[[], Bytes]]]:
    """Every picture of the examples, to be drawn, by its file's stem."""
    names = dict(zip(run.classes.names, file_names(run.classes.names), strict=True))
    counts: dict[tuple[int, str], int] = {}
    for example in examples:
        place = counts[example.class_index, example.role] = (
            counts.get((example.class_index, example.role), 0) + 1
        )
        role = example.role if place == 1 else f"{example.role}{place}"
        stem = f"example_{names[run.classes.names[example.class_index]]}_{role}"
        truth, prediction = (
            mask == example.class_index for mask in (example.truth, example.prediction)
        )
        width = min(max(example.image.shape[1], SMALLEST_FIGURE), LARGEST_FIGURE)
        plain = resized(example.image, width)
        yield f"{stem}_image", partial(outlined, plain, truth, prediction)
        for layer, name in zip(run.layers, file_names(run.layers), strict=True):
            if layer in example.maps:
                heat = example.maps[layer]
                drawn = partial(
                    overlay, example.image, heat, truth, prediction=prediction, width=width
                )
                yield f"{stem}_{name}", drawn


def _content(run: RunLike, examples: Sequence[Example]) -> dict[str, Any]:
    """Everything that the template shows."""
    rows = prepared(run.rows)
    stats, layers = tables.Stats(run.summary), list(run.layers)
    judged = readings(rows, layers)
    findings = find_in_rows(run.rows, layers)
    classes = class_summaries(run, stats, rows, judged, findings)
    gallery = Gallery(run, rows, examples, findings)
    grave = {finding.class_index for finding in findings if finding.severity == "high"}
    config = run.meta.get("spec", {})
    return {
        "version": __version__,
        "title": _model_name(config),
        "volumes": config.get("orientation") is not None,
        "facts": _facts(run, config),
        "headline": _headline(run, classes, findings),
        "findings": findings,
        "unjudged": explains_errors(run.rows),
        "open_findings": OPEN_FINDINGS,
        "cautions": cautions(run, classes),
        "symptoms": [(symptom, NAMES[symptom]) for symptom in SYMPTOMS],
        "criteria": [c for symptom in SYMPTOMS for c in CRITERIA[symptom]],
        "names": NAMES,
        "classes": classes,
        "measures": tables.judging(run, tables.KEY_MEASURES),
        "overview": tables.overview_heat(run, stats),
        "sections": [
            {
                "line": line,
                "table": tables.class_table(run, stats, line.index),
                "full": tables.full_table(run, stats, line.index),
                "profile": _profile(run, rows, line),
                "findings": [f for f in findings if f.class_index == line.index],
                "open": len(classes) <= FOLD_CLASSES or line.index in grave,
            }
            for line in classes
        ],
        "gallery": gallery,
        "leakage": [tables.leakage(run, rows, layer)[0] for layer in reversed(layers)],
        "layers": layers,
        "strides": _strides(run.rows),
        "layer_colours": (
            charts.layer_colours(len(layers)),
            charts.layer_colours(len(layers), dark=True),
        ),
        "ramp": [to_hex(colormaps[COLORMAP](place)) for place in np.linspace(0, 1, 9)],
        "skipped": run.skipped,
        "empty": empty_maps(run),
        "run_details": _flat(run.meta),
        "hot": HOT,
        "min_support": MIN_SUPPORT,
        "image_count": int(run.rows["image"].nunique()),
    }


def _profile(run: RunLike, rows: pd.DataFrame, line: ClassSummary) -> dict[str, Any]:
    curves, support = tables.profiles(run, rows, line.index)
    there = {layer: curve for layer, curve in curves.items() if np.isfinite(curve).any()}
    said = []
    for layer, curve in there.items():
        place = int(np.nanargmax(curve))
        centre = charts.PROFILE_CENTRES[place]
        side = "inside" if centre < 0 else "outside"
        said.append(f"{layer} is strongest {abs(centre):.2g} band widths {side} the edge")
    label = f"Mean map value of {line.name} against the distance to its edge: " + "; ".join(said)
    return {
        "support": support,
        "svg": Markup(charts.profile_svg(curves, label + ".")) if there else None,
    }


def _headline(
    run: RunLike, classes: Sequence[ClassSummary], findings: Sequence[Any]
) -> dict[str, Any]:
    images = int(run.rows["image"].nunique())
    judged = [line.iou.mean for line in classes if line.iou.judged]
    return {
        "counts": {
            severity: sum(finding.severity == severity for finding in findings)
            for severity in ("high", "medium", "note")
        },
        "sound": [line.name for line in classes if line.status == "ok"],
        "iou": float(np.mean(judged)) if judged else float("nan"),
        "judged": len(judged),
        "images": images,
        "classes": len(classes),
        "layers": len(run.layers),
    }


def _facts(run: RunLike, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    method, target = str(config.get("method", "")), str(config.get("target", ""))
    images = plural(int(run.rows["image"].nunique()), "image")
    if run.skipped:
        images += f", {len(run.skipped)} skipped"
    layers = ", ".join(run.layers)
    if len(layers) > LONGEST_LIST:
        layers = f"from {run.layers[0]} to {run.layers[-1]}"
    facts = [
        ("Model", str(config.get("model", ""))),
        ("Method", _title(method)),
        ("Explained", TARGETS.get(target, target)),
        ("Layers", f"{len(run.layers)}, deepest first: {layers}"),
        ("Images", images),
        ("Volumes", "explained and measured whole, in voxels" if config.get("orientation") else ""),
        ("Date", _date(str(run.meta.get("finished") or run.meta.get("started") or ""))),
    ]
    return [(name, value) for name, value in facts if value]


def _title(method: str) -> str:
    """The method's title; its name, where a run was made with one that this version lacks."""
    try:
        return methods.get(method).title
    except UnetcamError:
        return method


def _model_name(config: Mapping[str, Any]) -> str:
    name = str(config.get("model", "")).rstrip("/\\")
    return name.replace("\\", "/").rsplit("/", 1)[-1] or "a segmentation network"


def _date(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    zone = " UTC" if moment.utcoffset() is not None and not moment.utcoffset() else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def _strides(rows: pd.DataFrame) -> dict[str, str]:
    if "stage_stride" not in rows:
        return {}
    once = rows.drop_duplicates("layer")
    return {
        str(layer): f"1/{int(stride)}"
        for layer, stride in zip(once["layer"], once["stage_stride"], strict=True)
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as lines of name and value."""
    lines: list[tuple[str, str]] = []
    for name, value in values.items():
        if name in ("skipped", "files"):  # the page has a section, the folder shows its files
            continue
        if isinstance(value, Mapping):
            lines.extend(_flat(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            lines.append((prefix + str(name), text))
    return lines
