"""What each target explains, and what it says where it can't."""

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
