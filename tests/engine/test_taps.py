"""Activations and gradients are those of the layer, whatever comes behind it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.networks import UNet, double_conv, seeded
from unetcam import UNetCAM
from unetcam.engine.hooks import Taps
from unetcam.errors import LayerError
from unetcam.targets import ClassScore

IMAGES = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(2))


def captured(model: nn.Module, layer: str) -> tuple[Tensor, Tensor]:
    gradients: list[Tensor] = []
    with Taps(
        {layer: model.get_submodule(layer)}, lambda name, a, g: gradients.append(g.clone())
    ) as taps:
        score = model(IMAGES).square().sum()
        activation = taps.activations[layer].clone()
        torch.autograd.grad(score, taps.ends)
    return activation, gradients[0]


@pytest.mark.parametrize("layer", ["1", "4"])
def test_batchnorm_before_an_inplace_relu_gives_what_its_twin_without_inplace_gives(
    layer: str,
) -> None:
    model = seeded(double_conv(1, 4, inplace=True))
    twin = double_conv(1, 4, inplace=False).eval()
    twin.load_state_dict(model.state_dict())
    for ours, theirs in zip(captured(model, layer), captured(twin, layer), strict=True):
        assert torch.equal(ours, theirs)
    activation, _ = captured(model, layer)
    assert (activation < 0).any()  # as the layer gave it, not as the ReLU behind left it


def test_agrees_with_autograd_on_the_layers_output_itself() -> None:
    model = seeded(double_conv(1, 4, inplace=False))
    middle = model[:3](IMAGES).detach().requires_grad_()
    model[3:](middle).square().sum().backward()
    activation, gradient = captured(model, "2")
    assert torch.equal(activation, middle.detach())
    assert middle.grad is not None
    assert torch.equal(gradient, middle.grad)


class Counted(nn.Module):
    """Counts how often the backward passes here."""

    def __init__(self) -> None:
        super().__init__()
        self.forwards, self.backwards, self.graph = 0, 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += 1
        self.graph = x.requires_grad
        if x.requires_grad:
            x = x.clone()
            x.register_hook(self._count)
        return x

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1


@pytest.mark.parametrize(("side", "backwards"), [(300, 5), (16, 1)])
def test_one_forward_and_at_most_one_tail_backward_per_target_and_not_a_step_further(
    side: int, backwards: int
) -> None:
    """Where images are small, targets share a backward."""
    before, between, behind = Counted(), Counted(), Counted()
    conv = lambda: nn.Conv2d(4, 4, 3, padding=1)  # noqa: E731
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), before, conv(), between, conv(), behind, nn.Conv2d(4, 5, 3)
    )
    images = torch.rand(1, 1, side, side)
    cam = UNetCAM(model, ["4", "2"], example=images)
    for counted in (before, between, behind):
        counted.forwards = 0  # that of the trace
    cam(images, [ClassScore(c) for c in range(5)])
    assert [c.forwards for c in (before, between, behind)] == [1, 1, 1]
    assert [c.graph for c in (before, between, behind)] == [False, True, True]
    assert [c.backwards for c in (before, between, behind)] == [0, backwards, backwards]


def test_maps_are_paired_by_name_whatever_order_the_layers_are_given_in() -> None:
    model = seeded(UNet(1, 3))
    there = UNetCAM(model, ["up1", "up4"])(IMAGES)
    back = UNetCAM(model, ["up4", "up1"])(IMAGES)
    assert back.layers == ("up4", "up1")
    for layer in ("up1", "up4"):
        assert torch.equal(there[layer], back[layer])


def test_a_layer_gives_the_same_map_alone_and_among_others() -> None:
    model = seeded(UNet(1, 3))
    together = UNetCAM(model, ["up1", "up2", "up3", "up4"])(IMAGES)
    for layer in together.layers:
        alone = UNetCAM(model, [layer])(IMAGES)[layer]
        torch.testing.assert_close(alone, together[layer], rtol=1e-5, atol=1e-9)


def test_an_image_gives_the_same_map_alone_and_in_a_batch() -> None:
    model = seeded(UNet(1, 3)).double()
    images = IMAGES.double()
    batch = UNetCAM(model, ["up2"])(images)["up2"]
    for index in range(len(images)):
        alone = UNetCAM(model, ["up2"])(images[index : index + 1])["up2"][0]
        torch.testing.assert_close(alone, batch[index], rtol=1e-10, atol=1e-14)


class Parallel(nn.Module):
    """Two branches of which neither is before the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)
        self.out = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x) * self.b(x))


def test_parallel_layers_are_both_explained() -> None:
    model = Parallel()
    both = UNetCAM(model, ["a", "b"])(IMAGES)
    for layer in ("a", "b"):
        alone = UNetCAM(model, [layer])(IMAGES)[layer]
        torch.testing.assert_close(both[layer], alone, rtol=1e-5, atol=1e-9)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = double_conv(1, 4)
        self.tail = double_conv(4, 4)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.block, x, use_reentrant=False)
        return self.out(checkpoint(self.tail, x, use_reentrant=False))


def test_gradient_checkpointing_changes_nothing() -> None:
    model = seeded(Checkpointed())
    plain = copy.deepcopy(model)
    plain.forward = lambda x: plain.out(plain.tail(plain.block(x)))
    for layer in ("block", "block.3", "tail.0"):
        ours = UNetCAM(model, [layer])(IMAGES)[layer]
        torch.testing.assert_close(ours, UNetCAM(plain, [layer])(IMAGES)[layer])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(self.conv(x)))


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair = nn.Conv2d(1, 4, 1), Pair()
        self.unused, self.side = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)
        self.flat = nn.Flatten(2)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)
        y = self.conv(x)
        self.flat(y)
        return self.out(self.pair(y)[0])


@pytest.mark.parametrize(
    ("model", "layers", "message"),
    [
        (Twice(), ["conv"], "'conv' runs more than once"),
        (Mixed(), ["pair"], "'pair' gives a tuple"),
        (Mixed(), ["flat"], "No gradient comes from the logits to .*'flat'"),
        (Mixed(), ["conv", "unused"], "never ran the layer 'unused'"),
        (Mixed(), ["conv", "side"], "No gradient comes from the logits to .*'side'"),
        (Mixed(), ["side"], "No gradient comes from the logits to .*'side'"),
    ],
)
def test_a_layer_without_a_single_map_is_named(
    model: nn.Module, layers: list[str], message: str
) -> None:
    with pytest.raises(LayerError, match=message):
        UNetCAM(model, layers)(IMAGES)


def test_layers_in_half_precision_give_maps_in_single() -> None:
    model: Any = seeded(UNet(1, 3))
    expected = UNetCAM(model, ["up3"])(IMAGES)["up3"]
    halved = UNetCAM(model.bfloat16(), ["up3"])(IMAGES.bfloat16())["up3"]
    assert halved.dtype == torch.float32
    similar = torch.nn.functional.cosine_similarity(halved.flatten(1), expected.flatten(1))
    assert similar.min() > 0.95


class Residual(nn.Module):
    """An activation works in place on a tensor that is used again, under its old name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.behind, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.LeakyReLU(0.1, inplace=True)
        self.out = nn.Conv2d(4, 2, 1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.conv(x)
        first = self.act(kept)
        grown = self.behind(first) + kept
        second = self.last(grown)
        return kept, self.out(torch.tanh(second) * grown)

    def forward(self, x: Tensor) -> Tensor:
        return self.halves(x)[1]


@pytest.mark.parametrize("shortcuts", [True, False])
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_a_layer_that_works_in_place_is_seen_on_all_its_ways(method: str, shortcuts: bool) -> None:
    model = seeded(Residual()).double()
    images = IMAGES.double()
    gradients: dict[str, Tensor] = {}
    activations: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            activations[name] = output.detach().clone()
            output.register_hook(lambda gradient: gradients.update({name: gradient}))

        return hook

    handles = [
        model.get_submodule(name).register_forward_hook(keep(name)) for name in ("act", "last")
    ]
    logits = model(images)
    for handle in handles:
        handle.remove()
    logits[:, 1].flatten(1).mean(1).sum().backward()
    model.zero_grad()
    result = UNetCAM(model, ["act", "last"], method, shortcuts=shortcuts)(images)
    torch.testing.assert_close(result.logits, logits.detach())
    for name, activation in activations.items():
        gradient = gradients[name]
        if method == "gradcam":
            gradient = gradient.mean((2, 3), keepdim=True)
        expected = (gradient * activation).sum(1).relu()
        alone = UNetCAM(model, [name], method, shortcuts=shortcuts)(images)
        for maps in (result[name][:, 1], alone[name][:, 1]):
            torch.testing.assert_close(maps, expected, rtol=1e-9, atol=1e-12)
