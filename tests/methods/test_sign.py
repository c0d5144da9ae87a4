"""Evidence for, against, and both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.networks import UNet, seeded
from unetcam import UNetCAM
from unetcam.errors import UnetcamError
from unetcam.targets import ClassScore, PredictedRegion, Region

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(4), dtype=torch.float64)
CORNER = torch.zeros(16, 16)
CORNER[:5, 3:9] = 1
WANTED = [ClassScore(0), Region(1, CORNER), PredictedRegion(2)]


def model() -> nn.Module:
    return seeded(UNet(1, 3)).double()


@pytest.mark.parametrize("layer", ["up2", "up4"])
def test_against_a_class_is_for_its_negation(layer: str) -> None:
    """Of a network whose logits are negated."""
    network = model()
    negated = nn.Sequential(network, Negation())
    for method in ("gradcam", "gradcam++", "hirescam", "layercam", "ablationcam"):
        against = UNetCAM(network, [layer], method, sign="negative")(IMAGES, WANTED[:2])
        other = UNetCAM(negated, [f"0.{layer}"], method)(IMAGES, WANTED[:2])
        torch.testing.assert_close(against[layer], other[f"0.{layer}"], rtol=1e-10, atol=1e-14)
        assert (against[layer] >= 0).all()
        assert against.settings["sign"] == "negative"


class Negation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return -x


def test_signed_maps_of_grad_cam_and_hirescam_are_theirs_without_the_relu() -> None:
    network = model()
    activation: list[Tensor] = []
    with torch.enable_grad():
        handle = network.up3.register_forward_hook(lambda m, a, out: activation.append(out))
        logits = network(IMAGES)
        handle.remove()
    score = (logits[:, 1] * CORNER).flatten(1).sum(1) / CORNER.sum()
    (gradient,) = torch.autograd.grad(score.sum(), activation[0])
    by_hand = {
        "gradcam": (gradient.mean((2, 3), keepdim=True) * activation[0]).sum(1),
        "hirescam": (gradient * activation[0]).sum(1),
    }
    for method, expected in by_hand.items():
        found = UNetCAM(network, ["up3"], method, sign="signed")(IMAGES, WANTED)
        assert found["up3"].shape[1] == len(found.targets) == 3
        torch.testing.assert_close(found["up3"][:, 1], expected, rtol=1e-9, atol=1e-13)
        assert (found["up3"] < 0).any()


@pytest.mark.parametrize("method", ["layercam", "gradcam++", "smooth-gradcam", "scorecam"])
def test_signed_is_for_less_against(method: str) -> None:
    maps = {
        sign: UNetCAM(model(), ["up3"], method, sign=sign)(IMAGES, WANTED)["up3"]
        for sign in ("positive", "negative", "signed")
    }
    expected = maps["positive"] - maps["negative"]
    torch.testing.assert_close(maps["signed"], expected, rtol=1e-9, atol=1e-13, equal_nan=True)


def test_signed_maps_of_tiles_and_views() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1)))
    network, image = network.double(), IMAGES[:1]
    cam = UNetCAM(network, ["1"], sign="signed")
    whole = cam(image)
    assert (whole["1"] < 0).any()
    tiled = cam.tiled(image, tile=8, overlap=4)
    torch.testing.assert_close(tiled["1"].relu(), whole["1"].relu(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(tiled["1"], whole["1"], rtol=1e-9, atol=1e-12)


def test_signed_maps_are_scaled_by_their_largest_magnitude() -> None:
    found = UNetCAM(model(), ["up3", "up4"], sign="signed")(IMAGES, WANTED[:2])
    for by in ("map", "layer", "image"):
        scaled = found.scaled(by=by)
        peak = torch.stack([scaled[name].abs().flatten(1).amax(1) for name in scaled.layers])
        torch.testing.assert_close(peak.amax(0), torch.ones_like(peak[0]), rtol=1e-12, atol=0)
        assert all((scaled[name].sign() == found[name].sign()).all() for name in found.layers)


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(UnetcamError, match=r"sign='both' is none: use positive, negative, signed"):
        UNetCAM(model(), sign="both")
    with pytest.raises(UnetcamError, match="'eigencam' does not ask what speaks for a target"):
        UNetCAM(model(), method="eigencam", sign="signed")
