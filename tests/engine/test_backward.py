"""Targets that share a backward, or need none, get the maps of single backwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tests.engine.test_shortcuts import COLOUR, GREY, TOLERANCES, smp_network
from tests.networks import Nameless, UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM
from unetcam.engine import backward
from unetcam.engine.memory import memory_bytes
from unetcam.errors import MemoryBudgetError
from unetcam.targets import ClassScore, PredictedRegion, Region

NETWORKS = {
    "transposed": (lambda: seeded(UNet(1, 3)), GREY),
    "bilinear": (lambda: seeded(UNet(1, 3, bilinear=True)), GREY[:, :, :45, :61]),
    "one channel": (lambda: seeded(UNet(1, 1)), GREY),
    "nameless": (lambda: seeded(Nameless()), GREY),
    "valid": (lambda: seeded(ValidUNet()), torch.rand(1, 1, 100, 116)),
    "3-D": (lambda: seeded(UNet3d()), torch.rand(1, 1, 16, 16, 8)),
    "smp": (smp_network("Unet"), COLOUR),
}


def at_once(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(backward, "_targets_at_once", lambda logits: count)


WANTED = [ClassScore(0), ClassScore(1), PredictedRegion(1), ClassScore(0, on="probability")]


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=["f32", "f64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_shared_backward_gives_the_maps_of_single_ones(
    name: str, dtype: torch.dtype, shortcuts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the norm of the difference, relative to the norm of a layer's maps."""
    make, images = NETWORKS[name]
    model, images = make().to(dtype), images.to(dtype)
    for method in ("gradcam", "gradcam++", "hirescam", "layercam"):
        cam = UNetCAM(model, method=method, shortcuts=shortcuts)
        at_once(monkeypatch, 1)
        single = cam(images, WANTED)
        at_once(monkeypatch, 3)
        shared = cam(images, WANTED)
        for layer in single.layers:
            ours, plain = shared[layer], single[layer]
            assert ours.shape == plain.shape
            assert torch.equal(ours.isnan(), plain.isnan())
            difference = torch.linalg.norm((ours - plain).nan_to_num())
            assert difference <= TOLERANCES[dtype] * torch.linalg.norm(plain.nan_to_num()), layer


@pytest.mark.parametrize("shortcuts", [True, False])
def test_half_precision_keeps_each_targets_own_range(
    shortcuts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seeded(UNet(1, 3))
    corner = torch.zeros(48, 64)
    corner[:2, :3] = 1
    wanted = [*map(ClassScore, range(3)), Region(1, corner)]
    at_once(monkeypatch, 4)
    cam = UNetCAM(model, ["up1", "up4"], shortcuts=shortcuts)
    exact = cam(GREY, wanted)
    with torch.autocast("cpu", torch.float16):
        half = cam(GREY, wanted)
    for layer in exact.layers:
        for ours, theirs in zip(half[layer][0], exact[layer][0], strict=True):
            difference = torch.linalg.norm(ours - theirs)
            assert difference <= 0.03 * torch.linalg.norm(theirs) + 1e-12


class _Doubled(torch.autograd.Function):
    """Asks its gradient a question that a batch of gradients can't answer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient if gradient.abs().sum().item() >= 0 else gradient


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return _Doubled.apply(x)


def test_an_operation_that_cannot_be_batched_goes_backward_for_each_target() -> None:
    conv = nn.Conv2d(1, 4, 3, padding=1)
    head = nn.Conv2d(4, 3, 1)
    plain = UNetCAM(nn.Sequential(conv, nn.Identity(), nn.ReLU(), head), ["0"])(GREY[:, :, :8, :8])
    ours = UNetCAM(nn.Sequential(conv, Doubled(), nn.ReLU(), head), ["0"])(GREY[:, :, :8, :8])
    torch.testing.assert_close(ours["0"], 2 * plain["0"], rtol=1e-5, atol=1e-9)


class Watched(nn.Module):
    """Counts the backwards that pass, and the gradients that each carries."""

    def __init__(self) -> None:
        super().__init__()
        self.carried: list[int] = []
        self.fails_above: int | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._count)
        return x

    def _count(self, gradient: Tensor) -> None:
        batched = torch._C._functorch.is_batchedtensor(gradient)
        inside = torch._C._functorch.get_unwrapped(gradient) if batched else gradient[None]
        if self.fails_above is not None and len(inside) > self.fails_above:
            raise torch.OutOfMemoryError("out of memory")
        self.carried.append(len(inside))


def watched(classes: int) -> tuple[nn.Module, Watched]:
    watch = Watched()
    conv, head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, classes, 3, padding=1)
    return nn.Sequential(conv, nn.ReLU(), watch, head), watch


def test_small_images_share_a_backward_and_large_ones_do_not() -> None:
    for side, carried in ((16, [7]), (150, [2, 2, 2, 1]), (300, [1] * 7)):
        model, watch = watched(7)
        UNetCAM(model, ["0"])(torch.rand(1, 1, side, side))
        assert watch.carried == carried


def test_a_memory_budget_bounds_the_targets_of_a_backward() -> None:
    model, watch = watched(8)
    images = torch.rand(1, 1, 16, 16)
    budget = 8 * 16 * 16 * 4 * 4 * 2  # of eight channels of logits, four times over, for two
    limited = UNetCAM(model, ["0"], memory_budget=budget)(images)["0"]
    assert watch.carried == [2, 2, 2, 2]
    torch.testing.assert_close(limited, UNetCAM(model, ["0"])(images)["0"], rtol=1e-5, atol=1e-9)


def test_running_out_of_memory_halves_the_targets_of_a_backward_and_says_so_once() -> None:
    model, watch = watched(8)
    images = torch.rand(1, 1, 16, 16)
    expected = UNetCAM(model, ["0"])(images)["0"]
    watch.carried, watch.fails_above = [], 2
    with pytest.warns(RuntimeWarning, match="ran out of memory") as warned:
        found = UNetCAM(model, ["0"])(images)["0"]
    assert len(warned) == 1
    assert watch.carried == [2, 2, 2, 2]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-9)


def test_maps_beyond_the_budget_are_refused_before_a_backward() -> None:
    model, watch = watched(8)
    with pytest.raises(MemoryBudgetError, match=r"8 targets take 8,192 bytes.*budget of 8,000"):
        UNetCAM(model, ["0"], memory_budget=8000)(torch.rand(1, 1, 16, 16))
    assert watch.carried == []
    for wrong in (0, -5, 1.5):
        with pytest.raises(MemoryBudgetError, match="must be a number of bytes above zero"):
            UNetCAM(model, ["0"], memory_budget=wrong)


# -- many classes, a narrow head -------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["f32", "f64"])
@pytest.mark.parametrize("kind", ["2-D", "3-D", "enlarged", "layer before the head"])
def test_classes_that_outnumber_the_heads_inputs_cost_a_backward_for_each_input(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four channels, eleven classes."""
    model = seeded(UNet3d(11) if kind == "3-D" else UNet(1, 11))
    images = torch.rand(2, 1, *([16] * (3 if kind == "3-D" else 2)))
    layers = ["up2", "up4"]
    if kind == "3-D":
        layers = ["dec2", "dec1"]
    elif kind == "enlarged":
        model = nn.Sequential(model, nn.Upsample(scale_factor=2, mode="bilinear"))
        layers = ["0.up2", "0.up4"]
    elif kind == "layer before the head":
        layers = ["up4"]
    model, images = model.to(dtype), images.to(dtype)
    counts = []
    kept = backward.chunked

    def counted(function: Any, rows: Any, *rest: Any, **options: Any) -> Any:
        counts.append(len(rows))
        return kept(function, rows, *rest, **options)

    monkeypatch.setattr(backward, "chunked", counted)
    plain = UNetCAM(model, layers, shortcuts=False)(images)
    ours = UNetCAM(model, layers)(images)
    assert counts == [11, 4]
    for layer in layers:
        assert torch.linalg.norm(ours[layer] - plain[layer]) <= TOLERANCES[
            dtype
        ] * torch.linalg.norm(plain[layer])
    order = [ClassScore(c) for c in (9, 0, 1, 5, 3)]
    chosen = UNetCAM(model, layers)(images, order)
    torch.testing.assert_close(chosen[layers[0]][:, 1], ours[layers[0]][:, 0], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(chosen[layers[0]][:, 3], ours[layers[0]][:, 5], rtol=1e-4, atol=1e-9)
    assert counts == [11, 4, 4]
    corner = torch.zeros(ours.logits.shape[2:])
    corner[0] = 1
    for others in (
        [ClassScore(c) for c in range(4)],
        [*order, Region(0, corner)],
        [ClassScore(c, on="probability") for c in range(11)],
    ):
        UNetCAM(model, layers)(images, others)
        assert counts[-1] == len(others)
    UNetCAM(model, layers, "hirescam")(images)
    assert counts[-1] == 11


def test_repeated_classes_are_no_further_directions() -> None:
    model = seeded(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1)))
    cam, wanted = UNetCAM(model, ["0"]), [ClassScore(0)] * 3 + [ClassScore(1)] * 4
    maps = cam(GREY, wanted)["0"]
    for index, target in enumerate(wanted):
        torch.testing.assert_close(maps[:, index], cam(GREY, target)["0"][:, 0])


class Squared(ClassScore):
    """A target of a user's own, whose score is no mean of a channel."""

    def values(self, logits: Tensor) -> Tensor:
        return super().values(logits) ** 2


def test_a_targets_own_values_are_explained() -> None:
    model = seeded(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 5, 1)))
    wanted = [Squared(c) for c in range(5)]
    plain = UNetCAM(model, ["0"], shortcuts=False)(GREY, wanted)["0"]
    torch.testing.assert_close(UNetCAM(model, ["0"])(GREY, wanted)["0"], plain)


def test_a_layer_in_full_precision_before_halved_logits_goes_backward() -> None:
    """Many regions of one channel, which would be pushed forward in another precision."""

    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float()

    model = seeded(
        nn.Sequential(
            nn.Conv2d(1, 1, 3, stride=2, padding=1), Full(), nn.Conv2d(1, 30, 3, padding=1),
            nn.Upsample(scale_factor=2),
        )
    )  # fmt: skip
    image = GREY[:1, :, :16, :16]
    exact = UNetCAM(model, ["1"])(image)["1"]
    with torch.autocast("cpu", torch.bfloat16):
        halved = UNetCAM(model, ["1"])(image)["1"]
    assert torch.linalg.norm(halved - exact) <= 0.05 * torch.linalg.norm(exact)


@pytest.mark.parametrize("budget", [np.int64(8000), 8000])
def test_numpys_numbers_are_budgets_too(budget: Any) -> None:
    model, _ = watched(8)
    with pytest.raises(MemoryBudgetError, match="budget of 8,000"):
        UNetCAM(model, ["0"], memory_budget=budget)(torch.rand(1, 1, 16, 16))
    for method in ("eigencam", "scorecam"):
        with pytest.raises(MemoryBudgetError, match="budget of 8,000"):
            UNetCAM(model, ["0"], method, memory_budget=budget)(torch.rand(1, 1, 16, 16))
    for wrong in (True, float("nan")):
        with pytest.raises(MemoryBudgetError, match="must be a number of bytes"):
            UNetCAM(model, ["0"], memory_budget=wrong)
    assert memory_bytes(0.25, torch.device("cpu")) > 0


def test_half_precision_does_not_overflow_in_a_sum_over_a_large_image() -> None:
    model = seeded(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    image = torch.rand(1, 1, 320, 320, generator=torch.manual_seed(8))
    exact = UNetCAM(model, ["1"])(image)["1"]
    found = UNetCAM(model.half(), ["1"])(image.half())["1"]
    assert torch.linalg.norm(found - exact) <= 0.01 * torch.linalg.norm(exact)


class Gridded(nn.Module):
    """Keeps a grid from its first forward, as positional encodings are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)
        self.grid: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        self.grid = torch.ones_like(y[:, :1]) if self.grid is None else self.grid
        return self.b(torch.cat([y, self.grid], dim=1))


def test_a_tensor_kept_from_inference_is_taken() -> None:
    model = seeded(Gridded())
    with torch.inference_mode():
        model(GREY)
    plain = UNetCAM(model, ["a"], shortcuts=False)(GREY)["a"]
    torch.testing.assert_close(UNetCAM(model, ["a"])(GREY)["a"], plain, rtol=1e-5, atol=1e-9)
