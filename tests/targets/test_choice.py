"""Functions as targets, another target for each image, and targets that are chosen late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.networks import UNet, seeded
from tests.targets.reference import seed_of
from unetcam import UNetCAM
from unetcam.errors import TargetError
from unetcam.targets import (
    Choice,
    ClassScore,
    Component,
    Confusion,
    Contrast,
    FalsePositives,
    Function,
    PerImage,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
    as_targets,
)

LOGITS = torch.randn(3, 3, 6, 5, generator=torch.manual_seed(0), dtype=torch.float64)
IMAGES = torch.rand(3, 1, 16, 16, generator=torch.manual_seed(1))


def first_class(logits: Tensor) -> Tensor:
    return logits[:, 0].mean((1, 2))


def test_a_function_is_a_target_named_after_itself() -> None:
    target = Function(first_class)
    assert target.name == "first_class"
    assert Function(first_class, name="mine").name == "mine"
    assert target == Function(first_class)
    assert Function(torch.nn.Flatten()).name == "Flatten"
    torch.testing.assert_close(target.score(LOGITS).value, ClassScore(0).score(LOGITS).value)
    assert target.score(LOGITS).channel is None
    torch.testing.assert_close(seed_of(target, LOGITS), seed_of(ClassScore(0), LOGITS))


def test_functions_stand_in_the_list_or_alone() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)), ["up3"])
    result = cam(IMAGES, [first_class, ClassScore(1), lambda z: z[:, 1].mean((1, 2))])
    assert [target.name for target in result.targets] == ["first_class", "class 1", "<lambda>"]
    maps = result["up3"]
    torch.testing.assert_close(maps[:, 1], maps[:, 2], rtol=1e-5, atol=1e-8)
    alone = cam(IMAGES, first_class)["up3"]
    torch.testing.assert_close(alone[:, 0], maps[:, 0], rtol=1e-5, atol=1e-8)
    one = cam(IMAGES[:1], lambda z: z[0, 0].mean())["up3"]
    torch.testing.assert_close(one[:, 0], maps[:1, 0], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "masked_mean",
    [
        lambda z, m: (z[:, 0] * m).sum((1, 2)) / m.sum((1, 2)),
        lambda z, m: torch.stack([z[i, 0][m[i] > 0].mean() for i in range(len(z))]),
    ],
    ids=["quotient", "selection"],
)
def test_an_image_whose_score_is_nan_has_no_map_and_spoils_no_other(masked_mean: object) -> None:
    masks = torch.zeros(3, 16, 16)
    masks[0, 2:9, 4:9] = masks[2, 5:] = 1

    def score(logits: Tensor) -> Tensor:
        return masked_mean(logits, masks)  # type: ignore[operator]

    cam = UNetCAM(seeded(UNet(1, 3)), ["up2"])
    found, expected = cam(IMAGES, [score, TruthRegion(0, 1 - masks)])["up2"].unbind(1)
    assert found[1].isnan().all()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8, equal_nan=True)
    assert not seed_of(Function(score), cam(IMAGES).logits)[1].any()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda z: z.mean(), r"'<lambda>' gave \(\) for 3 images: return a floating point tensor"),
        (lambda z: z[:, 0], r"gave \(3, 16, 16\) for 3 images"),
        (lambda z: z.argmax(1).sum((1, 2)), r"gave \(3,\) for 3 images: return a floating"),
        (lambda z: 1.0, "gave float for 3 images"),
        (lambda z: z.detach().mean((1, 2, 3)), "is cut off from the logits"),
    ],
)
def test_a_function_that_gives_no_score_says_so(function: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        UNetCAM(seeded(UNet(1, 3)), ["up3"])(IMAGES, function)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [1, "class 1", ClassScore, [ClassScore(0), 2], [ClassScore]])
def test_what_is_no_target_is_refused(given: object) -> None:
    with pytest.raises(TargetError, match=r"is no target: use those of unetcam\.targets"):
        UNetCAM(seeded(UNet(1, 3)), ["up3"])(IMAGES, given)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="is no function of the logits"):
        Function(3)  # type: ignore[arg-type]


def test_each_image_may_have_a_target_of_its_own() -> None:
    each: list[Target] = [
        ClassScore(2),
        Contrast(0, 1, within=PredictedRegion(0)),
        Pixel(1, y=2, x=3, on="probability"),
    ]
    together = PerImage(each)
    score = together.score(LOGITS)
    for image, target in enumerate(each):
        alone = target.score(LOGITS[image : image + 1])
        torch.testing.assert_close(score.value[image], alone.value[0])
        assert score.defined[image] == alone.defined[0]
        torch.testing.assert_close(seed_of(together, LOGITS)[image], seed_of(target, LOGITS)[image])
    assert score.channel is None
    assert PerImage([ClassScore(2)] * 3).score(LOGITS).channel == 2
    assert hash(together) == hash(PerImage(each))
    assert together == PerImage(each)
    assert PerImage([ClassScore(2)] * 3).name == "class 2"
    assert PerImage(each[:2]).name == (
        "by image: class 2; class 0 against class 1 within predicted region of class 0"
    )


def test_maps_of_each_image_are_those_of_its_target() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)), ["up2", "up4"])
    each = [ClassScore(2), first_or_none, Region(1, torch.ones(16, 16))]
    result = cam(IMAGES, [PerImage(each), ClassScore(0)])
    expected = cam(IMAGES, [ClassScore(2), ClassScore(0), ClassScore(1)])
    for layer in result.layers:
        for image, of in enumerate((0, None, 2)):
            ours = result[layer][image, 0]
            if of is None:
                assert ours.isnan().all()
            else:
                theirs = expected[layer][image, of]
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(result[layer][:, 1], expected[layer][:, 1], rtol=1e-5, atol=1e-8)


def first_or_none(logits: Tensor) -> Tensor:
    return first_class(logits) * torch.nan


def test_a_mistake_in_one_images_target_is_told() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)), ["up4"])
    with pytest.raises(TargetError, match="holds 2 targets for 3 images"):
        cam(IMAGES, PerImage([ClassScore(0)] * 2))
    with pytest.raises(TargetError, match="asks for class 4"):
        cam(IMAGES, PerImage([ClassScore(0), ClassScore(4), ClassScore(0)]))
    empty = Region(1, torch.zeros(16, 16))
    with pytest.raises(TargetError, match="target 'class 1 in a region' is empty for image 1"):
        cam(IMAGES, PerImage([ClassScore(0), empty, ClassScore(0)]))
    undefined = TruthRegion(1, torch.zeros(16, 16))
    found = cam(IMAGES, PerImage([undefined, Region(1, torch.ones(16, 16)), undefined]))["up4"]
    assert found[:, 0].isnan().flatten(1).all(1).tolist() == [True, False, True]
    with pytest.raises(TargetError, match="has no region of pixels"):
        ClassScore(0, within=PerImage([ClassScore(0)]))  # type: ignore[arg-type]


class Strongest(Choice):
    """The class with the highest mean logit of the first image."""

    def choose(self, logits: Tensor) -> Sequence[Target]:
        return [ClassScore(int(logits[0].mean((1, 2)).argmax()))]


def test_targets_may_be_chosen_once_the_logits_are_known() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)), ["up4"])
    result = cam(IMAGES, Strongest())
    best = int(result.logits[0].mean((1, 2)).argmax())
    assert result.targets == (ClassScore(best),)


def test_one_or_several_come_as_a_tuple() -> None:
    assert as_targets(ClassScore(1)) == (ClassScore(1),)
    module = torch.nn.Sequential(torch.nn.Flatten())
    assert as_targets(module) == (Function(module),)
    assert as_targets([ClassScore(1), first_class]) == (ClassScore(1), Function(first_class))


def test_targets_are_made_anew_with_something_else() -> None:
    truth = torch.zeros(6, 5)
    confusion = Confusion(truth=0, predicted=1, mask=truth)
    assert replace(confusion, predicted=2) == Confusion(0, 2, truth)
    assert replace(FalsePositives(1, truth), class_index=2) == FalsePositives(2, truth)
    wrong = FalsePositives(1, truth)
    assert replace(ClassScore(1), within=wrong) == ClassScore(1, within=FalsePositives(1, truth))
    component = Component(1, of=truth, index=2)
    assert replace(component, index=None, rank=1) == Component(1, of=truth, rank=1)
    assert replace(Contrast(1, truth), on="probability").on == "probability"
