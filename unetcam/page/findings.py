"""A diagnosis as it stands on the page: findings with their pictures, and the tests behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unetcam.diagnosis import get
from unetcam.diagnosis import names as diagnosis_kinds
from unetcam.page.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, encoded, outlined, resized
from unetcam.page.text import DASH, number, percent, plural

if TYPE_CHECKING:
    from unetcam.diagnosis import Diagnosis, Evidence, Finding, TestRecord

#: Images shown beside a finding; the diagnosis may hold more.
MOST_SHOWN = 2
PICTURE_WIDTH = 360
#: The hue of what was hidden; neither outline has it.
REGION_COLOUR = (255, 92, 205)
SEVERITY_WORDS = {"high": "Needs attention", "medium": "Worth a look", "low": "Minor finding"}
SEVERITIES = tuple(SEVERITY_WORDS)


@dataclass(frozen=True)
class Shot:
    """One picture of an image before or after it was changed."""

    source: str
    width: int
    height: int
    title: str
    alt: str


@dataclass(frozen=True)
class Shown:
    """One image that shows a finding: before and after, with the predicted outline of each."""

    image: str
    caption: str
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Bar:
    """One line of a finding's little chart, in shares of its width."""

    title: str
    text: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Card:
    """A finding, ready for the template."""

    finding: Finding
    title: str
    effect: str
    interval: str
    bars: tuple[Bar, ...]
    control: str
    gain: str
    fills: str
    details: tuple[tuple[str, str], ...]
    shown: tuple[Shown, ...]


@dataclass(frozen=True)
class RecordLine:
    """The record of a test, ready for the template."""

    title: str
    class_name: str
    tested: int
    confirmed: bool
    effect: str
    control: str
    smallest_effect: str
    reason: str


def kind_title(kind: str) -> str:
    """A kind's claim in a few words; its name, where this version does not know it.

    >>> kind_title("never-predicted"), kind_title("leans-on-the-moon")
    ('A class is never predicted', 'Leans on the moon')
    """
    if kind in diagnosis_kinds():
        return get(kind).title
    return kind.replace("-", " ").capitalize()


def card(finding: Finding) -> Card:
    """A finding with its numbers written and its pictures drawn."""
    share = is_share(finding.effect_unit)
    low, high = finding.interval
    interval = f"{_written(low, share)} to {_written(high, share)}"
    return Card(
        finding=finding,
        title=kind_title(finding.kind),
        effect=_written(finding.effect, share),
        interval=interval if isfinite(low) and isfinite(high) else "",
        bars=_bars(finding) if share else (),
        control=_written(finding.control, share) if isfinite(finding.control) else "",
        gain=_gain(finding),
        fills=" and ".join(filter(None, (", ".join(finding.fills[:-1]), *finding.fills[-1:]))),
        details=tuple(
            (name.replace("_", " "), _detail(value)) for name, value in finding.details.items()
        ),
        shown=tuple(_shown(one) for one in finding.evidence[:MOST_SHOWN]),
    )


def _detail(value: float | str) -> str:
    """A detail as it is written: what is a whole number, as a count is, without digits behind."""
    if isinstance(value, str):
        return value
    return number(value, 0 if float(value).is_integer() else 2)


def is_share(unit: str) -> bool:
    """Whether an effect of a unit is a share, to be written in percent.

    >>> is_share("share of the class's pixels that flip"), is_share("change of the class's Dice")
    (True, False)
    """
    return unit.startswith("share")


def record_lines(diagnosis: Diagnosis) -> list[RecordLine]:
    """Every test of a diagnosis: the confirmed ones first, then in the order of the asking."""
    return [_record_line(one) for one in sorted(diagnosis.tests, key=lambda t: not t.confirmed)]


@dataclass(frozen=True)
class KindLine:
    """What the tests of one kind came to, ready for the template."""

    title: str
    images: str
    most: str
    seen_from: str


def kind_lines(diagnosis: Diagnosis) -> list[KindLine]:
    """Each kind that was tested: on how many images, the largest effect, and what would be seen.

    Where the classes differ, the effect from which on it would have been seen is the largest of
    them, so that it holds for every class that was tested.
    """
    by_kind: dict[str, list[TestRecord]] = {}
    for one in diagnosis.tests:
        if one.tested:
            by_kind.setdefault(one.kind, []).append(one)
    return [_kind_line(kind, tests) for kind, tests in by_kind.items()]


def healthy_sentence(diagnosis: Diagnosis) -> str:
    """What a diagnosis without findings amounts to: what was asked, and on how many images."""
    made = [one for one in diagnosis.tests if one.tested]
    if not made:
        return "No question could be asked of this network; the reasons stand below."
    kinds = len({one.kind for one in made})
    least, most = min(one.tested for one in made), max(one.tested for one in made)
    images = plural(most, "image") if least == most else f"{least} to {plural(most, 'image')}"
    return (
        f"{plural(kinds, 'kind')} of fault were looked for in {plural(len(made), 'test')}, each "
        f"on {images}, and none was confirmed. A fault with a smaller effect than the one named "
        "here, or of another kind, would not have been seen."
    )


def _kind_line(kind: str, tests: Sequence[TestRecord]) -> KindLine:
    share = _counts_share(kind)
    counts = [one.tested for one in tests]
    images = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    known = [one for one in tests if isfinite(one.effect)]
    most, seen = DASH, [one.smallest_effect for one in tests if isfinite(one.smallest_effect)]
    if known:
        largest = max(known, key=lambda one: one.effect)
        about = f" ({largest.class_name})" if largest.class_name else ""
        most = f"{_written(largest.effect, share)}{about}"
    return KindLine(kind_title(kind), images, most, _written(max(seen), share) if seen else DASH)


def _counts_share(kind: str) -> bool:
    return kind in diagnosis_kinds() and is_share(get(kind).unit)


def _record_line(one: TestRecord) -> RecordLine:
    share = _counts_share(one.kind)
    return RecordLine(
        title=kind_title(one.kind),
        class_name=one.class_name,
        tested=one.tested,
        confirmed=one.confirmed,
        effect=_written(one.effect, share),
        control=_written(one.control, share),
        smallest_effect=_written(one.smallest_effect, share),
        reason=one.reason,
    )


def _written(value: float, share: bool) -> str:
    return percent(value) if share else number(value)


def _gain(finding: Finding) -> str:
    if finding.gain is None or not isfinite(finding.gain):
        return ""
    whose = f"the IoU of {finding.class_name}" if finding.class_name else "the mean IoU"
    return (
        f"Without it {whose} would be {number(abs(finding.gain))} higher."
        if (finding.gain > 0)
        else ""
    )


def _bars(finding: Finding) -> tuple[Bar, ...]:
    bars = [_bar("effect", finding.effect, finding.interval)]
    if isfinite(finding.control):
        bars.append(_bar("control", finding.control, (finding.control, finding.control)))
    return tuple(bars)


def _bar(title: str, value: float, interval: tuple[float, float]) -> Bar:
    low, high = (one if isfinite(one) else value for one in interval)
    shares = (min(max(one, 0.0), 1.0) if isfinite(one) else 0.0 for one in (value, low, high))
    return Bar(title, percent(value), *shares)


def _shown(one: Evidence) -> Shown:
    shots = []
    for which, image, mask, outline in (
        ("before", one.before, one.mask_before, one.region),
        ("after", one.after, one.mask_after, None),
    ):
        if image is None:
            continue
        title = "as it is" if which == "before" else "changed"
        drawn = _drawn(image, one.truth, mask, outline)
        shots.append(
            Shot(
                encoded(drawn), drawn.shape[1], drawn.shape[0], title,
                f"Image {one.image}, {title}, with the true and the predicted outline. "
                f"{one.caption}",
            )
        )  # fmt: skip
    return Shown(one.image, one.caption, tuple(shots))


def _drawn(
    image: NDArray[np.uint8],
    truth: NDArray[np.bool_] | None,
    prediction: NDArray[np.bool_] | None,
    region: NDArray[np.bool_] | None,
) -> NDArray[np.uint8]:
    width = min(PICTURE_WIDTH, max(160, 3 * image.shape[1]))
    canvas = resized(image, width)
    if region is not None and not region.all():
        canvas = outlined(canvas, region, inks=(REGION_COLOUR, PREDICTION_COLOUR))
    return outlined(canvas, truth, prediction, inks=(TRUTH_COLOUR, PREDICTION_COLOUR))


def ordered(findings: Sequence[Finding]) -> list[Finding]:
    """The gravest first; within a severity in the diagnosis's own order."""
    return sorted(findings, key=lambda one: SEVERITIES.index(one.severity))
