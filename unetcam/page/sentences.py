"""The sentences under a finding: what was measured, in plain words."""

from __future__ import annotations

from math import isfinite
from typing import Any

import pandas as pd

from unetcam.page.readings import Reading, wilson
from unetcam.page.text import number, percent, plural
from unetcam.page.thresholds import MIN_SUPPORT, USUAL_SHARE


def sentences(
    head: Reading, finest: Reading, rows: pd.DataFrame, frame: pd.DataFrame
) -> tuple[str, ...]:
    """What stands under a finding.

    Parameters
    ----------
    head, finest : Reading
        The reading that made the finding, and the finest layer's.
    rows, frame : DataFrame
        The prepared rows of the finding's class and layer, and those of the whole run.
    """
    said = [_numbers(head), *_DETAILS[head.symptom](rows, frame)]
    if finest.severity is None:
        said.append(_finest_is_clean(finest))
    return tuple(said)


def _numbers(head: Reading) -> str:
    criterion = head.criterion
    write = percent if criterion.percent else number
    which = "Median image" if head.usual else "Worse quarter of the images"
    beyond = "or more" if criterion.worse == "high" else "or less"
    uniform = (
        f"; a uniform map would give {write(criterion.uniform)}"
        if criterion.uniform is not None
        else ""
    )
    low, high = wilson(head.affected, head.support)
    said = (
        f"{which}: {write(head.shown)}{'' if head.usual else ' ' + beyond} (threshold "
        f"{write(criterion.threshold)}{uniform}). {head.affected} of "
        f"{plural(head.support, 'image')} {'is' if head.affected == 1 else 'are'} beyond the "
        "threshold"
    )
    if head.support < head.present:
        said += f" ({head.present - head.support} more could not be judged)"
    if head.support < MIN_SUPPORT:
        return f"{said}; with fewer than {MIN_SUPPORT} images this is a hint and no more."
    if low <= USUAL_SHARE <= high:
        return (
            f"{said}; among all images like these it could be {percent(low)} to {percent(high)}, "
            "so more images would make this firmer."
        )
    return f"{said}."


def _scattered(rows: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    area, share = _mean(rows, "effective_area"), _mean(rows, "class_share")
    sentences = [
        f"On average the map effectively covers {percent(area)} of the image, "
        f"the class itself {percent(share)} (normalised entropy {number(_mean(rows, 'entropy'))}, "
        "where 1 is a uniform map)."
    ]
    inside = _mean(rows, "truth_energy")
    if isfinite(inside) and isfinite(share):
        verb = "barely prefers" if inside < 1.5 * share else "still prefers"
        sentences.append(
            f"It {verb} the class: {percent(inside)} of it lies inside, "
            f"where a uniform map would put {percent(share)}."
        )
    return sentences


def _background(rows: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    outside, far = _mean(rows, "outside_share"), _mean(rows, "outside_far_share")
    sentences = [
        f"On average {percent(outside)} of the map lies outside the class: "
        f"{percent(max(outside - far, 0.0))} in the band along its edge, which is the halo to be "
        f"expected of a coarse layer, and {percent(far)} beyond it, which is not."
    ]
    spots, hot = _mean(rows, "hot_count"), _mean(rows, "hot_background")
    if isfinite(spots) and isfinite(hot):
        sentences.append(
            f"{percent(hot)} of the pixels outside are hot, in {number(spots, 1)} separate "
            "patches per image."
            if spots >= 0.5
            else "Almost no pixel outside is hot: this is a faint veil, not a hot spot."
        )
    return [*sentences, *_leading_leak(rows, frame)]


def _boundary(rows: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    inner, interior = _mean(rows, "boundary_inner"), _mean(rows, "boundary_interior")
    ratio, support = _mean(rows, "band_mass_ratio"), _support(rows, "band_mass_ratio")
    sentences = []
    if isfinite(inner) and isfinite(interior):
        sentences.append(
            f"On average the map has {number(inner, 3)} just inside the edge and "
            f"{number(interior, 3)} in the interior."
        )
    if support:
        sentences.append(
            f"The band on both sides of the edge holds {number(ratio)} times what a uniform map "
            "would put there."
        )
    return sentences


_DETAILS = {"scattered": _scattered, "background": _background, "boundary": _boundary}


def _leading_leak(rows: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    own = int(rows["class_index"].iloc[0])
    names = dict(zip(frame["class_index"], frame["class_name"], strict=True))
    leaks = {
        index: _mean(rows, f"leak_{index}")
        for index in names
        if index != own and f"leak_{index}" in rows
    }
    leaks = {index: value for index, value in leaks.items() if isfinite(value)}
    if not leaks:
        return []
    most = max(leaks, key=lambda index: leaks[index])
    return [
        f"The largest part of what lies outside stands on pixels whose true class is {names[most]} "
        f"({percent(leaks[most])} of the map)."
    ]


def _finest_is_clean(finest: Reading) -> str:
    write = percent if finest.criterion.percent else number
    if not finest.support:
        return f"The finest layer, {finest.layer}, could not be judged, so this counts for less."
    return (
        f"The finest layer, {finest.layer}, does not show it ({write(finest.median)}): the last "
        "step before the prediction is in order, so this counts for less."
    )


def _mean(rows: pd.DataFrame, column: str) -> float:
    values: Any = rows[column].astype(float).mean() if column in rows else float("nan")
    return float(values)


def _support(rows: pd.DataFrame, column: str) -> int:
    return int(rows[column].notna().sum()) if column in rows else 0
