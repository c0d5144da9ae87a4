"""What is missed and what is made up of every class, from one forward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.errors import TargetError
from unetcam.targets import (
    Confusion,
    FalseNegatives,
    FalsePositives,
    Head,
    RegionScore,
    predict,
)

IMAGES = torch.rand(3, 1, 16, 16, generator=torch.manual_seed(0))
VOLUMES = torch.rand(2, 1, 4, 8, 8, generator=torch.manual_seed(0))


class Counting(nn.Module):
    """The network, with how often it ran and how many backwards its output saw."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        logits = self.network(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1


def setting(classes: int, dtype: torch.dtype, *, volumes: bool) -> tuple[nn.Module, Tensor, str]:
    if volumes:
        return seeded(UNet3d(classes)).to(dtype), VOLUMES.to(dtype), "dec2"
    return seeded(UNet(1, classes)).to(dtype), IMAGES.to(dtype), "up3"


def truth_for(
    model: nn.Module, images: Tensor, *, multi: bool, generator: torch.Generator
) -> Tensor:
    with torch.no_grad():
        logits = model(images)
    size = logits.shape if multi else (len(logits), *logits.shape[2:])
    highest = 2 if multi else max(2, logits.shape[1])
    return torch.randint(-1, highest, size, generator=generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("volumes", [False, True], ids=["2-D", "3-D"])
@pytest.mark.parametrize(
    ("classes", "head"), [(1, "softmax"), (3, "softmax"), (3, "sigmoid"), (1, "sigmoid")]
)
def test_maps_and_counts_are_those_of_the_targets(
    classes: int, head: Head, volumes: bool, dtype: torch.dtype
) -> None:
    model, images, layer = setting(classes, dtype, volumes=volumes)
    generator = torch.Generator().manual_seed(1)
    multi = head == "sigmoid" and classes > 1
    truth = truth_for(model, images, multi=multi, generator=generator)
    cam = UNetCAM(model, [layer])
    found = cam.explain_errors(images, truth, head=head)
    count = max(2, classes)
    missed = [FalseNegatives(c, truth, head=head) for c in range(count)]
    made_up = [FalsePositives(c, truth, head=head) for c in range(count)]
    direct = cam(images, [*missed, *made_up])
    for part, pixels, first, kinds in (
        (found.missed, found.missed_pixels, 0, missed),
        (found.made_up, found.made_up_pixels, count, made_up),
    ):
        assert part.targets == tuple(kinds)
        expected = direct[layer][:, first : first + count]
        assert part[layer].dtype == dtype
        tolerance = {"rtol": 1e-4, "atol": 1e-7} if dtype == torch.float32 else {}
        torch.testing.assert_close(part[layer], expected, equal_nan=True, **tolerance)
        regions = torch.stack([pixels_of(kind, direct.logits) for kind in kinds], 1)
        assert torch.equal(pixels, regions.flatten(2).sum(2))
    for i in range(count):
        for j in range(count):
            pixels = found.confused_pixels[:, i, j].tolist()
            if i == j:
                assert not any(pixels)
            else:
                pair = Confusion(i, j, truth, head=head)
                assert pixels == pixels_of(pair, direct.logits).flatten(1).sum(1).tolist()


def pixels_of(target: RegionScore, logits: Tensor) -> Tensor:
    pixels = target.pixels(logits)
    assert pixels is not None
    return pixels


def test_one_forward_and_a_backward_for_each_mistake_that_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unetcam.engine.backward._targets_at_once", lambda logits: 1)
    model = Counting(seeded(UNet(1, 3)))
    with torch.no_grad():
        prediction = predict(model(IMAGES))
    cam = UNetCAM(model, ["network.up4"])
    common = int(prediction.flatten().mode().values)
    other = (common + 1) % 3
    truth = prediction.clone()
    truth[1][prediction[1] == common] = other  # one class missed, one made up
    cam.explain_errors(IMAGES, truth)
    model.forwards = model.backwards = 0
    found = cam.explain_errors(IMAGES, truth)
    assert (model.forwards, model.backwards) == (1, 2)
    layer = "network.up4"
    for part, of in ((found.missed, other), (found.made_up, common)):
        there = ~part[layer].isnan().flatten(2).all(2)
        expected = torch.zeros(3, 3, dtype=torch.bool)
        expected[1, of] = True
        assert torch.equal(there, expected)
    pixels = int((prediction[1] == common).sum())
    assert found.costliest() == [(other, common, pixels)]
    assert (found.costliest()[0].truth, found.costliest()[0].predicted) == (other, common)


def test_a_prediction_without_a_mistake_has_no_maps() -> None:
    model = seeded(UNet(1, 3))
    with torch.no_grad():
        truth = predict(model(IMAGES))
    found = UNetCAM(model).explain_errors(IMAGES, truth)
    assert found.missed.layers == ("up1", "up2", "up3", "up4")
    for part in (found.missed, found.made_up):
        for layer in part.layers:
            assert part[layer].shape[:2] == (3, 3)
            assert part[layer].isnan().all()
        assert len(part.targets) == 3
    assert not found.missed_pixels.any()
    assert not found.made_up_pixels.any()
    assert found.costliest() == []


def test_one_truth_may_serve_all_images_and_ignored_pixels_count_nowhere() -> None:
    model = seeded(UNet(1, 3))
    truth = torch.randint(-1, 3, (16, 16), generator=torch.manual_seed(2))
    cam = UNetCAM(model, ["up4"])
    one = cam.explain_errors(IMAGES, truth.numpy())
    each = cam.explain_errors(IMAGES, truth.expand(3, 16, 16))
    torch.testing.assert_close(one.missed["up4"], each.missed["up4"], equal_nan=True)
    assert torch.equal(one.confused_pixels, each.confused_pixels)
    known = int((truth >= 0).sum())
    assert (one.missed_pixels.sum(1) <= known).all()
    nothing = cam.explain_errors(IMAGES, torch.full((16, 16), -1))
    assert nothing.made_up["up4"].isnan().all()
    assert not nothing.confused_pixels.any()


def test_results_scale_and_resize_as_any_other() -> None:
    truth = torch.randint(0, 3, (3, 16, 16), generator=torch.manual_seed(3))
    found = UNetCAM(seeded(UNet(1, 3)), ["up2", "up4"]).explain_errors(IMAGES, truth)
    scaled = found.missed.resized().scaled(by="image")
    assert scaled["up2"].shape == (3, 3, 16, 16)
    assert torch.nan_to_num(scaled["up2"]).max() <= 1


def test_the_costliest_pairs_come_first() -> None:
    truth = torch.randint(0, 3, (3, 16, 16), generator=torch.manual_seed(4))
    found = UNetCAM(seeded(UNet(1, 3)), ["up4"]).explain_errors(IMAGES, truth)
    pairs = found.costliest(4)
    assert len(pairs) <= 4
    costs = [pair.pixels for pair in pairs]
    assert costs == sorted(costs, reverse=True)
    totals = found.confused_pixels.sum(0)
    assert all(totals[pair.truth, pair.predicted] == pair.pixels for pair in pairs)
    assert costs[0] == totals.max()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_under_one_label_a_pixel_that_is_missed_is_made_up_elsewhere(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(-1, 3, (3, 16, 16), generator=generator)
    found = _CAM.explain_errors(IMAGES, truth)
    assert torch.equal(found.missed_pixels, found.confused_pixels.sum(2))
    assert torch.equal(found.made_up_pixels, found.confused_pixels.sum(1))
    present = ~found.missed["up4"].isnan().flatten(2).all(2)
    assert torch.equal(present, found.missed_pixels > 0)


_CAM = UNetCAM(seeded(UNet(1, 3)), ["up4"])


@pytest.mark.parametrize(
    ("truth", "head", "message"),
    [
        (torch.zeros(8, 8), "softmax", r"has the shape \(8, 8\), but the logits need \(16, 16\)"),
        (torch.full((16, 16), 3), "softmax", "holds the value 3: use classes 0 to 2"),
        (torch.zeros(16, 16), "sigmoid", r"logits need \(3, 16, 16\)"),
        (torch.zeros(16, 16), "tanh", "head='tanh' is no kind of head"),
    ],
)
def test_a_truth_that_does_not_fit_says_so(truth: Tensor, head: Head, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        _CAM.explain_errors(IMAGES, truth, head=head)
