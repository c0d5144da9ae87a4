"""Charts: inline SVG that follows the page's colours, and PNG files for slides and papers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from unetcam.measures.regions import PROFILE_BANDS, PROFILE_BINS
from unetcam.page.text import number, percent

#: The profile's bins: signed distance to the contour in band widths, negative inside.
PROFILE_EDGES = np.linspace(-PROFILE_BANDS, PROFILE_BANDS, PROFILE_BINS + 1)
PROFILE_CENTRES = (PROFILE_EDGES[:-1] + PROFILE_EDGES[1:]) / 2
DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DPI = 200
#: How hard a chart's file is packed.
_PACKING = 4
_FONT = 9.5


@dataclass(frozen=True)
class Ink:
    """The colours of a chart."""

    text: str
    faint: str
    band: str
    lines: tuple[str, ...]


def layer_colours(count: int, *, dark: bool = False) -> tuple[str, ...]:
    """One colour per layer, deepest first, with enough contrast on a light or a dark page.

    Examples
    --------
    >>> layer_colours(2)
    ('#471063', '#1e9c89')
    """
    low, high = (0.38, 0.95) if dark else (0.04, 0.55)
    positions = np.linspace(low, high, count) if count > 1 else np.array([0.3 if not dark else 0.7])
    return tuple(to_hex(colormaps["viridis"](position)) for position in positions)


def profile_svg(profiles: Mapping[str, NDArray[Any]], title: str) -> str:
    """The distance profile of every layer as an SVG that takes its colours from the page.

    Text is ``currentColor``, the lines are ``var(--layer-0)`` and so on, the band is
    ``var(--band)``; there are no ids and no addresses in it, so that many fit on one page.

    Parameters
    ----------
    profiles : mapping of str to ndarray, shape (16,)
        Mean value of each layer's map per distance bin; NaN where no image has the bin.
    title : str
        What a screen reader says; escaped here.

    Returns
    -------
    str
        ``<svg ...>...</svg>``
    """
    marks = {f"#0102{number:02x}": f"var(--layer-{number})" for number in range(len(profiles))}
    ink = Ink(text="#010303", faint="#010304", band="#010305", lines=tuple(marks))
    figure = profile_figure(profiles, ink, size=(4.6, 2.9))
    out = StringIO()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # it is arranged: saving need not do it twice more
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "unetcam"}):
        figure.savefig(
            out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    marks |= {ink.text: "currentColor", ink.faint: "var(--rule)", ink.band: "var(--band)"}
    return _for_page(out.getvalue(), marks, title)


def profile_figure(
    profiles: Mapping[str, NDArray[Any]],
    ink: Ink,
    *,
    size: tuple[float, float] = (5.6, 3.6),
    title: str | None = None,
) -> Figure:
    """Mean map value against the signed distance to the contour, one line per layer."""
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(-1, 1, color=ink.band, lw=0)
    axes.axvline(0, color=ink.text, lw=1)
    top = 0.0
    for index, (layer, values) in enumerate(profiles.items()):
        axes.plot(
            PROFILE_CENTRES, values, label=layer, color=ink.lines[index], lw=1.8,
            ls=DASHES[index % len(DASHES)], marker=MARKERS[index % len(MARKERS)], ms=3.6,
        )  # fmt: skip
        finite = values[np.isfinite(values)]
        top = max(top, float(finite.max()) if finite.size else 0.0)
    axes.set(xlim=(-PROFILE_BANDS, PROFILE_BANDS), ylim=(0, 1.12 * top if top > 0 else 1.0))
    ticks = sorted({-PROFILE_BANDS, -2, -1, 0, 1, 2, PROFILE_BANDS})
    axes.set_xticks(ticks)
    axes.set_xlabel("inside  ←  distance to the edge, in band widths  →  outside")
    axes.set_ylabel("mean map value")
    _plain(axes, ink)
    if title is not None:
        axes.set_title(title, fontsize=_FONT + 2, color=ink.text, loc="left", parse_math=False)
        legend = figure.legend(
            loc="outside right upper", frameon=False, fontsize=_FONT, labelcolor=ink.text
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def heat_figure(
    values: NDArray[Any],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    title: str,
    row_title: str,
    column_title: str,
    shares: bool = True,
) -> Figure:
    """A matrix as coloured cells with its numbers written in; NaN is an en dash on grey."""
    rows, columns = values.shape
    width = 1.9 + 0.62 * columns + 0.055 * max(map(len, row_names), default=0)
    figure = Figure(figsize=(max(width, 3.6), 1.5 + 0.36 * rows), layout="constrained")
    axes = figure.add_subplot()
    finite = values[np.isfinite(values)]
    top = 1.0 if shares else max(1.0, float(finite.max()) if finite.size else 1.0)
    colormap = colormaps["viridis"].with_extremes(bad="#dddddd")
    axes.imshow(np.ma.masked_invalid(values), cmap=colormap, vmin=0, vmax=top, aspect="auto")
    write = percent if shares else number
    for row, column in np.ndindex(rows, columns):
        value = float(values[row, column])
        bright = not np.isfinite(value) or value / top > 0.55
        axes.text(
            column, row, write(value), ha="center", va="center", fontsize=_FONT - 1,
            color="black" if bright else "white",
        )  # fmt: skip
    for axis, names in ((axes.xaxis, column_names), (axes.yaxis, row_names)):
        axis.set_ticks(range(len(names)), [_short(name) for name in names])
        for label in axis.get_ticklabels():
            label.set_parse_math(False)
    axes.tick_params(length=0, labelsize=_FONT)
    axes.tick_params(axis="x", rotation=30 if max(map(len, column_names), default=0) > 7 else 0)
    axes.set_xlabel(column_title, fontsize=_FONT)
    axes.set_ylabel(row_title, fontsize=_FONT)
    axes.set_title(title, fontsize=_FONT + 2, loc="left", parse_math=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG at twice the usual resolution, on white."""
    figure.set_dpi(_DPI)
    figure.patch.set(visible=True, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
    canvas.draw()  # savefig would arrange and draw everything twice
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    Image.fromarray(pixels).save(path, "PNG", dpi=(_DPI, _DPI), compress_level=_PACKING)


def print_ink(layers: int) -> Ink:
    """Colours for a chart on white paper."""
    return Ink(text="#1b1f24", faint="#d0d4d9", band="#eceef1", lines=layer_colours(layers))


def _plain(axes: Axes, ink: Ink) -> None:
    axes.grid(axis="y", color=ink.faint, lw=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(ink.text)
    axes.tick_params(colors=ink.text, labelsize=_FONT, length=3)
    axes.tick_params(axis="y", length=0)
    axes.patch.set_visible(False)
    axes.figure.patch.set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(ink.text)
        label.set_fontsize(_FONT)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _for_page(svg: str, colours: Mapping[str, str], title: str) -> str:
    """Make an SVG fit for being one of many inside a page.

    Markers and clips refer to definitions by id, and ids must be unique on a page: each reference
    is replaced by a copy of what it refers to. Names of fonts go, so that the page's is used.
    """
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    shapes = {e.get("id"): e for e in root.iter("path") if e.get("id")}
    for parent in list(root.iter()):
        for index, child in enumerate(list(parent)):
            if child.tag == "use":
                parent[index] = _copied(child, shapes)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("defs", "metadata"):
                parent.remove(child)
    for element in root.iter():
        for name in ("id", "clip-path"):
            element.attrib.pop(name, None)
        style = element.get("style")
        if style is not None:
            element.set("style", re.sub(r"font-family:[^;]*;?", "", style))
    view = root.attrib["viewBox"]
    root.attrib = {"class": "chart", "role": "img", "aria-label": title, "viewBox": view}
    text = ElementTree.tostring(root, encoding="unicode")
    for mark, colour in colours.items():
        text = text.replace(mark, colour)
    return text


def _copied(
    use: ElementTree.Element, shapes: Mapping[str | None, ElementTree.Element]
) -> ElementTree.Element:
    href = next(value for name, value in use.attrib.items() if name.endswith("href"))
    shape = shapes[href.removeprefix("#")]
    return ElementTree.Element(
        "path",
        {
            "d": shape.attrib["d"],
            "style": use.get("style") or shape.get("style") or "",
            "transform": f"translate({use.attrib['x']} {use.attrib['y']})",
        },
    )
