"""The one entry point: what it takes, what it gives, and what it says when it can't."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

import unetcam
from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError, ModelError, NumericalError
from unetcam.models.loaded_model import LoadedModel
from unetcam.targets import ClassScore

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(4))


def test_the_public_names_are_those() -> None:
    assert {"CAMResult", "UNetCAM", "__version__", "find_layers", "load"} < set(unetcam.__all__)
    assert all(hasattr(unetcam, name) for name in unetcam.__all__)


def test_explains_every_class_at_every_decoder_layer_deepest_first() -> None:
    with UNetCAM(seeded(UNet(1, 3))) as cam:
        result = cam(IMAGES)
    assert cam.layers == result.layers == ("up1", "up2", "up3", "up4")
    assert [tuple(result[layer].shape) for layer in cam.layers] == [
        (2, 3, 4, 4),
        (2, 3, 8, 8),
        (2, 3, 16, 16),
        (2, 3, 32, 32),
    ]
    assert result.logits.shape == (2, 3, 32, 32)
    assert not result.logits.requires_grad
    assert all((maps >= 0).all() and not maps.requires_grad for maps in result.maps.values())
    torch.testing.assert_close(result.logits, cam.model(IMAGES))


def test_a_with_block_lets_go_of_the_trace_and_keeps_the_names() -> None:
    model, images = seeded(UNet(1, 3)), torch.rand(1, 1, 16, 16)
    with UNetCAM(model) as cam:
        before = cam(images)
        (look,) = cam.loaded._looks.values()
        trace, names = weakref.ref(look.run), cam.layers
        del look
    gc.collect()
    assert trace() is None
    assert not cam.loaded.is_traced
    assert cam.layers == names == before.layers
    again = cam(images)  # traced anew
    assert cam.loaded.is_traced
    assert all(torch.equal(again[name], before[name]) for name in names)
    assert torch.equal(again.logits, before.logits)


def test_a_with_block_lets_go_when_an_exception_flies_and_before_any_call() -> None:
    images = torch.rand(1, 1, 16, 16)
    cam = UNetCAM(UNet(1, 3), example=images)
    with pytest.raises(ZeroDivisionError), cam:
        raise ZeroDivisionError
    assert not cam.loaded.is_traced
    assert cam.layers == ("up1", "up2", "up3", "up4")
    with UNetCAM(nn.Conv2d(1, 2, 1), example=images) as flat:
        pass  # a network without a decoder has no layers to keep
    with pytest.raises(LayerError, match="found at the first call"):
        _ = flat.layers


def test_a_with_block_leaves_the_trace_of_a_loaded_model_to_its_owner() -> None:
    images = torch.rand(1, 1, 16, 16)
    loaded = LoadedModel.of(UNet(1, 3), images)
    with UNetCAM(loaded) as cam:
        cam(images)
    assert loaded.is_traced
    with UNetCAM(loaded, output=lambda returned: returned) as cam:
        cam(images)
    assert loaded.is_traced
    assert not cam.loaded.is_traced


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_with_block_gives_the_memory_that_torch_keeps_back() -> None:
    model, images = UNet(1, 3).cuda(), torch.rand(1, 1, 64, 64).cuda()
    with UNetCAM(model) as cam:
        cam(images)
        kept = torch.cuda.memory_reserved()
    assert torch.cuda.memory_reserved() < kept


def test_three_dimensions() -> None:
    result = UNetCAM(seeded(UNet3d()))(torch.rand(1, 1, 8, 8, 8)).resized()
    assert result["dec2"].shape == result["dec1"].shape == (1, 3, 8, 8, 8)


def test_layers_are_known_at_once_with_an_example() -> None:
    assert UNetCAM(UNet(), example=IMAGES).layers == ("up1", "up2", "up3", "up4")
    with pytest.raises(LayerError, match="pass example=images"):
        _ = UNetCAM(UNet()).layers


def test_layers_may_be_given_as_modules() -> None:
    model = UNet()
    assert UNetCAM(model, [model.up2, "up4"]).layers == ("up2", "up4")
    assert UNetCAM(model, "up2").layers == ("up2",)
    with pytest.raises(LayerError, match="is no part of the model"):
        UNetCAM(model, [nn.ReLU()])


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("up5", r"no layer 'up5': did you mean .*'up4'"),
        ("upp1.conv", r"did you mean 'up1.conv'"),
        ("qqqqqq", "find_layers lists the layers"),
    ],
)
def test_an_unknown_layer_names_the_nearest(layer: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        UNetCAM(UNet(), [layer])


def test_no_layer_is_a_mistake() -> None:
    with pytest.raises(LayerError, match="leaves nothing to explain"):
        UNetCAM(UNet(), [])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(1, 32, 32), r"shape \(1, 32, 32\): add the missing dimension"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.uint8), "torch.uint8"),
        (torch.rand(0, 1, 32, 32), r"\(0, 1, 32, 32\)"),
        ([[1.0]], "this is a list"),
    ],
)
def test_images_that_are_none_are_refused(images: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        UNetCAM(UNet())(images)  # type: ignore[arg-type]


def test_a_model_without_values_on_the_meta_device_is_refused() -> None:
    with pytest.raises(ModelError, match="hold no values"):
        UNetCAM(UNet().to("meta"), ["up1"])(IMAGES)


def test_images_of_another_type_than_the_model_are_refused_but_under_autocast() -> None:
    with pytest.raises(ModelError, match=r"convert them with images.to\(torch.float32\)"):
        UNetCAM(UNet(), ["up1"])(IMAGES.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert UNetCAM(UNet(), ["up1"])(IMAGES.bfloat16())["up1"].dtype == torch.float32


def test_one_target_may_stand_alone() -> None:
    cam = UNetCAM(seeded(UNet(1, 3)), ["up4"])
    result = cam(IMAGES, ClassScore(1))
    assert result.targets == (ClassScore(1),)
    assert torch.equal(result["up4"], cam(IMAGES, [ClassScore(1)])["up4"])


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


class Labels(Classifier):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).argmax(1)


class Detached(Classifier):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).detach()


def test_an_output_that_is_no_segmentation_map_is_refused() -> None:
    model = Labels()
    for call in (UNetCAM(model, ["conv"]), UNetCAM(model), lambda x: find_layers(model, x)):
        with pytest.raises(ModelError, match=r"returned a tensor of shape \(\d, .*no segmentation"):
            call(IMAGES)


def test_logits_that_are_detached_are_refused() -> None:
    with pytest.raises(LayerError, match="return logits that are not detached"):
        UNetCAM(Detached(), ["conv"])(IMAGES)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_named(bad: float) -> None:
    images = IMAGES.clone()
    images[0, 0, 3, 3] = bad
    with pytest.raises(NumericalError, match="in the input images"):
        UNetCAM(seeded(UNet()), ["up4"])(images)
    model = seeded(UNet())
    model.up3.conv[3].bias.data[0] = bad
    with pytest.raises(NumericalError, match="the activation of layer 'up3'"):
        UNetCAM(model, ["up2", "up3"])(IMAGES)
    model = seeded(UNet())
    model.outc.bias.data[0] = bad
    with pytest.raises(NumericalError, match="in the logits"):
        UNetCAM(model, ["up2", "up3"])(IMAGES)


class Root(nn.Module):
    """Finite forward, infinite slope: the square root at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.conv(x) * 0).sqrt()


def test_a_gradient_that_is_not_finite_names_its_layer() -> None:
    with pytest.raises(NumericalError, match="the gradient at layer 'conv'"):
        UNetCAM(Root(), ["conv"])(IMAGES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_maps_stay_on_the_gpu_and_agree_with_the_cpu(method: str) -> None:
    model = seeded(UNet(1, 3)).double()
    expected = UNetCAM(model, method=method)(IMAGES.double())
    result = UNetCAM(model.cuda(), method=method)(IMAGES.double().cuda())
    for layer in expected.layers:
        assert result[layer].is_cuda
        torch.testing.assert_close(result[layer].cpu(), expected[layer], rtol=1e-8, atol=1e-12)
