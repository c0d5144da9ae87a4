"""The gradient methods beyond Grad-CAM: by hand, at both ends, smoothed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.methods.harness import IMAGES, TARGETS, network
from tests.methods.test_gradient import IMAGE, TwoLayers, explain
from unetcam import UNetCAM, methods
from unetcam.errors import UnetcamError
from unetcam.methods.components import first_component
from unetcam.methods.gradient import SegXResCAM
from unetcam.methods.smooth import Smooth
from unetcam.targets import ClassScore, Pixel, PredictedRegion


def raw(method: methods.GradientMethod, activation: Tensor, gradient: Tensor) -> Tensor:
    return method.combine(activation, method.reduce(activation, gradient)[:, None])[:, 0]


def test_xgradcam_by_hand() -> None:
    # G is constant, so the weights are those of Grad-CAM: (3, -1) / 4; the map is relu(logit) / 4.
    torch.testing.assert_close(
        explain("xgradcam", ClassScore(1)), explain("gradcam", ClassScore(1))
    )
    # Only the last pixel counts: w0 = 3 * 4 / 7; A1 sums to 2 - 1... = 1: w1 = -1 * -2 / 1 = 2.
    a0, a1 = torch.tensor([[[0.0, 1.0], [2.0, 4.0]], [[2.0, 1.0], [0.0, -2.0]]])
    expected = torch.relu(12 / 7 * a0 + 2 * a1)
    torch.testing.assert_close(explain("xgradcam", Pixel(1, y=1, x=1)), expected)


def test_a_channel_whose_activation_sums_to_zero_gets_no_weight() -> None:
    activation, gradient = torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[[3.0, 1.0]]]])
    assert methods.get("xgradcam").reduce(activation, gradient).tolist() == [[0.0]]


def test_elementwise_by_hand_keeps_what_another_channel_cancels() -> None:
    # relu(3 A0 / 4) + relu(-A1 / 4)
    expected = torch.tensor([[0.0, 3.0], [6.0, 12.0 + 2.0]]) / 4
    torch.testing.assert_close(explain("gradcam-elementwise", ClassScore(1)), expected)


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    channels=st.integers(1, 4),
)
@settings(deadline=None, max_examples=60)
def test_seg_xres_cam_ends_at_hirescam_and_at_gradcam(
    seed: int, size: tuple[int, int], channels: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    activation, gradient = torch.randn(2, 2, channels, *size, generator=generator)
    hires, grad = (methods.get(name) for name in ("hirescam", "gradcam"))
    torch.testing.assert_close(
        raw(SegXResCAM(window=1), activation, gradient), raw(hires, activation, gradient)
    )
    for whole in (None, max(size), max(size) + 3):
        torch.testing.assert_close(
            raw(SegXResCAM(window=whole), activation, gradient), raw(grad, activation, gradient)
        )


@pytest.mark.parametrize("size", [(5, 8), (2, 9), (3, 4, 7)])
@pytest.mark.parametrize("window", [2, 3, 4])
def test_seg_xres_cam_pools_each_window_to_its_mean(size: tuple[int, ...], window: int) -> None:
    generator = torch.Generator().manual_seed(1)
    activation, gradient = torch.randn(2, 2, 3, *size, generator=generator)
    pooled = gradient.numpy().copy()
    for corner in np.ndindex(*[-(-side // window) for side in size]):
        at = (..., *(slice(i * window, (i + 1) * window) for i in corner))
        axes = tuple(range(2, gradient.ndim))
        pooled[at] = pooled[at].mean(axis=axes, keepdims=True)
    expected = torch.relu((activation * torch.from_numpy(pooled)).sum(dim=1))
    torch.testing.assert_close(
        raw(SegXResCAM(window=window), activation, gradient), expected, rtol=1e-5, atol=1e-6
    )


def test_a_window_without_a_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="window=0 must be"):
        SegXResCAM(window=0)


@given(
    seed=st.integers(0, 1000),
    channels=st.integers(1, 9),
    pixels=st.integers(1, 9),
    centred=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_the_first_component_is_numpys(
    seed: int, channels: int, pixels: int, centred: bool
) -> None:
    """Up to the sign, 1e-5 of the largest, whichever of the two Gram matrices is smaller."""
    features = torch.randn(1, channels, 1, pixels, generator=torch.Generator().manual_seed(seed))
    points = features[0, :, 0].double().numpy().T
    if centred:
        points = points - points.mean(axis=0)
    expected = points @ np.linalg.svd(points)[2][0]
    ours = first_component(features, centred=centred)[0, 0].double().numpy()
    scale = max(1e-9, np.abs(expected).max())
    same, turned = (np.abs(ours - sign * expected).max() / scale for sign in (1, -1))
    assert min(same, turned) < 1e-5
    assert ours.max() >= -ours.min()


def test_a_layer_of_one_value_has_an_empty_component() -> None:
    assert not first_component(torch.full((1, 3, 4, 4), 2.0)).any()


def test_of_a_layer_behind_a_relu_the_uncentred_component_is_nowhere_negative() -> None:
    features = torch.rand(2, 6, 5, 5, generator=torch.Generator().manual_seed(3))
    assert (first_component(features, centred=False) >= 0).all()


def test_without_noise_smoothing_changes_nothing() -> None:
    model, layers = network("gradcam")
    smooth = Smooth(methods.get("hirescam"), samples=2, noise=0.0)
    ours = UNetCAM(model, layers, smooth)(IMAGES, TARGETS)
    plain = UNetCAM(model, layers, "hirescam")(IMAGES, TARGETS)
    for layer in layers:
        torch.testing.assert_close(ours[layer], plain[layer])
    torch.testing.assert_close(ours.logits, plain.logits)


def test_smoothing_averages_raw_maps_of_images_with_seeded_noise() -> None:
    model, layers = network("gradcam")
    smooth = Smooth(methods.get("gradcam"), samples=3, noise=0.2, seed=5)
    ours = UNetCAM(model, layers, smooth)(IMAGES, ClassScore(1))
    generator = torch.Generator().manual_seed(5)
    ranges = torch.stack([image.max() - image.min() for image in IMAGES]).view(2, 1, 1, 1)
    plain = UNetCAM(model, layers, "gradcam")
    expected = 0
    for _ in range(3):
        noise = torch.randn(IMAGES.shape[1:], generator=generator)
        expected = expected + plain(IMAGES + 0.2 * ranges * noise, ClassScore(1))["up4"] / 3
    torch.testing.assert_close(ours["up4"], expected)


def test_smoothing_keeps_the_predicted_region_of_the_clean_image() -> None:
    """With so much noise that another class is predicted, the region is the clean image's."""
    model, layers = network("gradcam")
    smooth = Smooth(methods.get("gradcam"), samples=2, noise=3.0)
    inside = model(IMAGES).argmax(dim=1) == 1
    maps = UNetCAM(model, layers, smooth)(IMAGES, PredictedRegion(1))["up4"]

    @dataclasses.dataclass(frozen=True)
    class Fixed(ClassScore):
        def region(self, logits: Tensor) -> Tensor:
            return inside

    expected = UNetCAM(model, layers, smooth)(IMAGES, Fixed(1))["up4"]
    torch.testing.assert_close(maps, expected)
    noisy = IMAGES + 3 * torch.randn(IMAGES.shape, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(model(noisy).argmax(dim=1) == 1, inside)


def test_smoothing_can_be_laid_over_smoothing_and_over_any_method() -> None:
    method = methods.get("smooth-smooth-layercam")
    assert method.name == "smooth-smooth-layercam"
    assert method.family == "gradient"
    assert method.settings["method"]["samples"] == 16
    result = UNetCAM(TwoLayers(), ["first"], dataclasses.replace(methods.get("smooth-edges")))(
        IMAGE
    )
    assert result.method == "smooth-edges"


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"noise": -1.0}])
def test_smoothing_without_a_sample_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Smooth(methods.get("gradcam"), **wrong)


def test_eigengradcam_turns_around_with_the_score() -> None:
    """What speaks for a class speaks against its negation: the component, once with each sign."""
    generator = torch.Generator().manual_seed(8)
    activation, gradient = torch.randn(2, 3, 5, 6, 7, generator=generator)
    method = methods.get("eigengradcam")
    ours, against = method.reduce(activation, gradient), method.reduce(activation, -gradient)
    torch.testing.assert_close(ours, -against)
    along = (ours * (activation * gradient).sum(dim=1)).sum(dim=(1, 2))
    assert (along > 0).all()


def test_seg_eigen_cam_is_numpys_component_of_activation_times_magnitude() -> None:
    """Its sign: the largest magnitude is positive, equation 13 (to 1e-5 of the largest)."""
    generator = torch.Generator().manual_seed(9)
    activation, gradient = torch.randn(2, 3, 5, 6, 7, generator=generator)
    ours = raw(methods.get("seg-eigen-cam"), activation, gradient)
    for image in range(3):
        points = (activation[image] * gradient[image].abs()).flatten(1).double().numpy().T
        points = points - points.mean(axis=0)
        component = points @ np.linalg.svd(points)[2][0]
        component *= np.sign(component[np.abs(component).argmax()])
        expected = np.maximum(component, 0).reshape(6, 7)
        np.testing.assert_allclose(ours[image], expected, atol=1e-5 * expected.max())


def test_seg_eigen_cam_does_not_tell_for_from_against() -> None:
    """|G| is that of the negated score too: the same map, and no sign to ask for."""
    generator = torch.Generator().manual_seed(9)
    activation, gradient = torch.randn(2, 3, 5, 6, 7, generator=generator)
    method = methods.get("seg-eigen-cam")
    assert torch.equal(raw(method, activation, gradient), raw(method, activation, -gradient))
    with pytest.raises(UnetcamError, match="'seg-eigen-cam' does not ask what speaks for"):
        UNetCAM(TwoLayers(), ["first"], "seg-eigen-cam", sign="negative")
