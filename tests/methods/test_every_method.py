"""Shapes, numbers, absent targets, seeds, batches, precision: alike for every method."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.engine.test_state import Unruly, assert_same, state_of, training_network
from tests.methods.harness import (
    IMAGES,
    NAMES,
    TARGETS,
    VOLUMES,
    WRAPPED,
    explain,
    kind,
    network,
    quick,
)
from unetcam import UNetCAM, methods
from unetcam.errors import LayerError
from unetcam.targets import ClassScore, PredictedRegion

EVERY = pytest.mark.parametrize("name", [*NAMES, *WRAPPED])


def close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    peak = float(torch.nan_to_num(theirs).abs().max())
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * peak, equal_nan=True)


@EVERY
def test_maps_have_the_layers_shape_and_are_finite_and_not_negative(name: str) -> None:
    result = explain(name, IMAGES, TARGETS)
    model, layers = network(name)
    assert result.layers == tuple(layers)
    assert result.method == name
    assert result.targets == tuple(TARGETS)
    for layer, side in zip(layers, (32, 8), strict=False):
        maps = result[layer]
        assert maps.shape == (2, len(TARGETS), side, side)
        assert maps.dtype == torch.float32
        assert not maps.requires_grad
        assert torch.isfinite(maps).all()
        assert (maps >= 0).all()
        assert (maps > 0).any()
    torch.testing.assert_close(result.logits, model(IMAGES))


@EVERY
def test_volumes(name: str) -> None:
    result = explain(name, VOLUMES)
    for maps in result.maps.values():
        assert maps.ndim == 5
        assert maps.shape[:2] == (2, 3)
        assert torch.isfinite(maps).all()
        assert (maps >= 0).all()


@EVERY
def test_a_target_that_does_not_exist_has_no_map(name: str) -> None:
    """Of the second image alone the class is not predicted."""
    model, layers = network(name)
    with torch.no_grad():
        margin = model(IMAGES)
        margin = (margin[:, 0] - margin[:, 1:].amax(dim=1)).flatten(1).amax(dim=1)
        model.outc.bias[0] -= float(margin.sum()) / 2
        predicted = (model(IMAGES).argmax(dim=1) == 0).flatten(1).any(dim=1)
    assert predicted.sum() == 1
    result = UNetCAM(model, layers, quick(name))(IMAGES, [PredictedRegion(0), ClassScore(0)])
    for maps in result.maps.values():
        assert maps[~predicted, 0].isnan().all()
        assert torch.isfinite(maps[predicted]).all()
        assert torch.isfinite(maps[:, 1]).all()


@EVERY
def test_a_batch_gives_what_each_image_gives_alone(name: str) -> None:
    """To 1e-4 of the largest value: convolutions round by the batch's size."""
    whole = explain(name, IMAGES, TARGETS)
    for position in range(2):
        alone = explain(name, IMAGES[position : position + 1], TARGETS)
        for layer in whole.layers:
            close(whole[layer][position : position + 1], alone[layer], 1e-4)


@EVERY
def test_the_same_call_gives_the_same_map_whatever_was_drawn_before(name: str) -> None:
    first = explain(name, IMAGES, TARGETS)
    torch.rand(7)
    second = explain(name, IMAGES, TARGETS)
    for layer in first.layers:
        assert torch.equal(first[layer], second[layer])


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if "seed" in methods.get(name).settings] + ["smooth-gradcam"],
)
def test_another_seed_gives_another_map(name: str) -> None:
    model, layers = network(name)
    maps = [
        UNetCAM(model, layers, dataclasses.replace(quick(name), seed=seed))(IMAGES)["up4"]
        for seed in (0, 1)
    ]
    assert not torch.equal(*maps)


@EVERY
def test_the_result_says_how_it_was_made(name: str) -> None:
    method = quick(name)
    model, layers = network(name)
    assert UNetCAM(model, layers, method)(IMAGES).settings == method.settings
    assert ("seed" in method.settings) == any(
        word in name for word in ("random", "rise", "smooth", "lime", "kernelshap")
    )


@EVERY
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = training_network(kind(name))
    before = state_of(model)
    UNetCAM(model, ["up4"], quick(name))(IMAGES)
    assert_same(before, state_of(model))


@EVERY
def test_the_model_is_left_as_it_was_when_a_target_fails(name: str) -> None:
    @dataclasses.dataclass(frozen=True)
    class Failing(ClassScore):
        def score(self, logits: Tensor, reference: Tensor | None = None) -> object:
            raise KeyError("no")

    model = training_network(kind(name))
    before = state_of(model)
    with pytest.raises(KeyError):
        UNetCAM(model, ["up4"], quick(name))(IMAGES, [Failing(1)])
    assert_same(before, state_of(model))


@EVERY
def test_under_the_callers_no_grad_and_inference_mode(name: str) -> None:
    expected = explain(name, IMAGES, TARGETS)
    model, layers = network(name)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            result = UNetCAM(model, layers, quick(name))(IMAGES.clone(), TARGETS)
        for layer in expected.layers:
            close(result[layer], expected[layer], 1e-6)


@EVERY
def test_double_precision_is_kept(name: str) -> None:
    """Single precision agrees with it to 2e-3 of the largest value."""
    model, layers = network(name)
    result = UNetCAM(model.double(), layers, quick(name))(IMAGES.double(), TARGETS)
    single = explain(name, IMAGES, TARGETS)
    for layer in layers:
        assert result[layer].dtype == torch.float64
        if "seed" not in result.settings:  # draws differ by the type
            close(single[layer].double(), result[layer], 2e-3)


@EVERY
def test_under_autocast_maps_are_single_and_near(name: str) -> None:
    """bfloat16 has 8 bits: in the mean, maps agree to 10 % of the largest value, and to 20 % where
    scores are subtracted."""
    tolerance = 0.2 if name == "ablationcam" else 0.1
    single = explain(name, IMAGES)
    with torch.autocast("cpu", torch.bfloat16):
        result = explain(name, IMAGES)
    for layer in single.layers:
        assert result[layer].dtype == torch.float32
        if (name, layer) == ("eigengradcam", "up2"):
            continue  # the channels' loadings nearly cancel there, and rounding turns the sign
        difference = (result[layer] - single[layer]).abs().mean(dim=(0, 2, 3))
        assert (difference <= tolerance * single[layer].amax(dim=(0, 2, 3))).all()


@EVERY
def test_a_model_in_bfloat16_has_maps_in_single_precision(name: str) -> None:
    model, layers = network(name)
    result = UNetCAM(model.bfloat16(), layers, quick(name))(IMAGES.bfloat16())
    for maps in result.maps.values():
        assert maps.dtype == torch.float32
        assert torch.isfinite(maps).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@EVERY
def test_maps_stay_on_the_gpu_and_agree_with_the_cpu(name: str) -> None:
    model, layers = network(name)
    model, images = model.double(), IMAGES.double()
    expected = UNetCAM(model, layers, quick(name))(images)
    result = UNetCAM(model.cuda(), layers, quick(name))(images.cuda())
    for layer in layers:
        assert result[layer].is_cuda
        if "seed" not in result.settings:  # a device draws numbers of its own
            close(result[layer].cpu(), expected[layer], 1e-7)


@EVERY
def test_a_layer_that_never_runs_is_named(name: str) -> None:
    model, _ = network(name)
    model.spare = torch.nn.Conv2d(1, 1, 1)
    with pytest.raises(LayerError, match="never ran the layer 'spare'"):
        UNetCAM(model, ["spare"], quick(name))(IMAGES)


@EVERY
def test_a_method_says_where_it_comes_from(name: str) -> None:
    method = methods.get(name)
    assert method.name == name
    assert method.family in ("gradient", "activation", "perturbation", "baseline")
    assert all((method.title, method.formula, method.paper, method.when))


@EVERY
def test_an_unruly_network_is_understood(name: str) -> None:
    """One that draws numbers, writes buffers and lowers the precision of products in its forward.

    In double precision, which that flag does not reach: with bf16 units it is real in single.
    """
    plain, layers = network(name)
    images = IMAGES.double()
    expected = UNetCAM(plain.double(), layers[:1], quick(name))(images, TARGETS)
    model = Unruly(network(name)[0]).double()
    before = state_of(model)
    result = UNetCAM(model, ["inner.up4"], quick(name))(images, TARGETS)
    assert_same(before, state_of(model))
    close(result["inner.up4"], expected["up4"], 1e-7)


def test_the_page_tells_of_every_method_and_its_settings() -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    known = {*methods.names(), *(one.prefix for one in methods.wrappers())}
    assert set(rows) == known, "docs/methods.md has one row for each method"
    for name in methods.names():
        if name != "kernelshap":  # it refers to the row above
            for setting, value in methods.get(name).settings.items():
                assert f"`{setting}={value}`" in rows[name], f"docs/methods.md: {name}"


def test_one_seed_reaches_what_a_method_draws() -> None:
    assert methods.get("rise", 7).settings["seed"] == 7
    assert methods.get("gradcam", 7) is methods.get("gradcam")
    smooth = methods.get("smooth-random", 7).settings
    assert smooth["seed"] == smooth["method"]["seed"] == 7
    maps = [
        UNetCAM(*network("random"), methods.get("random", seed))(IMAGES)["up4"]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])
