"""Scores over the image, over masks and over what is predicted, and what they say without any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.networks import UNet, seeded
from unetcam import UNetCAM
from unetcam.errors import TargetError
from unetcam.targets import (
    Box,
    ClassScore,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
    class_count,
    predict,
)

LOGITS = torch.randn(2, 3, 5, 7, generator=torch.manual_seed(0), dtype=torch.float64)
MASK = torch.zeros(5, 7, dtype=torch.bool)
MASK[1:3, 2:6] = True


def value(target: Target, logits: torch.Tensor = LOGITS) -> torch.Tensor:
    return target.score(logits).value


@pytest.mark.parametrize(
    ("on", "transform"),
    [
        ("logits", lambda x: x),
        ("probability", lambda x: x.softmax(1)),
        ("log_probability", lambda x: x.log_softmax(1)),
    ],
)
def test_scores_are_means_of_the_scale_asked_for(on: str, transform: object) -> None:
    scores = transform(LOGITS)  # type: ignore[operator]
    torch.testing.assert_close(value(ClassScore(1, on=on)), scores[:, 1].mean((1, 2)))
    torch.testing.assert_close(value(Region(1, MASK, on=on)), scores[:, 1, MASK].mean(1))
    torch.testing.assert_close(value(Pixel(2, y=4, x=6, on=on)), scores[:, 2, 4, 6])
    for image in range(2):
        region = LOGITS[image].argmax(0) == 2
        expected = scores[image, 2, region].mean()
        torch.testing.assert_close(value(PredictedRegion(2, on=on))[image], expected)


def test_one_channel_has_a_foreground_and_its_negation() -> None:
    logits = LOGITS[:, :1]
    assert class_count(logits) == 2
    assert torch.equal(predict(logits), (logits[:, 0] > 0).long())
    torch.testing.assert_close(value(ClassScore(1), logits), logits.mean((1, 2, 3)))
    torch.testing.assert_close(value(ClassScore(0), logits), -logits.mean((1, 2, 3)))
    p = torch.sigmoid(logits).mean((1, 2, 3))
    torch.testing.assert_close(value(ClassScore(1, on="probability"), logits), p)
    torch.testing.assert_close(value(ClassScore(0, on="probability"), logits), 1 - p)
    both = value(ClassScore(0, on="log_probability"), logits[:1, :, :1, :1]).exp()
    both += value(ClassScore(1, on="log_probability"), logits[:1, :, :1, :1]).exp()
    torch.testing.assert_close(both, torch.ones(1, dtype=torch.float64))


def test_the_background_of_one_channel_is_explained_by_the_negated_logit() -> None:
    model = seeded(UNet(1, 1))
    images = torch.rand(1, 1, 16, 16)
    result = UNetCAM(model, ["up4"])(images)
    assert [t.class_index for t in result.targets] == [0, 1]

    class TwoChannels(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.net(x)
            return torch.cat([-z, z], dim=1)

    torch.testing.assert_close(
        result["up4"], UNetCAM(TwoChannels(), ["net.up4"])(images)["net.up4"]
    )


def test_masks_may_differ_between_the_images_of_a_batch() -> None:
    masks = torch.stack([MASK, ~MASK])
    for image, mask in enumerate(masks):
        expected = LOGITS[image, 0, mask].mean()
        torch.testing.assert_close(value(Region(0, masks))[image], expected)
    truth = np.where(MASK.numpy(), 2, 1)
    torch.testing.assert_close(value(TruthRegion(2, truth)), LOGITS[:, 2, MASK].mean(1))
    torch.testing.assert_close(value(TruthRegion(1, truth)), LOGITS[:, 1, ~MASK].mean(1))


def test_a_region_minds_its_class() -> None:
    assert not torch.equal(value(Region(0, MASK)), value(Region(1, MASK)))


def test_a_class_that_is_absent_gives_nan_and_never_a_hit() -> None:
    model, images = seeded(UNet(1, 3)), torch.rand(2, 1, 16, 16)
    truth = torch.zeros(2, 16, 16, dtype=torch.long)
    truth[1, 4:8, 4:8] = 2
    result = UNetCAM(model, ["up2", "up4"])(images, [TruthRegion(2, truth), ClassScore(2)])
    for layer in result.layers:
        assert result[layer][0, 0].isnan().all()
        assert not result[layer][1, 0].isnan().any()
        assert not result[layer][:, 1].isnan().any()
        assert not result.empty[layer][0, 0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (ClassScore(3), "asks for class 3, but the network gives 3 classes: use 0 to 2"),
        (ClassScore(-1), "asks for class -1"),
        (Region(0, np.ones((8, 8))), r"shape \(8, 8\), but the logits need \(16, 16\)"),
        (Region(0, torch.ones(3, 16, 16)), r"or \(2, 16, 16\) for one mask an image"),
        (TruthRegion(0, torch.ones(16, 8)), r"the shape \(16, 8\)"),
        (ClassScore(1.0), "whole number from 0 to 2, and this target asks for 1.0"),
        (1, "1 is no target: use those of unetcam.targets"),
        (Pixel(0, y=16, x=0), r"lies outside the logits, which have the size \(16, 16\)"),
        (Pixel(0, y=-1, x=0), "lies outside"),
        (Pixel(0, y=1, x=1, z=1), "has 3 coordinates, but the logits have 2"),
        (
            Box(0, y=(0, 17), x=(0, 1)),
            r"reaches outside the logits.* \(16, 16\)",
        ),
        (Box(0, y=(0, 1), x=(0, 1), z=(0, 1)), "has 3 ranges, but the logits have 2 .* y and x"),
        (ClassScore(0, within=np.ones((8, 8))), r"shape \(8, 8\), but the logits need \(16, 16\)"),
        (ClassScore(0, within=ClassScore(9)), "asks for class 9"),
    ],
)
def test_a_target_that_does_not_fit_says_so(target: Target, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        UNetCAM(seeded(UNet(1, 3)), ["up4"])(torch.rand(2, 1, 16, 16), [target])


def test_an_empty_region_is_a_mistake() -> None:
    empty = torch.ones(2, 16, 16)
    empty[1] = 0
    cam = UNetCAM(seeded(UNet(1, 3)), ["up4"])
    with pytest.raises(
        TargetError, match="mask of target 'class 1 in a region' is empty for image 1"
    ):
        cam(torch.rand(2, 1, 16, 16), [ClassScore(0), Region(1, empty)])


def test_no_target_at_all_and_an_unknown_scale_are_mistakes() -> None:
    with pytest.raises(TargetError, match="at least one target"):
        UNetCAM(UNet(1, 3), ["up4"])(torch.rand(1, 1, 16, 16), [])
    with pytest.raises(TargetError, match="on='logit' is no scale"):
        ClassScore(0, on="logit")  # type: ignore[arg-type]


def test_a_box_is_a_slice() -> None:
    torch.testing.assert_close(
        value(Box(1, y=(1, 3), x=(2, 7))), LOGITS[:, 1, 1:3, 2:7].mean((1, 2))
    )
    volume = LOGITS.view(2, 3, 5, 7, 1).expand(2, 3, 5, 7, 4)
    torch.testing.assert_close(
        value(Box(0, z=(0, 2), y=(6, 7), x=(0, 4), on="probability"), volume),
        volume.softmax(1)[:, 0, 0:2, 6:7].mean((1, 2, 3)),
    )
    assert Box(1, y=(1, 3), x=(2, 7)).name == "class 1 in box y 1:3 x 2:7"
    for wrong in ((3, 3), (4, 2), (-1, 2)):
        with pytest.raises(TargetError, match="holds no pixel"):
            Box(0, y=wrong, x=(0, 1))
    for wrong in (3, (1,), (1, 2, 3), ("a", "b")):
        with pytest.raises(TargetError, match="is no range of a box"):
            Box(0, y=(0, 1), x=wrong)


def test_any_region_narrows_to_that_of_another() -> None:
    """The score of one class, over what is predicted as another, inside a mask."""
    predicted = LOGITS.argmax(1) == 2
    target = PredictedRegion(2, within=MASK)
    for narrowed in (target, Region(2, MASK, within=PredictedRegion(2))):
        assert torch.equal(narrowed.pixels(LOGITS), predicted & MASK)
    for image in range(2):
        expected = LOGITS[image, 0, predicted[image] & MASK].mean()
        torch.testing.assert_close(value(ClassScore(0, within=target))[image], expected)
    nested = ClassScore(1, within=Box(0, y=(0, 3), x=(0, 7), within=target))
    rows = torch.zeros(5, 7, dtype=torch.bool)
    rows[:3] = True
    assert torch.equal(nested.pixels(LOGITS), predicted & MASK & rows)
    assert target.name == "predicted region of class 2 within a region"
    assert ClassScore(1, within=Pixel(0, y=1, x=2)).name == "class 1 within pixel (1, 2)"


def test_where_nothing_is_left_there_is_no_map_and_no_mistake() -> None:
    nothing = torch.zeros(16, 16)
    cam = UNetCAM(seeded(UNet(1, 3)), ["up4"])
    wanted = [ClassScore(0, within=nothing), Region(1, torch.ones(16, 16), within=nothing)]
    assert cam(torch.rand(1, 1, 16, 16), wanted)["up4"].isnan().all()


def test_a_multi_label_head_predicts_each_channel_by_its_sign() -> None:
    for image in range(2):
        region = LOGITS[image, 1] > 0
        target = PredictedRegion(1, head="sigmoid", on="probability")
        expected = LOGITS[image, 1, region].sigmoid().mean()
        torch.testing.assert_close(value(target)[image], expected)
        assert target.score(LOGITS).channel == 1
    single = LOGITS[:, :1]
    for c in (0, 1):
        one, other = (value(PredictedRegion(c, head=h), single) for h in ("softmax", "sigmoid"))
        assert torch.equal(one, other)


def test_the_prediction_is_made_anew_when_the_logits_change() -> None:
    logits = LOGITS.clone()
    before = PredictedRegion(0).pixels(logits)
    logits[:, 0] += 100
    assert not before.all()
    assert PredictedRegion(0).pixels(logits).all()
    with torch.inference_mode():
        inside = LOGITS + 0
        assert torch.equal(PredictedRegion(0).pixels(inside), before)


def test_targets_are_equal_where_all_they_are_made_of_is() -> None:
    same = [Region(1, MASK), Region(1, MASK.clone()), Region(1, MASK.numpy())]
    assert len({*same}) == 1
    others = [Region(2, MASK), Region(1, ~MASK), Region(1, MASK[:4]), TruthRegion(1, MASK)]
    others += [Region(1, MASK, on="probability"), Region(1, MASK, within=MASK), ClassScore(1)]
    assert len({same[0], *others}) == 1 + len(others)
    assert Region(1, MASK, within=MASK) == Region(1, MASK, within=MASK.clone())
    assert ClassScore(1) != "class 1"


@pytest.mark.parametrize("shape", [(3, 2), (3, 1)], ids=["two classes", "one channel"])
def test_a_classifiers_logits_are_a_map_of_one_pixel(shape: tuple[int, int]) -> None:
    logits = torch.randn(shape, generator=torch.manual_seed(0))
    torch.testing.assert_close(value(ClassScore(1), logits), logits[:, -1])
    predicted = PredictedRegion(1).score(logits)
    assert torch.equal(predicted.defined, predict(logits) == 1)


def test_targets_are_frozen_values_with_names() -> None:
    assert ClassScore(1) == ClassScore(1)
    assert ClassScore(1) != ClassScore(2)
    assert Pixel(1, y=2, x=3).name == "class 1 at pixel (2, 3)"
    with pytest.raises(AttributeError):
        ClassScore(1).class_index = 2  # type: ignore[misc]
    with pytest.raises(AttributeError):
        Region(1, MASK).mask = MASK  # type: ignore[misc]


@given(st.integers(0, 2), st.floats(-3, 3), st.integers(0, 2**32 - 1))
def test_a_shift_of_all_logits_moves_a_score_by_as_much(
    class_index: int, shift: float, seed: int
) -> None:
    """1e-12 absolute in float64; a softmax does not move at all."""
    logits = torch.randn(1, 3, 4, 4, generator=torch.manual_seed(seed), dtype=torch.float64)
    moved = value(ClassScore(class_index), logits + shift)
    torch.testing.assert_close(moved, value(ClassScore(class_index), logits) + shift)
    a, b = (value(ClassScore(class_index, on="probability"), x) for x in (logits, logits + shift))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
