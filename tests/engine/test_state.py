"""The model, the random state and the global flags are left as they were found."""

from __future__ import annotations

import copy
import gc
import random
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import ModelError
from unetcam.targets import ClassScore

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.manual_seed(1))


def training_network(kind: type[UNet] = UNet) -> nn.Module:
    """In training, half a BatchNorm frozen, some parameters frozen, a gradient kept, a hook set."""
    model = seeded(kind(1, 3)).train()
    model.down1.eval()
    frozen = next(m for m in model.up2.modules() if isinstance(m, nn.BatchNorm2d))
    frozen.eval()
    frozen.weight.requires_grad_(False)
    for parameter in model.inc.parameters():
        parameter.requires_grad_(False)
    model.outc.weight.grad = torch.full_like(model.outc.weight, 5.0)
    model.register_buffer("counter", torch.zeros(()))
    model.up3.register_forward_hook(lambda module, args, out: None)
    return model


def state_of(model: nn.Module) -> dict[str, Any]:
    return {
        "training": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "grad objects": [id(p.grad) if p.grad is not None else None for p in model.parameters()],
        "parameters": [p.detach().clone() for p in model.parameters()],
        "parameter objects": [id(p) for p in model.parameters()],
        "buffers": [b.clone() for b in model.buffers()],
        "buffer objects": [id(b) for b in model.buffers()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "torch random": torch.get_rng_state(),
        "python random": random.getstate(),
        "numpy random": np.random.get_state()[1].copy(),  # noqa: NPY002
        "grad mode": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "benchmark": torch.backends.cudnn.benchmark,
        "precision": torch.get_float32_matmul_precision(),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for what, found in before.items():
        left = after[what]
        if isinstance(found, list):
            assert len(found) == len(left), what
            for a, b in zip(found, left, strict=True):
                assert torch.equal(a, b) if isinstance(a, Tensor) else a == b, what
        elif isinstance(found, Tensor):
            assert torch.equal(found, left), what
        else:
            assert np.array_equal(found, left) if isinstance(found, np.ndarray) else found == left


class Unruly(nn.Module):
    """Draws random numbers, counts its calls in a buffer and turns global flags."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.last = x.mean().view(1)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        noise = torch.rand(()) + random.random() + np.random.rand()  # noqa: NPY002
        return self.inner(x) + 0 * float(noise)


def raising_forward(model: nn.Module) -> Callable[[], Any]:
    def explode(module: nn.Module, args: Any) -> None:
        raise RuntimeError("forward")

    model.up4.register_forward_pre_hook(explode)
    return lambda: UNetCAM(model, ["up1", "up2"])(IMAGES)


def raising_target(model: nn.Module) -> Callable[[], Any]:
    @dataclass(frozen=True)
    class Explosive(ClassScore):
        def score(self, logits: Tensor, reference: Tensor | None = None) -> Any:
            raise RuntimeError("target")

    return lambda: UNetCAM(model, ["up1", "up2"])(IMAGES, [ClassScore(0), Explosive(1)])


class _Explode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("backward")


def raising_backward(model: nn.Module) -> Callable[[], Any]:
    model.up3.register_forward_hook(lambda module, args, out: _Explode.apply(out))
    return lambda: UNetCAM(model, ["up1", "up2"])(IMAGES)


@pytest.mark.parametrize("mishap", [raising_forward, raising_target, raising_backward])
def test_is_left_as_found_when_an_exception_flies(
    mishap: Callable[[nn.Module], Callable[[], Any]],
) -> None:
    model = training_network()
    call = mishap(model)
    before = state_of(model)
    with pytest.raises((RuntimeError, ModelError), match=mishap.__name__.removeprefix("raising_")):
        call()
    assert_same(before, state_of(model))


CALLERS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "plain": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam"])
def test_is_left_as_found_whatever_the_caller_has_on(caller: str, method: str) -> None:
    model = training_network()
    expected = UNetCAM(copy.deepcopy(model), ["up1", "up4"], method)(IMAGES)
    with CALLERS[caller]():
        images = IMAGES.clone()
        before = state_of(model)
        result = UNetCAM(model, ["up1", "up4"], method)(images)
        assert_same(before, state_of(model))
    for layer in result.layers:
        assert result[layer].dtype == torch.float32
        if caller == "autocast":  # bfloat16 carries three digits: the maps must still be alike
            a, b = result[layer].flatten(1), expected[layer].flatten(1)
            assert torch.nn.functional.cosine_similarity(a, b).min() > 0.97
        else:
            assert torch.equal(result[layer], expected[layer])


def test_find_layers_leaves_the_model_as_found() -> None:
    model = training_network()
    before = state_of(model)
    find_layers(model, IMAGES)
    assert_same(before, state_of(model))


def test_undoes_what_the_model_itself_changes_in_a_forward() -> None:
    model = Unruly(seeded(UNet(1, 3)))
    before = state_of(model)
    UNetCAM(model, ["inner.up4"])(IMAGES)
    assert_same(before, state_of(model))


def test_evaluates_a_network_in_training_as_one_in_evaluation() -> None:
    model = seeded(UNet(1, 3))
    expected = UNetCAM(model, ["up4"])(IMAGES)["up4"]
    assert torch.equal(UNetCAM(model.train(), ["up4"])(IMAGES)["up4"], expected)


def test_a_network_of_frozen_parameters_gives_the_same_maps() -> None:
    model = seeded(UNet(1, 3))
    expected = UNetCAM(model, ["up1"])(IMAGES)["up1"]
    assert torch.equal(UNetCAM(model.requires_grad_(False), ["up1"])(IMAGES)["up1"], expected)
    assert not any(p.requires_grad for p in model.parameters())


def test_training_goes_on_as_if_nothing_had_been_explained() -> None:
    def train(*, explain: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = seeded(UNet(1, 3)).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            if explain:
                UNetCAM(model, ["up2"])(IMAGES)
            optimiser.zero_grad()
            model(IMAGES + torch.rand(())).square().mean().backward()
            optimiser.step()
        return [p.detach() for p in model.parameters()] + list(model.buffers())

    for a, b in zip(train(explain=False), train(explain=True), strict=True):
        assert torch.equal(a, b)


def test_a_thousand_calls_let_neither_memory_nor_hooks_grow() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 2, 1))
    image = torch.rand(1, 1, 64, 64)
    cam = UNetCAM(model, ["0"])

    def explain(times: int) -> tuple[int, int]:
        for _ in range(times):
            cam(image)
        gc.collect()
        tensors = sum(isinstance(thing, Tensor) for thing in gc.get_objects())
        return tensors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    tensors, peak = explain(200)
    hooks = state_of(model)["hooks"]
    tensors_after, peak_after = explain(1000)
    assert tensors_after == tensors
    assert peak_after - peak < 8 * 1024  # KiB; one leaked map per call would be 32 MiB
    assert state_of(model)["hooks"] == hooks
