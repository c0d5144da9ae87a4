"""Maps with a graph are the maps, and their derivatives are right."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.engine.test_state import assert_same, state_of
from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.errors import ModelError, UnetcamError
from unetcam.targets import ClassScore, PredictedRegion, Region

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(6), dtype=torch.float64)
CORNER = torch.zeros(16, 16)
CORNER[2:9, 3:12] = 1
GRADIENT_METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "seg-xres-cam")


class Small(nn.Module):
    """Smooth everywhere, with a skip, so that second derivatives are not trivial."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 3, 3, padding=1)
        self.deep = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.join = nn.Conv2d(6, 3, 3, padding=1)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x).tanh()
        deep = F.interpolate(self.deep(skip).tanh(), scale_factor=2)
        return self.head(F.softplus(self.join(torch.cat([skip, deep], 1))))


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_maps_with_a_graph_are_the_maps(method: str) -> None:
    for model, images in (
        (seeded(UNet(1, 3)).double(), IMAGES),
        (seeded(UNet3d()).double(), torch.rand(1, 1, 8, 8, 8, dtype=torch.float64)),
    ):
        wanted = [ClassScore(0), PredictedRegion(1), ClassScore(2, on="probability")]
        cam = UNetCAM(model, method=method)
        plain = cam(images, wanted)
        before = state_of(model)
        kept = cam(images, wanted, create_graph=True)
        assert_same(before, state_of(model))
        assert kept.logits.requires_grad
        torch.testing.assert_close(kept.logits, plain.logits)
        for layer in plain.layers:
            assert kept[layer].requires_grad
            torch.testing.assert_close(
                kept[layer].detach(), plain[layer], rtol=1e-9, atol=1e-13, equal_nan=True
            )


@pytest.mark.parametrize("sign", ["positive", "signed"])
@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_their_derivatives_are_those_of_finite_differences(method: str, sign: str) -> None:
    """gradcheck in float64, with respect to the image and two layers' weights."""
    model = seeded(Small()).double()
    image = IMAGES[:1, :, :6, :6].clone().requires_grad_()
    cam = UNetCAM(model, ["deep", "join"], method, sign=sign)
    mask = CORNER[2:8, 3:9]

    def maps(image: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        found = cam(image, [ClassScore(0), Region(1, mask)], create_graph=True)
        return tuple(found[layer] for layer in found.layers)

    weights = (model.deep.weight, model.head.weight)
    assert torch.autograd.gradcheck(maps, (image, *weights), eps=1e-6, atol=1e-6, rtol=1e-4)


def test_a_loss_on_maps_trains_the_network() -> None:
    """Evidence is moved into a region, and the network is left in training."""
    torch.manual_seed(0)
    model = seeded(UNet(1, 3)).train()
    cam = UNetCAM(model, ["up4"])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    inside, images = CORNER.bool(), IMAGES.float()
    losses = []
    for _ in range(8):
        maps = cam(images, ClassScore(1), create_graph=True)["up4"][:, 0]
        loss = maps[:, ~inside].mean() - maps[:, inside].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_has_no_graph_says_so() -> None:
    model = seeded(UNet(1, 3)).double()
    with pytest.raises(UnetcamError, match="Maps of the method 'eigencam' have no graph"):
        UNetCAM(model, method="eigencam")(IMAGES, create_graph=True)


def test_a_layer_that_works_in_place_has_its_graph() -> None:
    model = seeded(UNet(1, 3)).double()
    twin = copy.deepcopy(model)
    for module in twin.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    grads = []
    for one in (model, twin):
        maps = UNetCAM(one, ["inc.2", "up4"], "hirescam")(IMAGES, create_graph=True).maps
        sum(one.square().sum() for one in maps.values()).backward()
        grads.append(one.inc[0].weight.grad)
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-15)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.block, self.a(x), use_reentrant=False))


def test_a_checkpoint_that_would_run_again_in_training_is_refused() -> None:
    model = seeded(Checkpointed()).double()
    found = UNetCAM(model, ["a"], "hirescam")(IMAGES, create_graph=True)
    found["a"].sum().backward()
    assert model.a.weight.grad is not None
    with pytest.raises(ModelError, match=r"gradient checkpoint.*call model\.eval\(\) before"):
        UNetCAM(model.train(), ["a"], "hirescam")(IMAGES, create_graph=True)


def test_something_must_require_a_gradient() -> None:
    model = seeded(UNet(1, 3)).double().requires_grad_(False)
    with pytest.raises(ModelError, match="neither a parameter of the model nor the images"):
        UNetCAM(model)(IMAGES, create_graph=True)
    image = IMAGES[:1].clone().requires_grad_()
    UNetCAM(model, ["up4"], "hirescam")(image, create_graph=True)["up4"].sum().backward()
    assert (image.grad != 0).any()


def test_images_made_in_inference_are_taken() -> None:
    with torch.inference_mode():
        images = IMAGES * 1
    found = UNetCAM(seeded(UNet(1, 3)).double(), ["up4"])(images, create_graph=True)
    assert found["up4"].requires_grad
