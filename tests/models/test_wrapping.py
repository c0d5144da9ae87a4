"""Models in wrappers, of several inputs, that only classify, or that compute in another way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torchvision
from torch import Tensor, nn

from tests.engine.test_state import assert_same, state_of
from tests.models.zoo import ZOO
from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError, ModelError
from unetcam.targets import ClassScore, Pixel

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(5))
LAYERS = ("up1", "up2", "up3", "up4")

# -- wrappers --------------------------------------------------------------------------------


class Lightning(nn.Module):
    """As a LightningModule is written: the network under a name of its own, beside a loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.loss = model, nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return self.loss(self(batch[0]), batch[1])


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_within(model: nn.Module) -> nn.Module:
    model.up2.conv = torch.compile(model.up2.conv, backend="eager")
    return model


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "DataParallel": (nn.DataParallel, ""),
    "torch.compile": (lambda model: torch.compile(model, backend="eager"), ""),
    "torch.compile of DataParallel": (
        lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
        "",
    ),
    "model.compile": (compiled_in_place, ""),
    "a compiled block": (compiled_within, ""),
    "Lightning": (Lightning, "model."),
    "Lightning, compiled": (lambda model: Lightning(torch.compile(model)), "model._orig_mod."),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_explained_as_the_model_in_it(wrapper: str) -> None:
    network = seeded(UNet(1, 3))
    expected = UNetCAM(copy.deepcopy(network))(IMAGES)
    wrap, prefix = WRAPPERS[wrapper]
    model = wrap(network)
    names = tuple(prefix + layer for layer in LAYERS)
    before = state_of(model)
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    assert find_layers(model, IMAGES).decoder == names
    result = UNetCAM(model)(IMAGES)
    assert_same(before, state_of(model))
    assert forwards == [module.__dict__.get("forward") for module in model.modules()]
    assert result.layers == names
    for layer, name in zip(LAYERS, names, strict=True):
        assert torch.equal(result[name], expected[layer])
        alone = UNetCAM(model, [name])(IMAGES)
        torch.testing.assert_close(alone[name], expected[layer], rtol=1e-4, atol=1e-8)


def test_names_as_the_wrapper_has_them_are_understood() -> None:
    model = seeded(UNet(1, 3))
    expected = UNetCAM(model, ["up3"])(IMAGES)["up3"]
    parallel, compiled = nn.DataParallel(model), torch.compile(model, backend="eager")
    for cam in (
        UNetCAM(parallel, ["module.up3"]),
        UNetCAM(parallel, [parallel.module.up3]),
        UNetCAM(compiled, ["_orig_mod.up3"]),
    ):
        assert torch.equal(cam(IMAGES)[cam.layers[0]], expected)


def test_distributed_data_parallel(tmp_path: Path) -> None:
    model = seeded(UNet(1, 3))
    expected = UNetCAM(model)(IMAGES)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        parallel = nn.parallel.DistributedDataParallel(model)
        before = state_of(parallel)
        result = UNetCAM(parallel)(IMAGES)
        assert_same(before, state_of(parallel))
    finally:
        torch.distributed.destroy_process_group()
    assert result.layers == LAYERS
    assert all(torch.equal(result[layer], expected[layer]) for layer in LAYERS)


def test_a_compiled_model_still_runs_compiled_afterwards() -> None:
    runs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Any:
        runs.append(1)
        return graph.forward

    model = torch.compile(seeded(UNet(1, 3)), backend=backend)
    with torch.no_grad():
        expected = model(IMAGES)
        compiled = len(runs)
        assert compiled
        UNetCAM(model)(IMAGES)
        assert torch.equal(model(IMAGES), expected)
    assert len(runs) == compiled


# -- several inputs --------------------------------------------------------------------------


class Fused(nn.Module):
    """An image, a second one of half the size, and numbers of the patient's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(2, 4, 3, padding=1)
        self.age, self.mid = nn.Linear(3, 4), nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.dec, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(
        self, image: Tensor, other: Tensor, age: Tensor | None = None, scale: float = 1.0
    ) -> Tensor:
        skip = torch.relu(self.first(image))
        deep = torch.cat([nn.functional.max_pool2d(skip, 2), self.second(other)], dim=1)
        deep = self.mid(deep)
        up = self.up(deep if age is None else deep * scale)
        if age is not None:
            up = up + self.age(age)[:, :, None, None]
        return self.out(torch.relu(self.dec(torch.cat([skip, up], dim=1))))


OTHER = torch.rand(2, 2, 16, 16, generator=torch.manual_seed(6))
AGE = torch.rand(2, 3, generator=torch.manual_seed(7))


class Curried(nn.Module):
    def __init__(self, model: nn.Module, **given: Any) -> None:
        super().__init__()
        self.model, self.given = model, given

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image, **self.given)


@pytest.mark.parametrize(
    ("inputs", "given"),
    [
        ((IMAGES, OTHER), {"other": OTHER}),
        ([IMAGES, OTHER, AGE], {"other": OTHER, "age": AGE}),
        (
            {"age": AGE, "other": OTHER, "image": IMAGES, "scale": 0.5},
            {"other": OTHER, "age": AGE, "scale": 0.5},
        ),
    ],
)
@pytest.mark.parametrize("caller", [torch.enable_grad, torch.inference_mode])
def test_a_model_of_several_inputs(inputs: Any, given: dict[str, Any], caller: Any) -> None:
    model = seeded(Fused())
    expected = UNetCAM(Curried(model, **given), ["model.dec"])(IMAGES)
    table = find_layers(model, inputs)
    assert table.decoder == ("dec",)
    assert [layer.skips for layer in table if layer.stage == "decoder"] == [("first",)]
    before = state_of(model)
    with caller():
        cam = UNetCAM(model, example=inputs)
        result = cam(inputs)
    assert_same(before, state_of(model))
    assert result.layers == cam.layers == ("dec",)
    assert torch.equal(result.logits, expected.logits)
    assert torch.equal(result["dec"], expected["model.dec"])
    parts = UNetCAM(model, ["dec:skip", "mid"])(inputs)
    assert parts["dec:skip"].shape == (2, 2, 32, 32)


def test_inputs_without_an_image_are_refused() -> None:
    for inputs in ((AGE,), {"age": AGE}, "image.png", 3):
        with pytest.raises(ModelError, match="a tuple or dict of a model's inputs"):
            UNetCAM(Fused(), ["dec"])(inputs)  # type: ignore[arg-type]


# -- classifiers -----------------------------------------------------------------------------


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.last = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.last(self.stem(x))).flatten(1))


@pytest.mark.parametrize("shortcuts", [True, False])
def test_a_classifier_is_explained_at_its_last_map_before_pooling(shortcuts: bool) -> None:
    """CAM's own case: the weights of the linear head, over the pixels that are averaged."""
    model = seeded(Classifier()).double()
    images = IMAGES.double()
    features = model.last(model.stem(images))
    pixels = features[0, 0].numel()
    expected = torch.einsum("ck,bkhw->bchw", model.fc.weight, features).relu() / pixels
    assert find_layers(model, images).decoder == ("last",)
    result = UNetCAM(model, shortcuts=shortcuts)(images)
    assert result.logits.shape == (2, 3, 1, 1)
    torch.testing.assert_close(result["last"], expected.detach())
    one = UNetCAM(model, ["last"], output=lambda scores: scores)(images, Pixel(1, y=0, x=0))
    torch.testing.assert_close(one["last"], result["last"][:, 1:2])


def test_known_classifiers() -> None:
    images = torch.rand(1, 3, 64, 64)
    resnet = torchvision.models.resnet18(weights=None).eval()
    assert find_layers(resnet, images).decoder == ("layer4",)
    transformer = torchvision.models.VisionTransformer(64, 16, 2, 2, 24, 48, num_classes=3).eval()
    (layer,) = find_layers(transformer, images).decoder
    maps = UNetCAM(transformer)(images)[layer]
    assert maps.shape == (1, 3, 4, 4)  # the patches' tokens, without the class token


class TwoHeads(nn.Module):
    """A U-Net with an auxiliary classifier on its bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.fc = UNet(1, 3), nn.Linear(64, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        kept: list[Tensor] = []
        handle = self.net.down4.register_forward_hook(lambda m, args, out: kept.append(out))
        logits = self.net(x)
        handle.remove()
        return {"labels": self.fc(kept[0].mean((2, 3))), "masks": logits}


def test_a_segmentation_comes_before_labels_and_an_auxiliary_head_can_be_picked() -> None:
    model = seeded(TwoHeads())
    assert UNetCAM(model)(IMAGES).layers == tuple(f"net.{layer}" for layer in LAYERS)
    result = UNetCAM(model, ["net.down4"], output=lambda out: out["labels"])(IMAGES, ClassScore(4))
    assert result["net.down4"].any()
    assert result.logits.shape == (2, 5, 1, 1)
    with pytest.raises(LayerError, match=r"No gradient .*'net.up4'"):
        UNetCAM(model, ["net.up4"], output=lambda out: out["labels"])(IMAGES)


# -- numbers of fewer digits, and another order in memory -------------------------------------


@pytest.mark.parametrize(("dtype", "alike"), [(torch.bfloat16, 0.9), (torch.float16, 0.98)])
@pytest.mark.parametrize(
    "name", ["nnU-Net PlainConvUNet, 3-D", "MONAI UNETR, 2-D", "transformers Segformer"]
)
def test_half_precision(name: str, dtype: torch.dtype, alike: float) -> None:
    """Cosine similarity to the map of the same network, of the same weights, in float64."""
    generator = torch.Generator().manual_seed(8)
    images = torch.rand(2, *ZOO[name].image, generator=generator).to(dtype)
    torch.manual_seed(8)
    model = seeded(ZOO[name].build()).to(dtype)
    exact = copy.deepcopy(model).double()
    expected = UNetCAM(exact, method="hirescam")(images.double())
    with torch.no_grad():
        model(images)  # transformers sets hooks of its own at the first call
    before = state_of(model)
    result = UNetCAM(model, method="hirescam")(images)
    assert_same(before, state_of(model))
    assert result.layers == expected.layers
    for layer in expected.layers:
        assert result[layer].dtype == torch.float32
        a, b = result[layer].double().flatten(1), expected[layer].flatten(1)
        assert torch.nn.functional.cosine_similarity(a, b).min() > alike


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("dims", [2, 3])
def test_channels_last(dims: int, method: str, shortcuts: bool) -> None:
    model = seeded(UNet(1, 3) if dims == 2 else UNet3d()).double()
    images = IMAGES.double() if dims == 2 else torch.rand(2, 1, 8, 8, 8).double()
    expected = UNetCAM(model, method=method, shortcuts=False)(images)
    form = torch.channels_last if dims == 2 else torch.channels_last_3d
    model = model.to(memory_format=form)
    before = state_of(model)
    result = UNetCAM(model, method=method, shortcuts=shortcuts)(images.to(memory_format=form))
    assert_same(before, state_of(model))
    for layer in expected.layers:
        torch.testing.assert_close(result[layer], expected[layer], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("made", ["module", "unflattened", "program"])
def test_an_exported_program_is_told_to_be_one(made: str) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, 2, 1), nn.Upsample(scale_factor=2), nn.Conv2d(4, 2, 1)
    )
    program = torch.export.export(network.eval(), (torch.zeros(1, 1, 8, 8),))
    given = {
        "module": program.module,
        "unflattened": lambda: torch.export.unflatten(program),
        "program": lambda: program,
    }[made]()
    with pytest.raises(ModelError, match=r"torch\.export made"):
        UNetCAM(given)
