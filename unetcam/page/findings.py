"""A diagnosis as it stands on the page: findings with their pictures, and the tests behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from unetcam.page.overlays import PREDICTION_COLOUR, TRUTH_COLOUR, encoded, outlined, resized
from unetcam.page.text import number, percent, plural

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
    """A kind's name as a heading.

    >>> kind_title("leans-on-surroundings")
    'Leans on surroundings'
    """
    return kind.replace("-", " ").capitalize()


def card(finding: Finding) -> Card:
    """A finding with its numbers written and its pictures drawn."""
    share = is_share(finding)
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
            (name.replace("_", " "), value if isinstance(value, str) else number(value))
            for name, value in finding.details.items()
        ),
        shown=tuple(_shown(one) for one in finding.evidence[:MOST_SHOWN]),
    )


def is_share(finding: Finding) -> bool:
    """Whether a finding's effect is a share, to be written in percent."""
    return finding.effect_unit.startswith("share")


def record_lines(diagnosis: Diagnosis) -> list[RecordLine]:
    """Every test of a diagnosis: the confirmed ones first, then in the order of the asking."""
    return [_record_line(one) for one in sorted(diagnosis.tests, key=lambda t: not t.confirmed)]


def healthy_sentence(diagnosis: Diagnosis) -> str:
    """What a diagnosis without findings amounts to.

    It names what was asked, on how many images, and what would have been seen.
    """
    asked = [one for one in diagnosis.tests if one.tested]
    if not asked:
        return "No question could be asked of this network; the reasons stand below."
    kinds = len({one.kind for one in asked})
    least, most = min(one.tested for one in asked), max(one.tested for one in asked)
    images = plural(most, "image") if least == most else f"{least} to {plural(most, 'image')}"
    said = (
        f"{plural(len(asked), 'test')} of {plural(kinds, 'kind')} of fault were made, each on "
        f"{images}, and none was confirmed."
    )
    weakest = max(
        (one for one in asked if isfinite(one.smallest_effect)),
        key=lambda one: one.smallest_effect, default=None,
    )  # fmt: skip
    if weakest is None:
        return said
    about = f" of {weakest.class_name}" if weakest.class_name else ""
    return (
        f"{said} How small an effect each would have seen stands below; the least sensitive, "
        f"\u201c{kind_title(weakest.kind).lower()}\u201d{about}, would have seen one of "
        f"{number(weakest.smallest_effect)}."
    )


def _record_line(one: TestRecord) -> RecordLine:
    return RecordLine(
        title=kind_title(one.kind),
        class_name=one.class_name,
        tested=one.tested,
        confirmed=one.confirmed,
        effect=number(one.effect),
        control=number(one.control),
        smallest_effect=number(one.smallest_effect),
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
