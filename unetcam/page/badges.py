"""What a check said of the maps, wherever they are shown: a layer that failed carries a badge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unetcam.page.text import DASH, listed, number, plural

if TYPE_CHECKING:
    from unetcam.measures.sanity import Similarity
    from unetcam.runs import Run
    from unetcam.runs.sanity import CheckRow


@dataclass(frozen=True)
class CheckLine:
    """A layer's line in the table of the check; similarities are Spearman's, then SSIM."""

    layer: str
    verdict: str
    status: str
    shuffled: str
    decoder: str
    others: str
    next_class: str


def checked_rows(run: Run) -> tuple[CheckRow, ...]:
    """The check's rows of what the run shows: its method, its target and its layers."""
    check = run.checked.check
    if check is None:
        return ()
    spec = run.meta.get("spec", {})
    shown = {(spec.get("method"), spec.get("target"), layer) for layer in run.layers}
    return tuple(row for row in check.rows if (row.method, row.target, row.layer) in shown)


def badges(run: Run) -> dict[str, str]:
    """By layer, why its maps failed, in a few words; layers that did not fail are not in it."""
    return {row.layer: " and ".join(row.reasons) for row in checked_rows(run) if row.reasons}


def check_lines(run: Run) -> list[str]:
    """What failed, a sentence for each reason; none where nothing did."""
    by_reason: dict[str, list[str]] = {}
    for row in checked_rows(run):
        for reason in row.reasons:
            by_reason.setdefault(reason, []).append(row.layer)
    return [
        f"What the maps show at {listed(layers)} {reason}: the check of the maps failed there."
        for reason, layers in by_reason.items()
    ]


def check_sentence(run: Run) -> str:
    """What was checked, on how many images and pairs, and what came of it."""
    check, rows = run.checked.check, checked_rows(run)
    if check is None or not rows:
        return run.checked.reason or "The maps were not checked."
    judged = [row for row in rows if row.judged]
    pairs = max(row.threshold.pairs for row in rows)
    begin = (
        f"The weights were shuffled, and the maps of {plural(check.images, 'image')} made again. "
        "A layer's maps fail if they are then as like the shown ones as maps of different images "
        f"are like each other ({plural(pairs, 'pair')}), by Spearman's rank correlation or by SSIM."
    )
    if not judged:
        return f"{begin} There were too few maps with evidence to judge."
    failed = sum(bool(row.reasons) for row in judged)
    layers = plural(len(judged), "layer")
    if not failed:
        return f"{begin} None of {layers} failed, which proves nothing yet: only a fail counts."
    return f"{begin} {failed} of {layers} failed, and {'is' if failed == 1 else 'are'} marked."


def check_table(run: Run) -> list[CheckLine]:
    """A line for each layer that was checked, deepest first."""
    return [
        CheckLine(
            row.layer,
            _verdict(row),
            "fail" if row.reasons else "unknown",
            _written(row.cascade[-1][1]),
            DASH if row.decoder is None else _written(row.decoder),
            _written(row.threshold),
            _written(row.other_class),
        )
        for row in _in_order(checked_rows(run), run.layers)
    ]


def _in_order(rows: Sequence[CheckRow], layers: Sequence[str]) -> list[CheckRow]:
    return sorted(rows, key=lambda row: layers.index(row.layer))


def _verdict(row: CheckRow) -> str:
    if not row.judged:
        return "too few maps to judge"
    return " and ".join(row.reasons) or "no fail"


def _written(similarity: Similarity) -> str:
    return f"{number(similarity.spearman)}, {number(similarity.ssim)}"
