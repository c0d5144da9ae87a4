"""The model, the random state and the global flags are left as they were found."""

from __future__ import annotations

import copy
import gc
import random
import resource
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

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


class Changing(nn.Module):
    """Changes what is not its own business in a forward."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        super().__init__()
        self.inner, self.change = seeded(UNet(1, 3)), change
        self.register_buffer("bank", torch.tensor([1.0, float("nan"), 3.0]))
        self.register_buffer("late", None)
        self.fake = torch.ao.quantization.FakeQuantize()

    def forward(self, x: Tensor) -> Tensor:
        out = self.inner(x)
        self.change(self)
        return out


def add_a_buffer(model: Any) -> None:
    model.register_buffer("more", torch.ones(1))


def put_a_parameter(model: Any) -> None:
    model.inner.outc.bias = nn.Parameter(torch.ones(3))


def fail_halfway(model: Any) -> None:
    model.bank.fill_(0)
    put_a_parameter(model)
    raise RuntimeError("halfway")


CHANGES: dict[str, Callable[[Any], None]] = {
    "in place": lambda m: m.bank.add_(1),
    "by data": lambda m: m.bank.data.add_(1),
    "by numpy": lambda m: m.bank.numpy().fill(5),
    "shorter": lambda m: m.bank.resize_(1),
    "longer": lambda m: m.bank.resize_(9).fill_(2),
    "set anew": lambda m: setattr(m, "bank", torch.zeros(2, 2)),
    "to none": lambda m: setattr(m, "bank", None),
    "from none": lambda m: setattr(m, "late", torch.zeros(2)),
    "one more": add_a_buffer,
    "one less": lambda m: delattr(m, "bank"),
    "fake quantisation": lambda m: m.fake.train()(torch.rand(4)),
    "statistics": lambda m: F.batch_norm(
        torch.rand(2, 4, 3, 3),
        m.inner.inc[1].running_mean,
        m.inner.inc[1].running_var,
        training=True,
    ),
    "a parameter": put_a_parameter,
    "a parameter asks for a gradient": lambda m: m.inner.inc[0].weight.requires_grad_(),
    "in training": lambda m: m.inner.train(),
    "exactly": lambda m: torch.use_deterministic_algorithms(True),
    "without cudnn": lambda m: setattr(torch.backends.cudnn, "enabled", False),
    "halfway": fail_halfway,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_a_forward_changes_is_as_it_was(change: Callable[[Any], None]) -> None:
    model = Changing(change)

    def state() -> dict[str, Any]:
        flags = (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.enabled)
        names = [
            [*module._buffers, None, *module._parameters, module.training]
            for module in model.modules()
        ]
        found = state_of(model)
        found["buffers"] = [buffer.nan_to_num(-7.0) for buffer in found["buffers"]]
        return {**found, "flags": flags, "names": names}

    before = state()
    with suppress(RuntimeError):
        UNetCAM(model, ["inner.up2", "inner.up4"])(IMAGES)
    assert_same(before, state())


def test_a_buffer_that_nobody_changed_is_not_written() -> None:
    """A graph that the caller holds has saved it, and would not go backward any more."""
    model = seeded(UNet(1, 3))
    loss = model(IMAGES).square().mean()
    UNetCAM(model)(IMAGES)
    loss.backward()
    assert model.inc[0].weight.grad is not None


def test_what_is_made_under_inference_mode_is_explained_and_left() -> None:
    with torch.inference_mode():
        model = seeded(UNet(1, 3)).train()
    twin = seeded(UNet(1, 3))
    parameters = [*model.parameters(), *model.buffers()]
    for layers, shortcuts in ((None, True), (["inc", "up2"], False)):
        ours = UNetCAM(model, layers, shortcuts=shortcuts)(IMAGES)
        right = UNetCAM(twin, layers, shortcuts=shortcuts)(IMAGES)
        for layer in right.layers:
            torch.testing.assert_close(ours[layer], right[layer], rtol=1e-5, atol=1e-9)
    after = [*model.parameters(), *model.buffers()]
    assert all(one is other for one, other in zip(parameters, after, strict=True))
    assert all(p.requires_grad and p.is_inference() for p in model.parameters())
    assert all(module.training for module in model.modules())


def test_cached_parametrisations_are_those_of_the_caller() -> None:
    model = seeded(UNet(1, 3))
    parametrize.register_parametrization(model.up4.conv[0], "weight", nn.Tanh())
    expected = UNetCAM(model, ["inc", "up4"])(IMAGES)
    with parametrize.cached():
        kept = model.up4.conv[0].weight
        ours = UNetCAM(model, ["inc", "up4"])(IMAGES)
        assert model.up4.conv[0].weight is kept
    for layer in ("inc", "up4"):
        torch.testing.assert_close(ours[layer], expected[layer])
    with parametrize.cached():
        UNetCAM(model)(IMAGES)
        model(IMAGES).sum().backward()
    assert model.up4.conv[0].parametrizations.weight.original.grad is not None


class Offloaded(nn.Module):
    """Its weight is a placeholder but while it runs, as accelerate's offloading has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.weight = self.conv.weight.data
        self.conv.weight = nn.Parameter(self.weight.to("meta"))
        self.conv.register_forward_pre_hook(self._load)
        self.conv.register_forward_hook(self._unload)

    def _load(self, module: Any, args: Any) -> None:
        needed = module.weight.requires_grad
        module.weight = nn.Parameter(self.weight.clone(), requires_grad=needed)

    def _unload(self, module: Any, args: Any, output: Any) -> None:
        needed = module.weight.requires_grad
        module.weight = nn.Parameter(module.weight.to("meta"), requires_grad=needed)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_placeholders_of_offloaded_weights_are_left_as_found() -> None:
    model = nn.Sequential(Offloaded(), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    placeholder = model[0].conv.weight
    result = UNetCAM(model, ["1"])(IMAGES)
    assert result["1"].max() > 0
    assert model[0].conv.weight is placeholder
    assert placeholder.requires_grad
    assert placeholder.is_meta


def test_lazy_modules_are_told_by_name() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ModelError, match="'weight' of a LazyConv2d is not initialised"):
        UNetCAM(model, ["1"])(IMAGES)
    model(IMAGES)
    assert UNetCAM(model, ["1"])(IMAGES)["1"].shape == (2, 2, 30, 30)


class Stubborn(nn.Identity):
    """Refuses to go back into training."""

    firm = False

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training" and value and self.firm:
            raise RuntimeError("stays in evaluation")
        super().__setattr__(name, value)


def test_an_undo_that_fails_skips_no_other_and_is_told() -> None:
    model: Any = nn.Sequential(Stubborn(), Unruly(seeded(UNet(1, 3))), nn.Identity()).train()
    model[0].firm = True
    before = state_of(model)
    with pytest.raises(RuntimeError, match="stays in evaluation"):
        UNetCAM(model, ["1.inner.up4"])(IMAGES)
    model[0].__dict__["training"] = True
    assert_same(before, state_of(model))
