"""Every shortcut gives the plain path's maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.networks import Nameless, UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM
from unetcam.engine.convolution import Branch, Plan, summed_gradient, whole_gradient
from unetcam.engine.shortcuts import Shortcuts
from unetcam.targets import ClassScore, Region, Target, TruthRegion, predict

GREY = torch.rand(2, 1, 48, 64, generator=torch.manual_seed(1))
COLOUR = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(2))
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-10}


def smp_network(name: str) -> Callable[[], nn.Module]:
    return lambda: seeded(
        getattr(smp, name)("resnet18", encoder_weights=None, classes=4), norms=False
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "transposed": (lambda: seeded(UNet(1, 3)), GREY),
    "bilinear": (lambda: seeded(UNet(1, 3, bilinear=True)), GREY[:, :, :45, :61]),
    "one channel": (lambda: seeded(UNet(1, 1)), GREY),
    "nameless": (lambda: seeded(Nameless()), GREY),
    "valid": (lambda: seeded(ValidUNet()), torch.rand(1, 1, 100, 116)),
    "3-D": (lambda: seeded(UNet3d()), torch.rand(1, 1, 16, 16, 8)),
    **{
        name: (smp_network(name), COLOUR)
        for name in ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "DeepLabV3Plus", "UPerNet")
    },
}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=["f32", "f64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_plain_path(name: str, dtype: torch.dtype) -> None:
    """By the norm of the difference, relative to the norm of a layer's maps."""
    make, images = NETWORKS[name]
    model, images = make().to(dtype), images.to(dtype)
    with torch.no_grad():
        prediction = predict(model(images))
    mask = torch.zeros(prediction.shape[1:])
    mask[tuple(slice(n // 4, n // 2) for n in mask.shape)] = 1
    wanted = [ClassScore(0), Region(1, mask), TruthRegion(0, prediction)]
    wanted.append(ClassScore(1, on="probability"))
    for method in ("gradcam", "gradcam++", "hirescam", "layercam"):
        plain = UNetCAM(model, method=method, shortcuts=False)(images, wanted)
        ours = UNetCAM(model, method=method)(images, wanted)
        torch.testing.assert_close(ours.logits, plain.logits, rtol=1e-5, atol=1e-5)
        for layer in plain.layers:
            assert torch.equal(ours[layer].isnan(), plain[layer].isnan())
            a, b = (result[layer].nan_to_num() for result in (ours, plain))
            assert torch.linalg.norm(a - b) <= TOLERANCES[dtype] * torch.linalg.norm(b), layer


class Tail(nn.Module):
    """A layer and a tail that is written in an awkward way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.stem, self.layer = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv, self.norm = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.out = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x)
        y = self.layer(skip)
        if self.kind == "changed after the cat":
            joined = torch.cat([skip, y], dim=1)
            joined.mul_(joined.sigmoid())
        elif self.kind == "squared before the cat":
            joined = torch.cat([skip, y * y], dim=1)
        elif self.kind == "twice in the cat":
            joined = torch.cat([y, y.clone()], dim=-3)
        elif self.kind == "enlarged by position":
            small = F.avg_pool2d(y, 2)
            joined = torch.cat([skip, F.interpolate(small, None, 2, "bilinear")], dim=1)
        elif self.kind == "enlarged and changed":
            large = F.interpolate(F.avg_pool2d(y, 2), scale_factor=2)
            joined = torch.cat([skip, large.mul_(large.sigmoid())], dim=1)
        elif self.kind == "enlarged unevenly":
            large = F.interpolate(F.avg_pool2d(y, 4), size=x.shape[2:])
            joined = torch.cat([skip, large + F.interpolate(y, size=x.shape[2:])], dim=1)
        elif self.kind == "normalised and used":
            made = self.conv(torch.cat([skip, y], dim=1))
            return self.out(self.norm(made) + made)
        elif self.kind == "normalised and changed":
            made = self.conv(torch.cat([skip, y], dim=1))
            return self.out(self.norm(made.mul_(made.sigmoid())))
        elif self.kind == "used beside the cat":
            joined = torch.cat([skip, y], dim=1)
            joined = joined + torch.cat([y, skip], dim=1).flip(2)
        elif self.kind == "two convolutions on one map":
            joined = torch.cat([skip, y], dim=1)
            return self.out(self.conv(joined) + F.conv2d(y, self.conv.weight[:, :4], padding=1))
        elif self.kind == "the logits doubled":
            logits = self.out(self.conv(torch.cat([skip, y], dim=1)))
            return F.interpolate(logits, scale_factor=2, mode="bilinear") + logits.mean()
        else:
            raise AssertionError(self.kind)
        return self.out(F.relu(self.conv(joined), inplace=True))


@pytest.mark.parametrize(
    "kind",
    [
        "changed after the cat",
        "squared before the cat",
        "twice in the cat",
        "enlarged by position",
        "enlarged and changed",
        "enlarged unevenly",
        "normalised and used",
        "normalised and changed",
        "used beside the cat",
        "two convolutions on one map",
        "the logits doubled",
    ],
)
def test_awkward_tails_are_not_shortened_wrongly(kind: str) -> None:
    model, images = seeded(Tail(kind)).double(), GREY.double()
    ours = UNetCAM(model, ["layer"])(images)["layer"]
    plain = UNetCAM(model, ["layer"], shortcuts=False)(images)["layer"]
    assert (plain > 0).any()
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-14)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(5, 12), st.integers(5, 12)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 3),
    factor=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_whole_and_summed_gradients_are_those_of_autograd(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    factor: tuple[int, int],
    seed: int,
) -> None:
    """Float64, 1e-11; an enlargement is folded in where the convolution has no stride."""
    generator = torch.manual_seed(seed)
    plan = Plan(torch.empty(5, 3, *kernel), [stride] * 2, [padding] * 2, [dilation] * 2)
    fold = factor if plan.is_mirrored() and dilation == 1 else None
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator).requires_grad_()
    plan.weight = torch.randn(5, 3, *kernel, dtype=torch.float64, generator=generator)
    large = x
    for axis, times in enumerate(fold or (1, 1), start=2):
        large = large.repeat_interleave(times, dim=axis)
    try:
        out = F.conv2d(large, plan.weight, None, stride, padding, dilation)
    except RuntimeError:  # the kernel is larger than the padded image
        return
    grad = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    branch = Branch(x[:, 1:].shape, 1, x.dtype, factor=fold)  # the last two channels of three
    expected = torch.autograd.grad(out, x, grad)[0][:, 1:]
    whole = whole_gradient(grad, branch, plan)
    torch.testing.assert_close(whole, expected, rtol=1e-11, atol=1e-11)
    summed = summed_gradient(grad, branch, plan).sum((2, 3))
    torch.testing.assert_close(summed, expected.sum((2, 3)), rtol=1e-11, atol=1e-11)


class Watched(TorchDispatchMode):
    """Notes (outputs read, inputs given, pixels given) of each convolution after the forward's."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution_backward.default:
            self.seen.append((args[0].shape[1], result[0].shape[1], result[0][0, 0].numel()))
        elif func is torch.ops.aten.convolution.default:
            self.seen.append((args[0].shape[1], result.shape[1], result[0, 0].numel()))
        return result


def backwards(model: nn.Module, layer: str, target: Target, **options: Any) -> list[Any]:
    with torch.no_grad(), Watched() as forward:
        model(GREY)
    with Watched() as both:
        UNetCAM(model, [layer], **options)(GREY, [target])
    return both.seen[len(forward.seen) :]


def test_the_gradient_towards_a_skip_is_never_computed() -> None:
    model = seeded(UNet(1, 3))
    plain = backwards(model, "up3", ClassScore(0), shortcuts=False)
    ours = backwards(model, "up3", ClassScore(0))
    # The head, the two convolutions of up4 and its transposed one, going backward.
    assert [(o, i) for o, i, _ in plain] == [(3, 4), (4, 4), (4, 8), (4, 8)]
    assert [(o, i) for o, i, _ in ours] == [(1, 4), (4, 4), (4, 4), (4, 8)]


def test_only_the_touched_class_passes_the_head() -> None:
    model = seeded(UNet(1, 3))
    for target, outputs in ((ClassScore(2), 1), (ClassScore(2, on="probability"), 3)):
        assert backwards(model, "up4", target, method="hirescam")[0][0] == outputs


def test_an_enlarged_gradient_is_never_made() -> None:
    model = seeded(Nameless())
    plain = backwards(model, "k.aa", ClassScore(0), method="hirescam", shortcuts=False)
    ours = backwards(model, "k.aa", ClassScore(0), method="hirescam")
    assert plain[-1] == (8, 24, 48 * 64)
    assert ours[-1] == (8, 16, 24 * 32)


def test_at_the_deepest_layer_only_sums_are_made() -> None:
    model = seeded(Nameless())
    assert len(backwards(model, "k.aa", ClassScore(0), method="hirescam")) == 3
    assert len(backwards(model, "k.aa", ClassScore(0), method="gradcam")) == 2


class Viewed(nn.Module):
    """Takes its maps apart in a way that channels-last memory does not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.gate = nn.Linear(4 * 12 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        weights = self.gate(F.adaptive_avg_pool2d(y, (12, 16)).view(len(y), -1))
        return self.out(y * weights.sigmoid()[:, :, None, None])


def test_a_model_that_cannot_take_channels_last_is_given_them_first() -> None:
    model = seeded(Viewed())
    cam = UNetCAM(model, ["conv"])
    plain = UNetCAM(model, ["conv"], shortcuts=False)(GREY)
    for _ in range(2):
        torch.testing.assert_close(cam(GREY)["conv"], plain["conv"], rtol=1e-5, atol=1e-9)
        assert len(cam(GREY).targets) == 2


def test_nothing_of_a_forward_is_kept() -> None:
    mode = Shortcuts(sums_suffice=True)
    with mode:
        x = torch.rand(1, 2, 4, 4, requires_grad=True)
        y = F.interpolate(x.clone(), scale_factor=2)
        torch.cat([y, y], dim=1)
    del y
    assert all(
        len(kept) == 0
        for kept in (mode._parts, mode._summable, mode._enlarged, mode._made, mode._plans)
    )
