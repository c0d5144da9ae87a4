"""Every shortcut gives the plain path's maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, get_args

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from tests.networks import Nameless, UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM
from unetcam.engine.conv_backward import Branch, Plan, summed_gradient, whole_gradient
from unetcam.engine.request import SHORTCUTS, Shortcut
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


class Queried(frozenset[Shortcut]):
    """Shortcuts that are taken, and by which names the engine looked for them."""

    def __new__(cls, taken: Iterable[Shortcut]) -> Queried:
        made = super().__new__(cls, taken)
        made.names = set()
        return made

    names: set[object]

    def __contains__(self, name: object) -> bool:
        self.names.add(name)
        return super().__contains__(name)


class Repeating(nn.Module):
    """A decoder with nearest upsampling, normalisation and a skip; many classes, a narrow head."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.skip = nn.Conv2d(1, 3, 3, padding=1)
        self.mix = nn.Conv2d(9, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        up = F.interpolate(self.deep(x), scale_factor=2, mode="nearest")
        mixed: Tensor = self.norm(self.mix(torch.cat([up, self.skip(x)], dim=1)))
        logits: Tensor = self.head(mixed.relu())
        return logits


@pytest.mark.parametrize("left_out", get_args(Shortcut))
def test_each_shortcut_can_be_left_out_alone(left_out: Shortcut) -> None:
    model = seeded(Repeating())
    wanted = [ClassScore(c) for c in range(9)]
    if left_out == "sharing":
        wanted = wanted[:2]  # the span of the narrow head takes more of them
    cam = UNetCAM(model, ["deep", "norm"])
    # Only large images are reordered.
    images = torch.rand(1, 1, 160, 160) if left_out == "channels last" else GREY
    expected = cam(images, wanted).maps
    taken = Queried(SHORTCUTS - {left_out})
    cam._tapped.shortcuts = taken
    maps = cam(images, wanted).maps
    assert left_out in taken.names  # it was looked for where it would have been taken
    for name in expected:
        error = torch.linalg.norm(maps[name] - expected[name])
        assert error <= 1e-5 * torch.linalg.norm(expected[name]), name


class Tail(nn.Module):
    """A layer, and a tail that is written in an awkward way."""

    def __init__(self, tail: Callable[[Tail, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.tail = tail
        self.stem, self.layer = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.conv, self.norm = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.out, self.mix = nn.Conv2d(6, 3, 3, padding=1), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.stem(x)
        return self.tail(self, skip, self.layer(skip))

    def join(self, *tensors: Tensor) -> Tensor:
        return self.out(F.relu(self.conv(torch.cat(tensors, dim=1)), inplace=True))


def gated(x: Tensor) -> Tensor:
    return x.mul_(x.detach().sigmoid())


def changed_cat(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.out(net.conv(gated(torch.cat([skip, y], dim=1))))


def squared_before(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.join(skip, y * y)


def twice_in_the_cat(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.join(y, y.clone())


def beside_the_cat(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    both = torch.cat([skip, y], dim=1) + torch.cat([y, skip], dim=1).flip(2)
    return net.out(net.conv(both))


def two_convolutions(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    joined = torch.cat([skip, y], dim=1)
    return net.out(net.conv(joined) + F.conv2d(y, net.conv.weight[:, :4], padding=1))


def empty_in_the_cat(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.join(torch.empty(0, dtype=y.dtype), y[:, :0], skip, y)


def positional_mode(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.join(skip, F.interpolate(F.avg_pool2d(y, 2), None, 2, "bilinear"))


def changed_enlargement(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.join(skip, gated(F.interpolate(F.avg_pool2d(y, 2), scale_factor=2)))


def used_enlargement(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    large = F.interpolate(F.avg_pool2d(y, 4), size=skip.shape[2:])
    return net.join(skip, large) + F.interpolate(
        net.out(net.conv(torch.cat([large, y], 1))), size=large.shape[2:]
    )


def broken_factor(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    large = nn.Upsample(scale_factor=3.3)(y[:, :, :3, :3])  # 3 -> 9, but not three times each
    return net.join(skip[:, :, :9, :9], large)


def normalised_and_used(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    made = net.conv(torch.cat([skip, y], dim=1))
    return net.out(net.norm(made) + made)


def normalised_and_changed(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    return net.out(net.norm(gated(net.conv(torch.cat([skip, y], dim=1)))))


def part_changed_before_the_norm(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    large = F.interpolate(y, scale_factor=2)
    made = net.conv(torch.cat([F.interpolate(skip, scale_factor=2), large], dim=1))
    y.mul_(3)
    return net.out(net.norm(made))


def norm_in_a_checkpoint(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    made = net.conv(torch.cat([skip, y], dim=1))
    return net.out(checkpoint(lambda x: F.relu(net.norm(x)), made, use_reentrant=False))


def batch_statistics(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    made = net.conv(torch.cat([skip, y], dim=1))
    return net.out(F.batch_norm(made, net.norm.running_mean, net.norm.running_var, training=True))


def modulated_bias(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    bias = net.mix(y.mean((0, 2, 3)))
    return net.out(F.conv2d(torch.cat([skip, y], dim=1), net.conv.weight, bias, padding=1).tanh())


def modulated_weight(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    factor = net.mix(y.mean((0, 2, 3)))[:, None, None, None]
    return net.out(F.conv2d(torch.cat([skip, y], dim=1), net.conv.weight * factor).tanh())


def conditional_norm(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    factor = net.mix(y.mean((0, 2, 3)))
    made = net.conv(torch.cat([skip, y], dim=1))
    mean, var = net.norm.running_mean, net.norm.running_var
    return net.out(F.batch_norm(made, mean, var, factor, factor).tanh())


def dilated(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    large = F.interpolate(F.avg_pool2d(y, 2), scale_factor=2)
    joined = torch.cat([skip, large], dim=1)
    return net.out(F.conv2d(joined, net.conv.weight, padding=2, dilation=2).tanh())


def doubled_logits(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    logits = net.join(skip, y)
    return F.interpolate(logits, scale_factor=2, mode="bilinear") + logits.mean()


def centred_logits(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    logits = net.join(skip, y)
    logits -= logits.mean(1, keepdim=True)
    return logits


def mixed_logits(net: Tail, skip: Tensor, y: Tensor) -> Tensor:
    logits = net.join(skip, y)
    logits[:, 0] -= logits[:, 1].clone()
    return F.interpolate(logits, scale_factor=2)


@pytest.mark.parametrize(
    "tail",
    [
        changed_cat,
        squared_before,
        twice_in_the_cat,
        beside_the_cat,
        two_convolutions,
        empty_in_the_cat,
        positional_mode,
        changed_enlargement,
        used_enlargement,
        broken_factor,
        normalised_and_used,
        normalised_and_changed,
        part_changed_before_the_norm,
        norm_in_a_checkpoint,
        batch_statistics,
        modulated_bias,
        modulated_weight,
        conditional_norm,
        dilated,
        doubled_logits,
        centred_logits,
        mixed_logits,
    ],
)
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_awkward_tails_are_not_shortened_wrongly(
    tail: Callable[[Tail, Tensor, Tensor], Tensor], method: str
) -> None:
    model, images = seeded(Tail(tail)).double(), GREY.double()
    wanted = [ClassScore(0), ClassScore(2)]
    ours = UNetCAM(model, ["layer"], method)(images, wanted)["layer"]
    plain = UNetCAM(model, ["layer"], method, shortcuts=False)(images, wanted)["layer"]
    assert (plain > 0).any()
    assert torch.linalg.norm(ours - plain) <= 1e-10 * torch.linalg.norm(plain)


class Subclass(Tensor):
    """As MONAI's images are."""


@pytest.mark.parametrize("shortcuts", [True, False])
def test_images_of_a_tensor_subclass_give_plain_maps(shortcuts: bool) -> None:
    model = seeded(UNet(1, 3))
    cam = UNetCAM(model, shortcuts=shortcuts)
    maps = cam(GREY.as_subclass(Subclass)).maps
    expected = UNetCAM(model, shortcuts=shortcuts)(GREY).maps
    for layer in expected:
        assert type(maps[layer]) is Tensor
        torch.testing.assert_close(maps[layer], expected[layer])


@pytest.mark.parametrize("shortcuts", [True, False])
def test_half_precision_does_not_lose_the_gradients_of_a_large_image(shortcuts: bool) -> None:
    """A mean over 512 x 512 pixels has seeds of 4e-6, which half precision rounds away."""
    model = seeded(UNet(1, 3))
    image = torch.rand(1, 1, 512, 512, generator=torch.manual_seed(3))
    corner = torch.zeros(512, 512)
    corner[:2, :3] = 1
    wanted = [*map(ClassScore, range(3)), Region(1, corner)]
    exact = UNetCAM(model, ["up1", "up4"])(image, wanted)
    with torch.autocast("cpu", torch.float16):
        half = UNetCAM(model, ["up1", "up4"], shortcuts=shortcuts)(image, wanted)
    for layer in exact.layers:
        for ours, theirs in zip(half[layer][0], exact[layer][0], strict=True):
            difference = torch.linalg.norm(ours - theirs)
            assert difference <= 0.03 * torch.linalg.norm(theirs) + 1e-12


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
    fold = factor if plan.can_be_mirrored() and dilation == 1 else None
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
    for mirrors in {False, plan.can_be_mirrored()}:
        plan.mirrors = mirrors
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
    cam = UNetCAM(model, [layer], **options)
    cam(GREY, [target])  # which may have to see first what the layer gives
    with Watched() as both:
        cam(GREY, [target])
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
    large = torch.rand(1, 1, 160, 160)  # small ones are handed on as they are
    plain = UNetCAM(model, ["conv"], shortcuts=False)(large)
    for _ in range(2):
        torch.testing.assert_close(cam(large)["conv"], plain["conv"], rtol=1e-5, atol=1e-9)
        assert not cam._tapped._takes_channels_last
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
        for kept in (mode._cats, mode._summable, mode._enlarged, mode._made, mode._plans)
    )
