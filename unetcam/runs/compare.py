"""Two runs side by side: what changed, per class and layer, and whether that could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.errors import RunError
from unetcam.measures import of_the_map
from unetcam.runs.run import Run

#: The measures that are compared where none are named.
HEADLINES = (
    "class_iou",
    "boundary_ratio",
    "band_mass_ratio",
    "outside_far_share",
    "hot_background",
    "truth_ap",
    "truth_energy",
    "entropy",
)

#: What stands for the layer where a measure belongs to the network and not to a map.
NETWORK = "(network)"

_COLUMNS = (
    "class_name",
    "layer_a",
    "layer_b",
    "metric",
    "mean_a",
    "mean_b",
    "difference",
    "n",
    "p",
    "p_holm",
)


@dataclass(frozen=True)
class Comparison:
    """What changed from run A to run B.

    Attributes
    ----------
    table : DataFrame
        One row per class, layer and measure: class_name, layer_a, layer_b, metric, mean_a, mean_b
        and their difference (B minus A) over the n images that both runs have a number for, p of
        the two-sided Wilcoxon signed-rank test and p after Holm's correction over the whole table.
    notes : tuple of str
        What the runs do not share, in words.
    name_a, name_b : str
        The runs' folders, as they were named.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]
    name_a: str
    name_b: str

    def markdown(self, digits: int = 3) -> str:
        """The table and the notes as Markdown, to be pasted."""
        title = f"A: `{_code(self.name_a)}`, B: `{_code(self.name_b)}`"
        head = "| class | layer | measure | A | B | B − A | n | p | p (Holm) |"
        rule = "|---|---|---|---:|---:|---:|---:|---:|---:|"
        lines = [title, "", head, rule]
        for row in self.table.to_dict("records"):
            layer = row["layer_a"]
            if row["layer_b"] != layer:
                layer = f"{layer} / {row['layer_b']}"
            numbers = (
                _number(row["mean_a"], f".{digits}f"),
                _number(row["mean_b"], f".{digits}f"),
                _number(row["difference"], f"+.{digits}f"),
                str(row["n"]),
                _p(row["p"]),
                _p(row["p_holm"]),
            )
            cells = (_cell(row["class_name"]), _cell(layer), _cell(row["metric"]), *numbers)
            lines.append("| " + " | ".join(cells) + " |")
        lines += [
            "",
            "Means over the n images that both runs have a number for. p: two-sided Wilcoxon "
            "signed-rank test on the images' differences; Holm: corrected for all "
            f"{int(self.table['p'].notna().sum())} tests of this table.",
        ]
        lines += [f"- {_cell(note)}" for note in self.notes]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a missing number is None."""
        table = self.table.astype(object).where(self.table.notna(), None)
        return {
            "a": self.name_a,
            "b": self.name_b,
            "notes": list(self.notes),
            "rows": table.to_dict("records"),
        }


def compare(a: Run, b: Run, metrics: Sequence[str] | None = None) -> Comparison:
    """Compare two runs over the images, layers and classes that both have.

    Parameters
    ----------
    a, b : Run
        Of the same images; networks, checkpoints, methods or settings may differ.
    metrics : sequence of str, optional
        Columns of the rows. By default the main ones that both runs have.

    Returns
    -------
    Comparison

    Raises
    ------
    RunError
        If the runs share no image, class or layer, or if a measure is unknown.

    Notes
    -----
    Layers are paired by name. Where the two runs' layers have different names they are paired by
    their stride, if only one layer of either run has it; what was paired so is said in the notes.
    Classes are paired by name. A measure of the map is compared over the images in which neither
    run's map is empty.

    The test is Wilcoxon's signed-rank test (*Individual comparisons by ranking methods*, Biometrics
    Bulletin 1, 1945) without zero differences; the correction is Holm's (*A simple sequentially
    rejective multiple test procedure*, Scandinavian Journal of Statistics 6, 1979).
    """
    chosen = _metrics(a, b, metrics)
    pairs, notes = _layer_pairs(a, b)
    notes = _other_differences(a, b) + notes
    classes = [name for name in a.classes.names if name in set(b.classes.names)]
    if not classes:
        raise RunError(
            f"The runs share no class: A has {', '.join(a.classes.names)}, and B has "
            f"{', '.join(b.classes.names)}."
        )
    joined = _joined(a, b, pairs, classes, chosen)
    images = joined["image"].nunique()
    if images == 0:
        raise RunError("The runs share no image: compare runs over the same images.")
    for run, label in ((a, "A"), (b, "B")):
        missing = run.rows["image"].nunique() - images
        if missing:
            notes.append(f"{missing} images are in run {label} only and are left out.")
    table = _table(joined, pairs, classes, chosen)
    return Comparison(table, tuple(notes), str(a.path), str(b.path))


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Holm's step-down correction of p values; NaN stays NaN and is no test.

    >>> holm(np.array([0.01, 0.04, 0.03, np.nan]))
    array([0.03, 0.06, 0.06,  nan])
    """
    corrected = np.full(len(p), np.nan)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    stepped = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected


def signed_rank(differences: NDArray[np.float64]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test; 1 where no difference is other than zero.

    >>> signed_rank(np.zeros(5))
    1.0
    >>> round(signed_rank(np.arange(1.0, 7.0)), 5)
    0.03125
    """
    if len(differences) == 0:
        return float("nan")
    if not np.any(differences):
        return 1.0
    from scipy import stats  # takes long to import, and only a comparison needs it

    return float(stats.wilcoxon(differences, zero_method="wilcox").pvalue)


def _metrics(a: Run, b: Run, asked: Sequence[str] | None) -> list[str]:
    shared = [name for name in a.measures if name in set(b.measures)]
    if asked is None:
        return [name for name in HEADLINES if name in shared]
    for name in asked:
        if name not in shared:
            raise RunError(f"The runs share no measure '{name}': choose from {', '.join(shared)}.")
    return list(asked)


def _layer_pairs(a: Run, b: Run) -> tuple[list[tuple[str, str]], list[str]]:
    notes = []
    pairs = {name: name for name in a.layers if name in b.layers}
    left_a = [name for name in a.layers if name not in pairs]
    left_b = [name for name in b.layers if name not in pairs]
    strides_a = dict(zip(a.layers, a.spec.strides or (), strict=True))
    strides_b = dict(zip(b.layers, b.spec.strides or (), strict=True))
    for name in left_a:
        same_a = [other for other in left_a if strides_a[other] == strides_a[name]]
        same_b = [other for other in left_b if strides_b[other] == strides_a[name]]
        if len(same_a) == len(same_b) == 1:
            pairs[name] = same_b[0]
            notes.append(
                f"Layer {name} of A is compared with layer {same_b[0]} of B, as both have stride "
                f"{strides_a[name]}."
            )
    for label, layers, paired in (("A", left_a, set(pairs)), ("B", left_b, set(pairs.values()))):
        alone = [name for name in layers if name not in paired]
        if alone:
            notes.append(f"Without a partner and left out, in run {label}: {', '.join(alone)}.")
    if not pairs:
        raise RunError(
            f"The runs share no layer, by name or by stride: A has {', '.join(a.layers)}, and B "
            f"has {', '.join(b.layers)}."
        )
    return [(name, pairs[name]) for name in a.layers if name in pairs], notes


def _other_differences(a: Run, b: Run) -> list[str]:
    notes = []
    for name in ("method", "target", "band", "threshold", "tolerance"):
        mine, theirs = getattr(a.spec, name), getattr(b.spec, name)
        if mine != theirs:
            notes.append(f"The runs differ in {name}: {_auto(mine)} in A, {_auto(theirs)} in B.")
    if a.spec.data_digest != b.spec.data_digest:
        notes.append("The runs' images or masks are not the same files; images are paired by name.")
    if a.spec.preprocessing != b.spec.preprocessing:
        notes.append("The runs differ in preprocessing.")
    shared = set(a.classes.names) & set(b.classes.names)
    names = dict.fromkeys((*a.classes.names, *b.classes.names))
    alone = [name for name in names if name not in shared]
    if alone:
        notes.append(f"Classes of one run only, left out: {', '.join(alone)}.")
    return notes


def _joined(
    a: Run,
    b: Run,
    pairs: Sequence[tuple[str, str]],
    classes: Sequence[str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    columns = ["image", "layer", "class_name", *dict.fromkeys((*metrics, "empty"))]
    back = {theirs: mine for mine, theirs in pairs}
    mine = a.rows[a.rows["layer"].isin([name for name, _ in pairs])]
    theirs = b.rows[b.rows["layer"].isin(list(back))].assign(
        layer=lambda rows: rows["layer"].map(back)
    )
    frames = []
    for rows in (mine, theirs):
        rows = rows[rows["class_name"].isin(list(classes))]
        if "empty" not in rows:
            rows = rows.assign(empty=False)
        frames.append(rows[columns])
    return frames[0].merge(
        frames[1], on=["image", "layer", "class_name"], suffixes=("_a", "_b"), validate="1:1"
    )


def _table(
    joined: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    classes: Sequence[str],
    metrics: Sequence[str],
) -> pd.DataFrame:
    records = []
    for name in classes:
        of_class = joined[joined["class_name"] == name]
        for position, (mine, theirs) in enumerate(pairs):
            group = of_class[of_class["layer"] == mine]
            empty = (group["empty_a"].astype(bool) | group["empty_b"].astype(bool)).to_numpy()
            for metric in metrics:
                of_network = not of_the_map(metric) and metric != "empty"
                if of_network and position:  # the same at every layer: one test, not many
                    continue
                keep = ~empty if of_the_map(metric) else np.ones(len(group), bool)
                first = group[f"{metric}_a"].to_numpy(np.float64, na_value=np.nan)
                second = group[f"{metric}_b"].to_numpy(np.float64, na_value=np.nan)
                keep &= ~np.isnan(first) & ~np.isnan(second)
                first, second = first[keep], second[keep]
                n = len(first)
                records.append(
                    {
                        "class_name": name,
                        "layer_a": NETWORK if of_network else mine,
                        "layer_b": NETWORK if of_network else theirs,
                        "metric": metric,
                        "mean_a": first.mean() if n else np.nan,
                        "mean_b": second.mean() if n else np.nan,
                        "difference": (second - first).mean() if n else np.nan,
                        "n": n,
                        "p": signed_rank(second - first),
                    }
                )
    table = pd.DataFrame(records)
    table["p_holm"] = holm(table["p"].to_numpy(np.float64))
    return table[list(_COLUMNS)]


def _auto(value: Any) -> str:
    return "automatic" if value is None else str(value)


def _number(value: float, form: str) -> str:
    return "–" if np.isnan(value) else format(value, form)


def _p(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cell(text: Any) -> str:
    """A table cell that no name can break out of, in Markdown or the HTML it becomes."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|")
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return " ".join(escaped.split())


def _code(text: str) -> str:
    return " ".join(text.replace("`", "'").split())
