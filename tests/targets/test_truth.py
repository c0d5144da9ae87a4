"""Errors as regions: what each holds, what it scores, and where it says nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.targets.reference import (
    Case,
    assert_mean_over,
    band,
    case,
    components,
    seed_of,
    seed_over,
)
from unetcam.errors import TargetError
from unetcam.targets import (
    BoundaryErrors,
    ClassScore,
    Confusion,
    FalseNegatives,
    FalsePositives,
    MissedComponents,
    PredictedRegion,
    RegionScore,
    TruthRegion,
)

KINDS = [
    pytest.param(dims, channels, dtype, id=f"{dims}-D {channels} channels {str(dtype)[6:]}")
    for dims in (2, 3)
    for channels in (1, 3)
    for dtype in (torch.float32, torch.float64)
]


def assert_explains(target: RegionScore, found: Case, regions: list[np.ndarray]) -> None:
    c = target.class_index
    values = [found.scores(image)[c] for image in range(found.batch)]
    assert_mean_over(target, found, regions, values)
    torch.testing.assert_close(seed_of(target, found.logits), seed_over(found, regions, c))


@pytest.mark.parametrize(("dims", "channels", "dtype"), KINDS)
def test_errors_hold_the_pixels_they_are_named_after(
    dims: int, channels: int, dtype: torch.dtype
) -> None:
    found = case(dims, channels, dtype)
    images = range(found.batch)
    for c in range(found.classes):
        made_up = [found.false_positives(i, c) for i in images]
        missed = [found.false_negatives(i, c) for i in images]
        assert_explains(FalsePositives(c, found.truth), found, made_up)
        assert_explains(FalseNegatives(c, found.truth), found, missed)
        for width in (1.0, 1.5):
            near = [
                band(found.true(i, c), found.known(i) & ~found.true(i, c), width)
                & (made_up[i] | missed[i])
                for i in images
            ]
            assert_explains(BoundaryErrors(c, found.truth, width=width), found, near)
        for other in set(range(found.classes)) - {c}:
            taken = [found.true(i, other) & found.predicted(i, c) for i in images]
            assert_explains(Confusion(other, c, found.truth), found, taken)


@pytest.mark.parametrize(("dims", "channels", "dtype"), KINDS)
def test_missed_components_are_those_without_a_predicted_pixel(
    dims: int, channels: int, dtype: torch.dtype
) -> None:
    found = case(dims, channels, dtype)
    sparse = torch.rand(found.truth.shape, generator=torch.manual_seed(1)) < 0.2
    found = Case(found.logits, torch.where(sparse, 1, 0))
    missed = []
    for image in range(found.batch):
        parts = components(found.true(image, 1))
        unmet = [part for part in parts if not (part & found.predicted(image, 1)).any()]
        missed.append(np.logical_or.reduce(unmet) if unmet else np.zeros_like(parts[0]))
        assert len(unmet) < len(parts)
    assert any(region.any() for region in missed)
    assert_explains(MissedComponents(1, found.truth), found, missed)


def test_an_image_without_the_error_is_undefined() -> None:
    logits = torch.randn(2, 3, 6, 6, generator=torch.manual_seed(0))
    truth = logits.argmax(1)
    truth[1, 0, 0] = (truth[1, 0, 0] + 1) % 3
    wrong, right = int(logits.argmax(1)[1, 0, 0]), int(truth[1, 0, 0])
    for target in (
        FalsePositives(wrong, truth),
        FalseNegatives(right, truth),
        Confusion(right, wrong, truth),
    ):
        assert target.score(logits).defined.tolist() == [False, True]
        assert not seed_of(target, logits)[0].any()
    perfect = logits.argmax(1)
    for c in range(3):
        for kind in (FalsePositives, FalseNegatives, BoundaryErrors, MissedComponents):
            assert kind(c, perfect).score(logits).defined.tolist() == [False, False]


def test_an_ignored_pixel_counts_nowhere() -> None:
    found = case()
    ignored = torch.full_like(found.truth, -1)
    for c in range(3):
        for kind in (FalsePositives, FalseNegatives, BoundaryErrors, MissedComponents, TruthRegion):
            assert not kind(c, ignored).score(found.logits).defined.any()
    # A class that fills all of the known truth has no contour, and none along what is ignored.
    truth = torch.tensor([[1, 1, -1, -1]])
    logits = torch.zeros(1, 2, 1, 4)
    logits[:, 0] = 1  # everything is missed
    assert FalseNegatives(1, truth).score(logits).defined.all()
    assert not BoundaryErrors(1, truth).score(logits).defined.any()


def test_several_labels_have_errors_of_their_own() -> None:
    """Worked by hand: three pixels, two classes, each channel a sigmoid."""
    logits = torch.tensor([[[[2.0, -1.0, 3.0]], [[1.0, 4.0, -5.0]]]])  # predicted 101, 110
    truth = torch.tensor([[[1, 1, -1]], [[0, 0, 1]]])  # (C, 1, 3)
    sigmoid = {"head": "sigmoid"}
    expected = {
        TruthRegion(0, truth, **sigmoid): 0.5,
        TruthRegion(1, truth, **sigmoid): -5.0,
        FalseNegatives(0, truth, **sigmoid): -1.0,
        FalseNegatives(1, truth, **sigmoid): -5.0,
        FalsePositives(1, truth, **sigmoid): 2.5,
        Confusion(0, 1, truth, **sigmoid): 4.0,
        MissedComponents(1, truth, **sigmoid): -5.0,
        BoundaryErrors(1, truth, width=1, **sigmoid): -0.5,
        PredictedRegion(0, **sigmoid): 2.5,
    }
    for target, value in expected.items():
        score = target.score(logits)
        assert (score.value.item(), score.defined.item()) == (value, True)
        assert score.channel == target.class_index
    for target in (
        FalsePositives(0, truth, **sigmoid),  # the pixel is ignored for class 0
        Confusion(1, 0, truth, **sigmoid),
        MissedComponents(0, truth, **sigmoid),
    ):
        assert not target.score(logits).defined.item()
    p = FalsePositives(1, truth, on="probability", **sigmoid).score(logits)
    torch.testing.assert_close(p.value, torch.tensor([1.0, 4.0]).sigmoid().mean()[None])
    assert p.channel == 1
    assert FalsePositives(1, truth[0], on="probability").score(logits).channel is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 3]), st.sampled_from([2, 3]))
def test_right_and_wrong_pixels_make_up_the_predicted_and_the_true_region(
    seed: int, channels: int, dims: int
) -> None:
    """FP and TP are what is predicted of the known pixels; FN and TP are the truth."""
    found = case(dims, channels, seed=seed)
    truth, logits = found.truth, found.logits
    for c in range(found.classes):
        predicted, true = PredictedRegion(c), TruthRegion(c, truth)
        both = PredictedRegion(c, within=true).pixels(logits)
        fp = FalsePositives(c, truth).pixels(logits)
        fn = FalseNegatives(c, truth).pixels(logits)
        assert not (fp & both).any()
        assert not (fn & both).any()
        assert torch.equal(fp | both, predicted.pixels(logits) & (truth >= 0))
        assert torch.equal(fn | both, true.pixels(logits))
        pairs = [
            Confusion(i, c, truth).pixels(logits).int() for i in range(found.classes) if i != c
        ]
        assert torch.equal(sum(pairs), fp.int())
        assert not (BoundaryErrors(c, truth).pixels(logits) & ~(fp | fn)).any()
        assert not (MissedComponents(c, truth).pixels(logits) & ~fn).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["logits", "probability", "log_probability"]))
def test_the_score_of_a_region_is_the_mean_of_its_parts_weighted_by_their_pixels(
    seed: int, on: str
) -> None:
    """Float64, to 1e-12."""
    found = case(seed=seed)
    for c in range(3):
        whole = TruthRegion(c, found.truth, on=on)
        parts = [
            FalseNegatives(c, found.truth, on=on),
            TruthRegion(c, found.truth, on=on, within=PredictedRegion(c)),
        ]
        weighted = sum(p.score(found.logits).value * size(p, found) for p in parts)
        expected = whole.score(found.logits).value * size(whole, found)
        torch.testing.assert_close(weighted, expected, rtol=1e-12, atol=1e-12)


def size(target: RegionScore, found: Case) -> torch.Tensor:
    return target.pixels(found.logits).flatten(1).sum(1)


def test_a_confusion_keeps_its_two_classes_apart() -> None:
    truth = torch.zeros(2, 2, dtype=torch.long)
    target = Confusion(truth=0, predicted=2, mask=truth)
    assert (target.truth, target.predicted, target.class_index) == (0, 2, 2)
    assert target.name == "class 0 taken for class 2"
    with pytest.raises(TargetError, match="Class 1 can't be confused with itself"):
        Confusion(1, 1, truth)
    with pytest.raises(TargetError, match="asks for class 5, but the network gives 3 classes"):
        Confusion(5, 1, truth).check(torch.zeros(1, 3, 2, 2))


@pytest.mark.parametrize(
    ("truth", "options", "message"),
    [
        (torch.full((4, 4), 255), {}, r"holds the value 255: use classes 0 to 2, and -1 for"),
        (torch.full((4, 4), -2), {}, "holds the value -2"),
        (torch.zeros(4, 5), {}, r"has the shape \(4, 5\), but the logits need \(4, 4\)"),
        (torch.zeros(2, 4, 4), {"head": "sigmoid"}, r"logits need \(3, 4, 4\)"),
        (torch.full((3, 4, 4), 2), {"head": "sigmoid"}, "the value 2: use 1 and 0 for each"),
        ([["a"]], {}, "is none: give numbers"),
        (torch.zeros(4, 4), {"head": "tanh"}, "head='tanh' is no kind of head: use one of softmax"),
    ],
)
def test_a_truth_that_says_nothing_is_refused(
    truth: object, options: dict[str, str], message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        FalsePositives(1, truth, **options).check(torch.zeros(2, 3, 4, 4))


def test_a_width_without_a_pixel_is_refused() -> None:
    for width in (0.5, float("nan"), float("inf")):
        with pytest.raises(TargetError, match="can't hold one: use a width of 1 or more"):
            BoundaryErrors(0, [[0]], width=width)


def test_a_truth_may_be_of_any_kind_of_whole_numbers() -> None:
    found = case()
    known = found.truth.clamp(min=0)
    expected = FalsePositives(1, known).score(found.logits).value
    for dtype in (np.uint8, np.uint16, np.int32, np.float32):
        score = FalsePositives(1, known.numpy().astype(dtype)).score(found.logits)
        torch.testing.assert_close(score.value, expected)
    as_tensor = FalseNegatives(1, known.to(torch.uint16)).score(found.logits)
    torch.testing.assert_close(as_tensor.value, FalseNegatives(1, known).score(found.logits).value)


def test_the_score_may_be_of_another_class_than_the_errors() -> None:
    found = case()
    wrong = FalsePositives(2, found.truth)
    for image in range(found.batch):
        region = found.false_positives(image, 2)
        expected = found.scores(image)[0][region].mean()
        score = ClassScore(0, within=wrong).score(found.logits)
        assert score.value[image].item() == pytest.approx(expected, rel=1e-12)
        assert score.channel == 0


def test_a_truth_of_yes_and_no_is_one_of_two_classes() -> None:
    found = case(channels=1)
    truth = found.truth == 1
    FalseNegatives(1, truth).check(found.logits)
    ours, expected = (FalseNegatives(1, t).score(found.logits) for t in (truth, truth.long()))
    assert torch.equal(ours.value, expected.value)


def test_a_classifiers_mistakes_are_those_of_one_pixel() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [5.0, 1.0]])
    truth = torch.tensor([1, 1, -1])
    for target, defined, value in (
        (FalsePositives(0, truth), [True, False, False], 2.0),
        (FalseNegatives(1, truth), [True, False, False], 1.0),
    ):
        target.check(logits)
        score = target.score(logits)
        assert score.defined.tolist() == defined
        assert score.value.tolist() == [value, 0, 0]
