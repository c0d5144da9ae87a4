"""What is changed, what is scored, what comes of it: against plain loops, and where exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.harness import IMAGES, TARGETS, network, quick
from tests.networks import UNet3d, seeded
from unetcam import UNetCAM, methods
from unetcam.engine import memory
from unetcam.errors import LayerError, NumericalError
from unetcam.methods.perturbation import RISE
from unetcam.targets import ClassScore, PredictedRegion, Region


def scores(model: nn.Module, images: Tensor, reference: Tensor) -> Tensor:
    """(B, T), each region that of `reference`."""
    with torch.no_grad():
        logits = model(images)
        return torch.stack([t.score(logits, reference).value for t in TARGETS], dim=1)


def activation_of(model: nn.Module, layer: str, images: Tensor) -> tuple[Tensor, Tensor]:
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda module, args, out: kept.append(out.detach().clone())
    )
    with torch.no_grad():
        logits = model(images)
    handle.remove()
    return kept[0], logits


@pytest.mark.parametrize("layer", ["up4", "up2", "down4"])
def test_ablationcam_is_a_loop_over_the_channels(layer: str) -> None:
    """In double precision, to 1e-9; the loop runs the whole network with the channel at zero."""
    model = network("ablationcam")[0].double()
    images = IMAGES.double()
    activation, logits = activation_of(model, layer, images)
    whole = scores(model, images, logits)
    falls = []
    for channel in range(activation.shape[1]):

        def ablate(module: nn.Module, args: object, out: Tensor, k: int = channel) -> Tensor:
            out = out.clone()
            out[:, k] = 0
            return out

        handle = model.get_submodule(layer).register_forward_hook(ablate)
        falls.append(whole - scores(model, images, logits))
        handle.remove()
    expected = torch.relu(torch.einsum("kbt,bk...->bt...", torch.stack(falls), activation))
    ours = UNetCAM(model, [layer], "ablationcam")(images, TARGETS)[layer]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_ablationcam_runs_only_what_is_behind_the_layer() -> None:
    model, _ = network("ablationcam")
    cam = UNetCAM(model, ["up4"], "ablationcam", example=IMAGES)
    seen = {"inc": 0, "outc": 0}
    for name in seen:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: seen.__setitem__(name, seen[name] + len(out))
        )
    cam(IMAGES, ClassScore(1))
    assert seen["inc"] == 2 * len(IMAGES)  # the forward, and the recording
    assert seen["outc"] == (2 + 4) * len(IMAGES)  # and once for each of 4 channels


def test_a_negative_score_does_not_turn_evidence_around() -> None:
    """Divided by the score, as the paper has it, every weight would change its sign."""
    model, _ = network("ablationcam")
    maps = {}
    for shift in (0.0, -100.0):
        with torch.no_grad():
            model.outc.bias += shift
        maps[shift] = UNetCAM(model.double(), ["up4"], "ablationcam")(
            IMAGES.double(), ClassScore(1)
        )["up4"]
    torch.testing.assert_close(maps[0.0], maps[-100.0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["up4", "up2"])
def test_scorecam_is_a_loop_over_the_channels(layer: str) -> None:
    """In double precision, to 1e-9."""
    model = network("scorecam")[0].double()
    images = IMAGES.double()
    activation, logits = activation_of(model, layer, images)
    values = []
    for channel in range(activation.shape[1]):
        mask = F.interpolate(activation[:, [channel]], images.shape[2:], mode="bilinear")
        for one in mask:
            one -= one.min()
            one /= one.max() if one.max() > 0 else 1
        values.append(scores(model, images * mask, logits))
    weights = torch.stack(values).softmax(dim=0)
    expected = torch.relu(torch.einsum("kbt,bk...->bt...", weights, activation))
    ours = UNetCAM(model, [layer], "scorecam")(images, TARGETS)[layer]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "rise"])
def test_chunks_of_any_size_give_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, layers = network(name)
    expected = UNetCAM(model, layers, quick(name))(IMAGES, TARGETS)
    monkeypatch.setattr(memory, "_CPU_BUDGET", 1)
    ours = UNetCAM(model, layers, quick(name))(IMAGES, TARGETS)
    for layer in layers:
        peak = float(expected[layer].max())
        torch.testing.assert_close(ours[layer], expected[layer], rtol=0, atol=1e-4 * peak)


class Additive(nn.Module):
    """Each logit is a weighted sum of the pixels, the same everywhere."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)
        self.same = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.same(x)
        total = (x * self.weights).flatten(1).sum(dim=1)
        return torch.stack([-total, total], dim=1)[:, :, None, None].expand(-1, -1, *x.shape[2:])


def test_rise_finds_the_pixels_of_an_additive_network() -> None:
    """What a cell adds when it is seen: the expectation is known, the sample's error shrinks."""
    weights = torch.zeros(1, 1, 32, 32)
    weights[..., 4:12, 20:28] = 1.0
    method = RISE(samples=4000, cells=8, seed=1)
    maps = UNetCAM(Additive(weights), ["same"], method)(torch.ones(1, 1, 32, 32), ClassScore(1))
    found = maps["same"][0, 0]
    inside = weights[0, 0] > 0
    # A pixel in the middle of the square, seen through bilinear masks, raises the score by about
    # a cell's worth: half of its pixels more than at random.
    assert inside.flatten()[found.argmax()]
    assert found[inside].mean() > 10 * found[~inside].mean()


def test_rise_is_the_difference_of_two_means_over_the_masks_drawn() -> None:
    """Against a plain loop over the same masks, in double precision."""
    model, layers = network("rise")
    model, images = model.double(), IMAGES.double()
    _, logits = activation_of(model, "up4", images)
    method = RISE(samples=10, cells=3, seed=2)
    grids, shifts = method._drawn(images)
    masks = method._masks(grids, shifts, images.shape[2:]).double()
    values = np.stack([scores(model, images * mask, logits).numpy() for mask in masks])
    expected = np.zeros((2, len(TARGETS), 32, 32))
    for image, target in np.ndindex(2, len(TARGETS)):
        weighted = (values[:, image, target, None, None] * masks.numpy()).sum(axis=0)
        expected[image, target] = weighted / masks.numpy().sum(axis=0)
        expected[image, target] -= values[:, image, target].mean()
    ours = UNetCAM(model, layers, method)(images, TARGETS)
    np.testing.assert_allclose(ours["up4"], np.maximum(expected, 0), rtol=0, atol=1e-9)
    coarse = np.maximum(expected, 0).reshape(2, len(TARGETS), 8, 4, 8, 4).mean(axis=(3, 5))
    np.testing.assert_allclose(ours["up2"], coarse, rtol=0, atol=1e-9)


def test_rise_does_not_see_a_constant_in_the_score() -> None:
    model, _ = network("rise")
    model = model.double()
    first = UNetCAM(model, ["up4"], quick("rise"))(IMAGES.double(), ClassScore(1))["up4"]
    with torch.no_grad():
        model.outc.bias -= 50
    second = UNetCAM(model, ["up4"], quick("rise"))(IMAGES.double(), ClassScore(1))["up4"]
    torch.testing.assert_close(first, second, rtol=0, atol=1e-9)


def test_rises_masks_are_grids_enlarged_and_shifted() -> None:
    """With a shift of nothing and a grid of one pixel a cell, the mask is the grid."""
    method = RISE(samples=3, cells=6)
    grids, shifts = method._drawn(torch.zeros(1, 1, 6, 6))
    assert grids.shape == (3, 7, 7)
    assert set(grids.unique().tolist()) == {0.0, 1.0}
    assert ((shifts >= 0) & (shifts < 1)).all()
    masks = method._masks(grids, torch.zeros_like(shifts), torch.Size((6, 6)))
    torch.testing.assert_close(masks, grids[:, :6, :6])
    masks = method._masks(grids, torch.tensor([[1.0, 0.0]] * 3), torch.Size((6, 6)))
    torch.testing.assert_close(masks, grids[:, 1:, :6])
    masks = method._masks(grids, shifts, torch.Size((50, 31)))
    assert masks.shape == (3, 50, 31)
    assert ((masks >= -1e-6) & (masks <= 1 + 1e-6)).all()


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"cells": 0}, {"visible": 1.0}])
def test_rise_refuses_what_makes_no_mask(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RISE(**wrong)


@pytest.mark.parametrize("name", ["scorecam", "ablationcam", "rise"])
def test_a_predicted_region_is_held_while_the_image_is_perturbed(name: str) -> None:
    """Region(mask of the prediction) is the same target, said in another way."""
    model, layers = network(name)
    with torch.no_grad():
        predicted = model(IMAGES).argmax(dim=1) == 1
    cam = UNetCAM(model, layers, quick(name))
    ours, theirs = cam(IMAGES, PredictedRegion(1)), cam(IMAGES, Region(1, predicted))
    for layer in layers:
        torch.testing.assert_close(ours[layer], theirs[layer])


def test_a_network_whose_skip_is_changed_in_place_is_replayed_rightly() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.skip, self.deep = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3, padding=1)
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            skip = self.skip(x)
            deep = self.deep(skip)
            skip += deep
            return self.head(skip.relu_())

    model = seeded(Adding()).double()
    images = IMAGES.double()
    activation, logits = activation_of(model, "deep", images)
    with torch.no_grad():
        skip = model.skip(images)
        falls = []
        for channel in range(3):
            ablated = activation.clone()
            ablated[:, channel] = 0
            changed = model.head((skip + ablated).relu())
            falls.append(ClassScore(1).score(logits).value - ClassScore(1).score(changed).value)
    expected = torch.relu(torch.einsum("kb,bkhw->bhw", torch.stack(falls), activation))
    ours = UNetCAM(model, ["deep"], "ablationcam")(images, ClassScore(1))["deep"][:, 0]
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-12)


def test_a_score_that_overflows_is_named() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            x = self.same(x)
            return torch.cat([1 / x, x], dim=1)

    with pytest.raises(NumericalError, match="scores of a perturbed input"):
        UNetCAM(Steep(), ["same"], "ablationcam")(torch.ones(1, 1, 4, 4))


def test_volumes_take_trilinear_masks() -> None:
    model = seeded(UNet3d())
    method = replace(methods.get("rise"), samples=6)
    result = UNetCAM(model, ["dec2"], method)(torch.rand(1, 1, 8, 12, 8), ClassScore(0))
    assert result["dec2"].shape == (1, 1, 4, 6, 4)


def test_a_network_that_hides_its_skip_can_not_be_replayed() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.conv(x)
            return self.kept

    class Hiding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.deep = Encoder(), nn.Conv2d(3, 3, 1)
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            deep = self.deep(self.encoder(x))
            return self.head(torch.cat([deep, self.encoder.kept], dim=1))

    with pytest.raises(LayerError, match="behind the layer 'deep' can't be run again"):
        UNetCAM(Hiding(), ["deep"], "ablationcam")(IMAGES)
