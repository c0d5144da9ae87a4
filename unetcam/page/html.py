"""The page: one self-contained report.html, and its figures as files."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex

from unetcam import methods
from unetcam._version import __version__
from unetcam.errors import UnetcamError
from unetcam.page import charts, findings, tables
from unetcam.page.badges import badges, check_sentence, check_table
from unetcam.page.figures import write_figures
from unetcam.page.gallery import Example, Gallery
from unetcam.page.mistake_views import error_content
from unetcam.page.mistakes import Errors, Mistake
from unetcam.page.overlays import COLORMAP
from unetcam.page.overview import ClassLine, cautions, class_lines, empty_maps, warnings
from unetcam.page.text import number, percent, plural

if TYPE_CHECKING:
    from unetcam.diagnosis import Diagnosis
    from unetcam.runs import Run

#: With more classes than this, only the sections of classes with a grave finding start open.
FOLD_CLASSES = 6
#: Findings that stand open; the rest is one click away.
OPEN_FINDINGS = 8
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


def write_report(
    run: Run,
    examples: Sequence[Example],
    diagnosis: Diagnosis | None = None,
    out: Path | None = None,
    *,
    mistakes: Sequence[Mistake] = (),
) -> Path:
    """Write ``report.html`` and ``figures/`` for a finished run.

    The page needs no other file and no network: images, styles and its few lines of script are
    inside, and its content security policy forbids everything else.

    Parameters
    ----------
    run : Run
        A finished run.
    examples : sequence of Example
        What :func:`~unetcam.page.gallery.choose_examples` chose, explained again.
    diagnosis : Diagnosis, optional
        What was tested on the run's images; without it the page says that nothing was.
    out : Path, optional
        The folder to write into. Default: the run's own.
    mistakes : sequence of Mistake
        The costliest confusions of two classes, each with its worst image.

    Returns
    -------
    Path
        Of ``report.html``.
    """
    folder = Path(run.path if out is None else out)
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    write_figures(run, tables.MeasureTables(run, tables.prepared(run.rows)), examples, pictures)
    page = folder / "report.html"
    page.write_text(render(run, examples, diagnosis, mistakes=mistakes), encoding="utf-8")
    return page


def render(
    run: Run,
    examples: Sequence[Example],
    diagnosis: Diagnosis | None = None,
    *,
    mistakes: Sequence[Mistake] = (),
) -> str:
    """The page as text; see :func:`write_report`."""
    loader = PackageLoader("unetcam.page", "templates")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent, "number": number, "plural": plural, "breakable": breakable,
    }  # fmt: skip
    environment.globals["badges"] = badges(run)  # the macros of all templates know them
    style, script = (
        Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    content = _content(run, examples, diagnosis, mistakes)
    return environment.get_template("page.html").render(
        style=style, script=script, script_digest=digest, **content
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


def _content(
    run: Run,
    examples: Sequence[Example],
    diagnosis: Diagnosis | None,
    mistakes: Sequence[Mistake],
) -> dict[str, Any]:
    """Everything that the template shows."""
    rows = tables.prepared(run.rows)
    numbers, layers = tables.MeasureTables(run, rows), list(run.layers)
    errors = Errors(run)
    classes = class_lines(run, numbers.stats, rows, errors, diagnosis)
    gallery = Gallery(run, rows, examples)
    cards = [] if diagnosis is None else [
        findings.card(one) for one in findings.ordered(diagnosis.findings)
    ]  # fmt: skip
    spec = run.meta.get("spec", {})
    return {
        "version": __version__,
        "title": _model_name(spec),
        "volumes": spec.get("orientation") is not None,
        "facts": _facts(run, spec),
        "warnings": warnings(run),
        "remarks": [str(one) for one in run.meta.get("remarks", [])],
        "check_sentence": check_sentence(run),
        "check_table": check_table(run),
        "headline": _headline(run, classes),
        "diagnosis": diagnosis,
        "undiagnosed": run.undiagnosed,
        "cards": cards,
        "tests": [] if diagnosis is None else findings.record_lines(diagnosis),
        "kinds": [] if diagnosis is None else findings.kind_lines(diagnosis),
        "healthy": "" if diagnosis is None or cards else findings.healthy_sentence(diagnosis),
        "severity_words": findings.SEVERITY_WORDS,
        "unjudged": tables.explains_errors(run.rows),
        "open_findings": OPEN_FINDINGS,
        "cautions": cautions(run, classes),
        "classes": classes,
        "classes_by_index": dict(enumerate(run.classes.names)),
        "errors": error_content(run, errors, mistakes),
        "measures": tables.judging(run, tables.KEY_MEASURES),
        "overview": numbers.overview(),
        "nulls": any(name.endswith("_null") for name in run.rows.columns),
        "sections": [
            {
                "line": line,
                "symptoms": numbers.symptoms(line.index),
                "table": numbers.of_class(line.index),
                "full": numbers.full(line.index),
                "profile": _profile(numbers, line),
                "open": len(classes) <= FOLD_CLASSES or line.status == "high",
            }
            for line in classes
        ],
        "gallery": gallery,
        "leakage": [numbers.leakage(layer)[0] for layer in reversed(layers)],
        "layers": layers,
        "strides": _strides(run.rows),
        "layer_colours": (
            charts.layer_colours(len(layers)),
            charts.layer_colours(len(layers), dark=True),
        ),
        "ramp": [to_hex(colormaps[COLORMAP](value)) for value in np.linspace(0, 1, 9)],
        "skipped": run.skipped,
        "empty": empty_maps(run),
        "run_details": _flat(run.meta),
        "image_count": int(run.rows["image"].nunique()),
    }


def _profile(numbers: tables.MeasureTables, line: ClassLine) -> dict[str, Any]:
    curves, support = numbers.profiles(line.index)
    there = {layer: curve for layer, curve in curves.items() if np.isfinite(curve).any()}
    said = []
    for layer, curve in there.items():
        centre = charts.PROFILE_CENTRES[int(np.nanargmax(curve))]
        side = "inside" if centre < 0 else "outside"
        said.append(f"{layer} is strongest {abs(centre):.2g} band widths {side} the edge")
    label = f"Mean map value of {line.name} against the distance to its edge: " + "; ".join(said)
    return {
        "support": support,
        "svg": Markup(charts.profile_svg(curves, label + ".")) if there else None,
    }


def _headline(run: Run, classes: Sequence[ClassLine]) -> dict[str, Any]:
    """What the first sentence says: how well the network does, and which class it does worst."""
    judged = [line for line in classes if line.iou.judged]
    return {
        "iou": float(np.mean([line.iou.mean for line in judged])) if judged else float("nan"),
        "judged": len(judged),
        "worst": min(judged, key=lambda line: line.iou.mean) if len(judged) > 1 else None,
        "images": int(run.rows["image"].nunique()),
        "classes": len(classes),
    }


def _facts(run: Run, spec: Mapping[str, Any]) -> list[tuple[str, str]]:
    method, target = str(spec.get("method", "")), str(spec.get("target", ""))
    images = plural(int(run.rows["image"].nunique()), "image")
    if run.skipped:
        images += f", {len(run.skipped)} skipped"
    layers = ", ".join(run.layers)
    if len(layers) > LONGEST_LIST:
        layers = f"from {run.layers[0]} to {run.layers[-1]}"
    facts = [
        ("Model", str(spec.get("model", ""))),
        ("Method of the maps", _title(method)),
        ("What the maps explain", TARGETS.get(target, target)),
        ("Layers", f"{len(run.layers)}, deepest first: {layers}"),
        ("Images", images),
        ("Volumes", "explained and measured whole, in voxels" if spec.get("orientation") else ""),
        ("Date", _date(str(run.meta.get("finished") or run.meta.get("started") or ""))),
    ]
    return [(name, value) for name, value in facts if value]


def _title(method: str) -> str:
    """The method's title; its name, where a run was made with one that this version lacks."""
    try:
        return methods.get(method).title
    except UnetcamError:
        return method


def _model_name(spec: Mapping[str, Any]) -> str:
    name = str(spec.get("model", "")).rstrip("/\\")
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
        if name in (
            "skipped",
            "files",
            "remarks",
        ):  # the page has a section, the folder shows its files
            continue
        if isinstance(value, Mapping):
            lines.extend(_flat(value, f"{prefix}{name}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            lines.append((prefix + str(name), text))
    return lines
