"""A diagnosis as it is shown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.page.synthetic import Run
from unetcam.diagnosis import Diagnosis, Finding
from unetcam.page.findings import (
    MOST_SHOWN,
    card,
    healthy_sentence,
    kind_lines,
    ordered,
    record_lines,
)

NAN = float("nan")


@pytest.fixture
def finding(run: Run) -> Finding:
    return run.diagnosis().findings[0]


def test_shares_are_written_in_percent_and_other_effects_as_numbers(finding: Finding) -> None:
    assert card(finding).effect == "42\u00a0%"
    assert card(finding).interval == "31\u00a0% to 55\u00a0%"
    dice = replace(finding, effect_unit="change of the class's Dice")
    assert card(dice).effect == "0.42"
    assert card(dice).bars == ()


def test_the_bars_hold_effect_control_and_interval(finding: Finding) -> None:
    effect, control = card(finding).bars
    assert (effect.value, effect.low, effect.high) == (0.42, 0.31, 0.55)
    assert control.value == 0.011
    (alone,) = card(replace(finding, control=NAN)).bars
    assert alone.title == "effect"
    assert card(replace(finding, control=NAN)).control == ""


def test_an_effect_that_cannot_be_drawn_is_still_written(finding: Finding) -> None:
    odd = card(replace(finding, effect=1.7, interval=(NAN, NAN)))
    assert odd.bars[0].value == 1.0
    assert odd.interval == ""


def test_a_gain_is_told_only_where_something_is_gained(finding: Finding) -> None:
    assert card(finding).gain == "Without it the IoU of elsewhere would be 0.12 higher."
    whole = replace(finding, class_name="", class_index=None)
    assert "the mean IoU" in card(whole).gain
    for gain in (None, NAN, 0.0, -0.1):
        assert card(replace(finding, gain=gain)).gain == ""


def test_before_and_after_are_drawn_with_their_masks(finding: Finding) -> None:
    (shown,) = card(finding).shown
    assert [shot.title for shot in shown.shots] == ["as it is", "changed"]
    assert shown.shots[0].source != shown.shots[1].source


def test_evidence_without_pictures_has_none(finding: Finding) -> None:
    (evidence,) = finding.evidence
    bare = replace(evidence, before=None, after=None)
    (shown,) = card(replace(finding, evidence=(bare,))).shown
    assert shown.shots == ()
    assert card(replace(finding, evidence=())).shown == ()
    many = card(replace(finding, evidence=(evidence,) * 9))
    assert len(many.shown) == MOST_SHOWN


def test_a_hidden_region_is_outlined(finding: Finding) -> None:
    (evidence,) = finding.evidence
    (outlined,) = card(finding).shown
    (plain,) = card(replace(finding, evidence=(replace(evidence, region=None),))).shown
    assert outlined.shots[0].source != plain.shots[0].source
    assert outlined.shots[1].source == plain.shots[1].source


@pytest.mark.parametrize("shape", [(1, 1), (300, 1), (1, 300)])
def test_evidence_of_any_shape_is_drawn(finding: Finding, shape: tuple[int, int]) -> None:
    (evidence,) = finding.evidence
    odd = replace(
        evidence, before=np.zeros((*shape, 3), np.uint8), after=np.ones((*shape, 3), np.uint8),
        truth=np.ones(shape, bool), mask_before=np.ones(shape, bool),
        mask_after=np.zeros(shape, bool), region=np.ones(shape, bool),
    )  # fmt: skip
    (shown,) = card(replace(finding, evidence=(odd,))).shown
    assert all(shot.height <= 2 * 360 and shot.width <= 360 for shot in shown.shots)


def test_the_gravest_finding_comes_first(finding: Finding) -> None:
    mixed = [replace(finding, severity=s) for s in ("low", "high", "medium")]
    assert [one.severity for one in ordered(mixed)] == ["high", "medium", "low"]


def test_a_healthy_network_is_told_what_was_tested(run: Run) -> None:
    healthy = run.diagnosis(healthy=True)
    said = healthy_sentence(healthy)
    assert said.startswith("2 kinds of fault were looked for in 10 tests, each on 8 images")
    tests = healthy.tests
    fewer = replace(healthy, tests=(replace(tests[0], tested=5), *tests[1:]))
    assert "each on 5 to 8 images" in healthy_sentence(fewer)
    nothing = Diagnosis((), tuple(replace(t, tested=0) for t in tests), 1.0, 0)
    assert "No question could be asked" in healthy_sentence(nothing)
    assert "No question could be asked" in healthy_sentence(Diagnosis((), (), 1.0, 0))


def test_each_kind_says_its_largest_effect_and_what_would_have_been_seen(run: Run) -> None:
    healthy = run.diagnosis(healthy=True)
    first = replace(healthy.tests[0], smallest_effect=0.2, tested=5)
    line, other = kind_lines(replace(healthy, tests=(first, *healthy.tests[1:])))
    assert line.title == "A class leans on what is around it"
    assert line.images == "5 to 8"
    assert line.most == "42\u00a0% (elsewhere)"
    assert line.seen_from == "20\u00a0%"  # holds for every class
    assert other.images == "8"
    untested = tuple(replace(t, tested=0) for t in healthy.tests)
    assert kind_lines(replace(healthy, tests=untested)) == []


def test_confirmed_tests_stand_first(run: Run) -> None:
    lines = record_lines(run.diagnosis())
    assert [line.confirmed for line in lines] == [True] + [False] * 9
    assert lines[0].class_name == "elsewhere"
