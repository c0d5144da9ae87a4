"""The benchmark's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colours, which differ for colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES = ("-", "--")


def _dress(axes: Axes, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def _draw(
    axes: Axes, xs: Sequence[float], lines: Mapping[str, Sequence[float]], pairs: bool
) -> None:
    for number, (name, values) in enumerate(lines.items()):
        colour, dash = (number // 2, number % 2) if pairs else (number, 0)
        axes.plot(
            xs,
            values,
            marker="o",
            markersize=3.5,
            label=name,
            color=COLOURS[colour % len(COLOURS)],
            linestyle=_DASHES[dash],
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(xs), [f"{x:g}" for x in xs])
    axes.minorticks_off()


def curves(
    path: Path,
    xlabel: str,
    xs: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    ylabel: str,
    *,
    pairs: bool = False,
) -> None:
    """Lines over one axis, both logarithmic; with `pairs`, two of a colour, the second dashed."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    _draw(axes, xs, lines, pairs)
    _dress(axes, xlabel, ylabel)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def panels(
    path: Path,
    parts: Mapping[str, tuple[Sequence[float], Mapping[str, Sequence[float]]]],
    ylabel: str,
) -> None:
    """One panel of lines per part."""
    columns = 3
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(11, 3.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes, (name, (xs, lines)) in zip(grid.flat, parts.items(), strict=False):
        _draw(axes, xs, lines, pairs=False)
        _dress(axes, name, ylabel)
    for axes in list(grid.flat)[len(parts) :]:
        axes.set_axis_off()
    grid.flat[0].legend(frameon=False, fontsize=8)
    _save(figure, path)


def bars(path: Path, values: Mapping[str, float], xlabel: str, *, log: bool = True) -> None:
    """Horizontal bars with their values, the first on top."""
    figure = Figure(figsize=(8.0, 0.55 * len(values) + 1.0), layout="constrained")
    axes = figure.subplots()
    names = list(values)
    own = [COLOURS[0] if name.startswith("unetcam") else "#999999" for name in names]
    drawn = axes.barh(names, list(values.values()), color=own)
    axes.bar_label(drawn, fmt="{:.3g}", padding=3)
    axes.invert_yaxis()
    if log:
        axes.set_xscale("log")
    axes.margins(x=0.15)
    _dress(axes, xlabel, "")
    axes.grid(False, axis="y")
    _save(figure, path)
