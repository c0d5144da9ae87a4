"""Eigen-CAM, CAM and the baselines: what they are, and where they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.harness import IMAGES, TARGETS, network, region
from tests.methods.test_gradient import IMAGE, TwoLayers
from tests.networks import UNet, ValidUNet, seeded
from unetcam import UNetCAM
from unetcam.errors import LayerError
from unetcam.methods.activation import EigenCAM
from unetcam.methods.baseline import Random, magnitude
from unetcam.targets import ClassScore, Pixel, PredictedRegion, Region


def test_cam_by_hand_is_the_logit() -> None:
    result = UNetCAM(TwoLayers(), ["first"], "cam")(IMAGE)
    torch.testing.assert_close(result["first"], torch.relu(result.logits))  # the head has no bias


def test_cam_is_the_logit_without_the_heads_bias() -> None:
    model, layers = network("cam")
    result = UNetCAM(model, layers, "cam")(IMAGES)
    expected = torch.relu(result.logits - model.outc.bias.view(1, -1, 1, 1))
    torch.testing.assert_close(result["up4"], expected.detach(), rtol=1e-5, atol=1e-5)


def test_cam_is_gradcam_times_the_pixels() -> None:
    """As Grad-CAM's paper shows for any layer that feeds a linear head."""
    model, layers = network("cam")
    cam = UNetCAM(model, layers, "cam")(IMAGES, [ClassScore(1), PredictedRegion(1)])
    grad = UNetCAM(model, layers, "gradcam")(IMAGES, [ClassScore(1), PredictedRegion(1)])
    torch.testing.assert_close(cam["up4"], grad["up4"] * 32 * 32, rtol=1e-4, atol=1e-5)


class Late(nn.Module):
    """A head that is no convolution, behind dropout, at half the size, then enlarged."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 5, 3, stride=2, padding=1)
        self.drop = nn.Dropout2d(0.5)
        self.norm = nn.BatchNorm2d(5)
        self.head = nn.Linear(5, 3)
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.drop(self.body(x))).movedim(1, -1)
        corners = None if self.mode == "nearest" else self.mode == "corners"
        mode = "nearest" if self.mode == "nearest" else "bilinear"
        low = self.head(x).movedim(-1, 1)
        return F.interpolate(low, scale_factor=2, mode=mode, align_corners=corners)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "corners"])
def test_cam_finds_a_head_whatever_it_is_called(mode: str) -> None:
    """A linear layer on the last axis, a normalisation, an enlargement: still one linear map."""
    model = seeded(Late(mode)).double()
    images = IMAGES.double()
    ours = UNetCAM(model, ["body"], "cam")(images)["body"]
    with torch.no_grad():
        zero = model.norm(torch.zeros(1, 5, 1, 1, dtype=torch.float64)).flatten()
        logits = model.head(model.norm(model.body(images)).movedim(1, -1)) - model.head(zero)
    torch.testing.assert_close(ours, torch.relu(logits.movedim(-1, 1)), rtol=1e-9, atol=1e-12)


def test_cam_mixes_the_classes_as_the_target_does() -> None:
    """On probabilities a region asks for one class and against the others."""
    model, layers = network("cam")
    model, images = model.double(), IMAGES.double()
    target = Region(2, region(), on="probability")
    ours = UNetCAM(model, layers, "cam")(images, target)
    leaf = ours.logits.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.score(leaf).value.sum(), leaf)
    shares = gradient.flatten(2).sum(dim=2)
    logits = ours.logits - model.outc.bias.view(1, -1, 1, 1).detach()
    expected = torch.relu(torch.einsum("bc,bchw->bhw", shares, logits))
    torch.testing.assert_close(ours["up4"][:, 0], expected, rtol=1e-9, atol=1e-12)


class Wide(nn.Module):
    """A head of three by three pixels."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 3, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cam_refuses_a_head_that_mixes_pixels(padding: int, dtype: torch.dtype) -> None:
    with pytest.raises(LayerError, match="between 'body' and the logits there is more than"):
        UNetCAM(seeded(Wide(padding)).to(dtype), ["body"], "cam")(IMAGES.to(dtype))


def test_cam_refuses_a_layer_before_a_nonlinearity_and_names_the_one_that_fits() -> None:
    model, _ = network("cam")
    with pytest.raises(LayerError, match=r"between 'up2' .*only 'up4' does"):
        UNetCAM(model, ["up2", "up4"], "cam")(IMAGES)
    with pytest.raises(LayerError, match="choose the last layer before a 1x1 head"):
        UNetCAM(model, ["up4.conv.4"], "cam")(IMAGES)


def test_cam_of_a_network_without_padding() -> None:
    images = torch.rand(1, 1, 92, 92, generator=torch.Generator().manual_seed(0))
    result = UNetCAM(seeded(ValidUNet()), ["up.2"], "cam")(images)
    assert result["up.2"].shape == result.logits.shape


def test_eigencam_is_the_same_for_all_targets() -> None:
    model, layers = network("eigencam")
    maps = UNetCAM(model, layers, "eigencam")(IMAGES, TARGETS)["up4"]
    assert torch.equal(maps[:, 0], maps[:, 1])


def test_eigencam_without_centring_is_the_papers_equation() -> None:
    model, layers = network("eigencam")
    ours = UNetCAM(model, layers, EigenCAM(centred=False))(IMAGES, ClassScore(0))["up4"]
    kept: list[Tensor] = []
    model.up4.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
    model(IMAGES)
    for image in range(2):
        points = kept[0][image].flatten(1).double().numpy().T
        expected = np.abs(points @ np.linalg.svd(points, full_matrices=False)[2][0])
        np.testing.assert_allclose(ours[image, 0].flatten(), expected, rtol=0, atol=1e-4)


def test_random_weighs_by_its_seed_alone() -> None:
    model, _ = network("random")
    cam = UNetCAM(model, ["up4", "up3"], Random(seed=4))
    alone = UNetCAM(model, ["up3"], Random(seed=4))
    assert torch.equal(cam(IMAGES)["up3"], alone(IMAGES)["up3"])


def test_edges_are_those_of_numpy() -> None:
    images = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(2))
    expected = np.zeros((2, 1, 6, 7))
    for axis in (2, 3):
        expected[:, 0] += (np.gradient(images.numpy(), axis=axis) ** 2).sum(axis=1)
    np.testing.assert_allclose(magnitude(images), np.sqrt(expected), rtol=1e-5)
    assert not magnitude(torch.rand(1, 1, 1, 1)).any()


def prior(target: object, classes: int = 3) -> tuple[Tensor, Tensor]:
    model = seeded(UNet(1, classes))
    result = UNetCAM(model, ["up4"], "mask-prior")(IMAGES, target)
    return result["up4"][:, 0], result.logits


@pytest.mark.parametrize("on", ["logits", "probability", "log_probability"])
def test_the_mask_prior_of_a_class_is_its_probability(on: str) -> None:
    maps, logits = prior(ClassScore(1, on=on))
    torch.testing.assert_close(maps, logits.softmax(dim=1)[:, 1])


def test_the_mask_prior_of_a_saturated_class_is_its_probability_all_the_same() -> None:
    model = seeded(UNet(1, 3))
    with torch.no_grad():
        model.outc.bias[1] += 200
    result = UNetCAM(model, ["up4"], "mask-prior")(IMAGES, ClassScore(1, on="probability"))
    assert (result["up4"] == 1).all()


@pytest.mark.parametrize("index", [0, 1])
def test_the_mask_prior_of_one_channel(index: int) -> None:
    maps, logits = prior(ClassScore(index), classes=1)
    torch.testing.assert_close(maps, (logits[:, 0] * (1 if index else -1)).sigmoid())


def test_the_mask_prior_of_a_region_ends_with_the_region() -> None:
    inside = region()
    maps, logits = prior(Region(2, inside))
    torch.testing.assert_close(maps, logits.softmax(dim=1)[:, 2] * inside)
    maps, _ = prior(Pixel(0, y=3, x=5))
    assert maps.nonzero().tolist() == [[0, 3, 5], [1, 3, 5]]


def test_the_mask_prior_of_a_predicted_region_is_the_prediction() -> None:
    model, _ = network("mask-prior")
    result = UNetCAM(model, ["up4"], "mask-prior")(IMAGES, PredictedRegion(1))
    predicted = result.logits.argmax(dim=1) == 1
    expected = result.logits.softmax(dim=1)[:, 1] * predicted
    torch.testing.assert_close(result["up4"][:, 0], expected)


def test_cam_takes_the_last_layer_where_none_is_named() -> None:
    assert UNetCAM(UNet(), method="cam", example=IMAGES).layers == ("up4",)
    assert UNetCAM(UNet(), method="smooth-cam", example=IMAGES).layers == ("up4",)


def test_cam_of_one_channel_has_both_polarities() -> None:
    model = seeded(UNet(1, 1))
    result = UNetCAM(model, ["up4"], "cam")(IMAGES)
    logit = (result.logits - model.outc.bias)[:, 0].detach()
    torch.testing.assert_close(result["up4"][:, 0], torch.relu(-logit), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result["up4"][:, 1], torch.relu(logit), rtol=1e-5, atol=1e-5)
