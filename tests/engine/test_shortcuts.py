"""Every shortcut gives the plain path's maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import Nameless, UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM
from unetcam.engine.shortcuts import Shortcuts, _Plan, _summed, _whole
from unetcam.targets import ClassScore, Region, TruthRegion, predict

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
        assert torch.equal(ours.logits, plain.logits)
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
        self.conv = nn.Conv2d(8, 6, 3, padding=1)
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
    seed=st.integers(0, 2**32 - 1),
)
def test_the_sum_is_that_of_the_whole_gradient(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    padding: int,
    dilation: int,
    seed: int,
) -> None:
    """For every stride, padding and dilation (float64, 1e-12)."""
    generator = torch.manual_seed(seed)
    x = torch.randn(2, 3, *size, dtype=torch.float64, generator=generator)
    weight = torch.randn(5, 3, *kernel, dtype=torch.float64, generator=generator)
    try:
        out = F.conv2d(x, weight, None, stride, padding, dilation)
    except RuntimeError:  # the kernel is larger than the padded image
        return
    grad = torch.randn(out.shape, dtype=torch.float64, generator=generator)
    plan = _Plan(weight, [stride] * 2, [padding] * 2, [dilation] * 2)
    whole = _whole(grad, weight, x.shape, plan).sum((2, 3))
    summed = _summed(grad, weight, x.shape, plan).sum((2, 3))
    torch.testing.assert_close(summed, whole, rtol=1e-12, atol=1e-12)


def test_the_gradient_towards_a_skip_is_never_computed() -> None:
    asked: list[tuple[int, ...]] = []
    model = seeded(UNet(1, 3))

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten.convolution_backward.default:
                asked.append(tuple(args[1].shape))
            return func(*args, **(kwargs or {}))

    with Watch():
        UNetCAM(model, ["up3"])(GREY, [ClassScore(0)])
        short, asked[:] = list(asked), []
        UNetCAM(model, ["up3"], shortcuts=False)(GREY, [ClassScore(0)])
    channels = [shape[1] for shape in short], [shape[1] for shape in asked]
    assert channels == ([4, 4, 4, 8], [4, 4, 8, 8])  # the first of up4's convolutions takes 4 + 4


def test_only_the_touched_class_passes_the_head() -> None:
    model = seeded(UNet(1, 3))
    widths: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if func is torch.ops.aten.convolution_backward.default:
                widths.append(args[0].shape[1])
            return func(*args, **(kwargs or {}))

    with Watch():
        UNetCAM(model, ["up4"], "hirescam")(
            GREY, [ClassScore(0), ClassScore(1, on="probability"), ClassScore(2)]
        )
    assert widths == [1, 3, 1]


def test_nothing_of_a_forward_is_kept() -> None:
    mode = Shortcuts(sums_suffice=True)
    with mode:
        x = torch.rand(1, 2, 4, 4, requires_grad=True)
        y = F.interpolate(x.clone(), scale_factor=2)
        torch.cat([y, y], dim=1)
    del y
    assert all(len(kept) == 0 for kept in (mode._parts, mode._summable, mode._origins))
