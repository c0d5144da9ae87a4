"""Contrasts are differences of scores, in any region."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.reference import assert_mean_over, case, seed_of, tolerance
from unetcam.errors import TargetError
from unetcam.targets import (
    ClassScore,
    Contrast,
    FalsePositives,
    PredictedRegion,
    Scale,
    TruthRegion,
)

KINDS = [
    pytest.param(dims, channels, dtype, id=f"{dims}-D {channels} channels {str(dtype)[6:]}")
    for dims in (2, 3)
    for channels in (1, 3)
    for dtype in (torch.float32, torch.float64)
]
SCALES = ["logits", "probability", "log_probability"]
HEADS = ["softmax", "sigmoid"]


@pytest.mark.parametrize(("dims", "channels", "dtype"), KINDS)
@pytest.mark.parametrize("on", SCALES)
@pytest.mark.parametrize("head", HEADS)
def test_values_are_differences_of_scores(
    dims: int, channels: int, dtype: torch.dtype, on: Scale, head: str
) -> None:
    found = case(dims, channels, dtype)
    images = range(found.batch)
    scores = [found.scores(i, on, head) for i in images]
    everywhere = [np.ones(found.truth.shape[1:], bool)] * found.batch
    for c in range(found.classes):
        others = [np.delete(s, c, axis=0).max(0) for s in scores]
        values = [s[c] - other for s, other in zip(scores, others, strict=True)]
        assert_mean_over(Contrast(c, on=on, head=head), found, everywhere, values)
        truths = [found.truth[i].numpy() for i in images]
        own = [
            np.take_along_axis(s, np.maximum(t, 0)[None], axis=0)[0]
            for s, t in zip(scores, truths, strict=True)
        ]
        values = [s[c] - true for s, true in zip(scores, own, strict=True)]
        regions = [(t >= 0) & (t != c) for t in truths]
        target = Contrast(c, found.truth, on=on, head=head)
        assert_mean_over(target, found, regions, values)
        if head == "softmax":
            wrong = [found.false_positives(i, c) for i in images]
            target = Contrast(c, found.truth, on=on, within=FalsePositives(c, found.truth))
            assert_mean_over(target, found, wrong, values)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(0, 1), (0, 2), (2, 1)]),
    st.sampled_from(SCALES),
    st.sampled_from([None, PredictedRegion(0), PredictedRegion(2)]),
)
def test_a_contrast_with_a_class_is_the_difference_of_two_scores(
    seed: int, classes: tuple[int, int], on: Scale, within: PredictedRegion | None
) -> None:
    """Also of their gradients; float64, to 1e-12."""
    (c, d), found = classes, case(seed=seed)
    contrast = Contrast(c, against=d, on=on, within=within)
    parts = [ClassScore(index, on=on, within=within) for index in (c, d)]
    one, other = (part.score(found.logits) for part in parts)
    ours = contrast.score(found.logits)
    torch.testing.assert_close(ours.value, one.value - other.value, rtol=1e-12, atol=1e-12)
    assert torch.equal(ours.defined, one.defined)
    flowing = seed_of(parts[0], found.logits) - seed_of(parts[1], found.logits)
    torch.testing.assert_close(seed_of(contrast, found.logits), flowing, rtol=1e-12, atol=1e-14)
    back = Contrast(d, against=c, on=on, within=within).score(found.logits)
    torch.testing.assert_close(back.value, -ours.value, rtol=1e-12, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_the_runner_up_of_a_predicted_class_is_a_margin(seed: int, c: int) -> None:
    found = case(seed=seed)
    margin = Contrast(c, within=PredictedRegion(c)).score(found.logits)
    assert (margin.value[margin.defined] > 0).all()
    missed = Contrast(c, within=TruthRegion(c, (found.logits.argmax(1) + 1) % 3))
    score = missed.score(found.logits)
    assert (score.value[score.defined] < 0).all()


def test_seeds_written_by_hand() -> None:
    logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]], [[4.0, 5.0]]]], dtype=torch.float64)
    half = 0.5
    runner_up = [[[0, 0]], [[half, half]], [[-half, -half]]]
    assert seed_of(Contrast(1), logits).tolist() == [runner_up]
    named = [[[-half, -half]], [[half, half]], [[0, 0]]]
    assert seed_of(Contrast(1, 0), logits).tolist() == [named]
    truth = [[[0, 0]], [[1, 0]], [[-1, 0]]]  # the second pixel is of class 1 itself
    assert seed_of(Contrast(1, [[2, 1]]), logits).tolist() == [truth]
    assert seed_of(Contrast(1, [[2, -1]]), logits).tolist() == [truth]


def test_foreground_against_background_of_one_channel() -> None:
    logits = torch.randn(2, 1, 4, 4, generator=torch.manual_seed(0), dtype=torch.float64)
    for target in (Contrast(1), Contrast(1, 0), Contrast(1, torch.zeros(4, 4))):
        torch.testing.assert_close(target.score(logits).value, 2 * logits.mean((1, 2, 3)))
        assert target.score(logits).channel is None
    log_odds = Contrast(1, 0, on="log_probability").score(logits).value
    torch.testing.assert_close(log_odds, logits.mean((1, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_on_a_softmax_head_logits_and_log_probabilities_contrast_alike(dtype: torch.dtype) -> None:
    found = case(dtype=dtype)
    for against in (0, "runner_up", found.truth):
        one, other = (
            Contrast(2, against, on=on).score(found.logits).value
            for on in ("logits", "log_probability")
        )
        torch.testing.assert_close(one, other, **tolerance(dtype))


def test_where_the_truth_is_the_class_itself_there_is_no_contrast() -> None:
    truth = torch.full((2, 4, 4), 1)
    truth[0, 0, 0] = 2
    truth[1, 0, 0] = -1
    score = Contrast(1, truth).score(torch.randn(2, 3, 4, 4, generator=torch.manual_seed(0)))
    assert score.defined.tolist() == [True, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Contrast(1, 1), "Class 1 can't be contrasted with itself"),
        (lambda: Contrast(1, "runner-up"), "against='runner-up' is nothing to contrast with"),
        (lambda: Contrast(1, 3).check(torch.zeros(1, 3, 2, 2)), "asks for class 3"),
        (lambda: Contrast(1, [[0, 9]]).check(torch.zeros(1, 3, 1, 2)), "holds the value 9"),
        (lambda: Contrast(1, [[0]]).check(torch.zeros(1, 3, 1, 2)), r"has the shape \(1, 1\)"),
    ],
)
def test_a_contrast_that_is_none_says_so(make: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        make()  # type: ignore[operator]


def test_names() -> None:
    assert Contrast(1).name == "class 1 against the runner-up"
    assert Contrast(1, 2, within=[[1]]).name == "class 1 against class 2 within a region"
    wrong = FalsePositives(1, [[0]])
    expected = "class 1 against the truth within false positives of class 1"
    assert Contrast(1, [[0]], within=wrong).name == expected
