"""The gradient is that of every route by which a layer's output is used, whoever holds it.

Each network is written so that a use of a layer's output goes past the module's return value; plain
autograd, with a hook that only looks, says what is right: to 1e-9 of the map's peak in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.engine.test_state import assert_same, state_of
from tests.networks import double_conv, seeded
from unetcam import UNetCAM
from unetcam.engine.hooks import is_root_needed
from unetcam.errors import LayerError, ModelError
from unetcam.methods import GradientMethod

IMAGES = torch.rand(2, 2, 16, 16, generator=torch.manual_seed(5), dtype=torch.float64)


class Net(nn.Module):
    """Two levels with a skip; `a` is the encoder's layer and `u` the decoder's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = double_conv(2, 4), double_conv(4, 8)
        self.u, self.head = double_conv(12, 4), nn.Conv2d(4, 3, 1)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What goes down, and the skip."""
        y = self.a(x)
        return y, y

    def last(self, x: Tensor) -> Tensor:
        return self.u(x)

    def forward(self, x: Tensor) -> Tensor:
        down, skip = self.first(x)
        deep = F.interpolate(self.b(F.max_pool2d(down, 2)), scale_factor=2.0)
        return self.head(self.last(torch.cat([skip, deep], dim=1)))


class Body(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body


class InADict(Net):
    """The module puts its output into a dict that the network reads."""

    class Putting(Body):
        def forward(self, x: Tensor, kept: dict[str, Tensor]) -> Tensor:
            kept["a"] = self.body(x)
            return kept["a"]

    def __init__(self) -> None:
        super().__init__()
        self.a: nn.Module = InADict.Putting(self.a)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept: dict[str, Tensor] = {}
        return self.a(x, kept), kept["a"]


class OfAnObject(Net):
    """Another module holds the output, as an attribute that is no buffer."""

    class Holding(Body):
        def __init__(self, body: nn.Module, holder: Any) -> None:
            super().__init__(body)
            self.holder = [holder]

        def forward(self, x: Tensor) -> Tensor:
            self.holder[0].seen = self.body(x)
            return self.holder[0].seen

    class Holder:
        seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.holder = OfAnObject.Holder()
        self.a: nn.Module = OfAnObject.Holding(self.a, self.holder)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.holder.seen


class UsedInside(Net):
    """The module makes something of its output before it returns it."""

    class Beside(Body):
        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            self.beside = y * y
            return y

    def __init__(self) -> None:
        super().__init__()
        self.a: nn.Module = UsedInside.Beside(self.a)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.a.beside


class ViewKept(Net):
    """A view of the output is kept before it is returned."""

    class Viewing(Body):
        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            self.flat = y.flatten(2)
            return y

    def __init__(self) -> None:
        super().__init__()
        self.a: nn.Module = ViewKept.Viewing(self.a)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, self.a.flat.view(y.shape)


class TurnedByAProperty(Net):
    """A module keeps the transpose of its own output, which a property gives and no function."""

    class Turning(nn.Module):
        turned: Tensor

        def __init__(self, body: nn.Module) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.body(x)
            self.turned = y.mT
            return y

    def __init__(self) -> None:
        super().__init__()
        self.a: nn.Module = TurnedByAProperty.Turning(self.a)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        return y, self.a.turned.mT


class OutputIsAView(Net):
    """The output is a slice of a larger tensor, which is used as well."""

    class Slicing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :4]

    def __init__(self) -> None:
        super().__init__()
        self.wide = double_conv(2, 8)
        self.a: nn.Module = OutputIsAView.Slicing()

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        wide = self.wide(x)
        return self.a(wide), wide[:, 2:6] * 2


class HandsOn(Net):
    """The layer hands its input on, which was used before and is used again."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.a = self.a, nn.Dropout(0.5)

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.before(x)
        earlier = y.sigmoid()
        return self.a(y) * earlier, y


class ByAnInnerHook(Net):
    """A hook on the module inside keeps what the outer one gives."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []
        self.a[-1].register_forward_hook(lambda module, args, output: self.kept.append(output))

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.kept.clear()
        return self.a(x), self.kept[0]


class ByAReplacingHook(Net):
    """A hook replaces the output: the network goes on with what the hook gave."""

    def __init__(self) -> None:
        super().__init__()
        self.a.register_forward_hook(lambda module, args, output: output * 2)


class InPlaceInsideAnObject(Net):
    """An activation works in place on a tensor that it is handed inside an object."""

    class State:
        def __init__(self, x: Tensor) -> None:
            self.x = x

    class Act(nn.Module):
        def forward(self, state: Any) -> Tensor:
            state.x.clamp_(min=0).mul_(1.5)
            return state.x

    def __init__(self) -> None:
        super().__init__()
        self.before, self.a = self.a, InPlaceInsideAnObject.Act()

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.before(x) * 1.0
        return self.a(InPlaceInsideAnObject.State(y)), y


class ChangedLater(Net):
    """What the layer gave is changed in place behind it, under another name."""

    def first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.a(x)
        kept = y
        down = y * 2
        kept.add_(1).relu_()
        return down, y


NETWORKS = [
    InADict,
    OfAnObject,
    UsedInside,
    ViewKept,
    TurnedByAProperty,
    OutputIsAView,
    HandsOn,
    ByAnInnerHook,
    ByAReplacingHook,
    InPlaceInsideAnObject,
    ChangedLater,
    Net,
]


def plain(model: nn.Module, layer: str, method: str) -> Tensor:
    """The maps of every class's mean, (B, 3, *spatial), by a hook that only looks."""
    seen: list[tuple[Tensor, Any]] = []

    def look(module: nn.Module, args: Any, output: Tensor) -> None:
        seen.append((output.detach().clone(), torch.autograd.graph.get_gradient_edge(output)))

    handle = model.get_submodule(layer).register_forward_hook(look)
    logits = model(IMAGES.clone())
    handle.remove()
    ((activation, edge),) = seen
    maps = []
    for one in logits.flatten(2).mean(2).sum(0):
        (gradient,) = torch.autograd.grad(one, edge, retain_graph=True)
        weight = gradient.mean((2, 3), keepdim=True) if method == "gradcam" else gradient
        maps.append((weight * activation).sum(1).relu())
    return torch.stack(maps, dim=1).detach()


def assert_close(ours: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(ours, right, rtol=1e-9, atol=1e-9 * float(right.max()))


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_every_use_of_a_layers_output_counts(kind: type[Net], method: str) -> None:
    model = seeded(kind()).double()
    expected = {layer: plain(model, layer, method) for layer in ("a", "u")}
    assert all(one.max() > 0 for one in expected.values())
    for layers in (["a"], ["u"], ["a", "u"], ["u", "a"]):
        for shortcuts in (True, False):
            result = UNetCAM(model, layers, method, shortcuts=shortcuts)(IMAGES)
            for layer in layers:
                assert_close(result[layer], expected[layer])


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_graph_of_the_maps_holds_every_use(kind: type[Net]) -> None:
    model = seeded(kind()).double()
    result = UNetCAM(model, ["a", "u"], "hirescam")(IMAGES, create_graph=True)
    for layer in ("a", "u"):
        assert_close(result[layer].detach(), plain(model, layer, "hirescam"))


class Forwards(nn.Identity):
    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x)


@pytest.mark.parametrize(
    ("kind", "forwards"), [(Net, [1, 1]), (InADict, [1, 1]), (HandsOn, [2, 1])]
)
def test_only_what_was_used_before_costs_a_second_forward_and_that_once(
    kind: type[Net], forwards: list[int]
) -> None:
    model = seeded(nn.Sequential(Forwards(), kind())).double()
    counts = []
    for _ in range(2):
        cam = UNetCAM(model, ["1.a"], example=IMAGES)
        before = model[0].count
        cam(IMAGES)
        counts.append(model[0].count - before)
    assert counts == forwards


def test_a_root_that_is_not_needed_is_not_asked_for() -> None:
    seen: list[bool] = []

    class Watching(GradientMethod):
        name = "watching"

        def explain(self, request: Any) -> Any:
            seen.append(is_root_needed(request))
            return super().explain(request)

        def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
            return (activation * gradient).sum(dim=1)

        def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
            return statistics.relu()

    model = seeded(HandsOn()).double()
    cam = UNetCAM(model, ["a"], Watching())
    maps = [cam(IMAGES)["a"] for _ in range(2)]
    assert seen == [False, True]
    assert torch.equal(*maps)


# -- where there is no gradient, the error says why ------------------------------------------


class Reentrant(Net):
    def last(self, x: Tensor) -> Tensor:
        return checkpoint(self.u, x, use_reentrant=True)


class WithoutGradient(Net):
    def last(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().last(x)


class EndsWithoutGradient(Net):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize(
    ("kind", "layers", "error", "message"),
    [
        (Reentrant, ["a"], ModelError, "reentrant checkpoint"),
        (Reentrant, ["a", "u"], ModelError, "reentrant checkpoint"),
        (Reentrant, ["u"], LayerError, "'u' runs where gradients are off"),
        (WithoutGradient, ["a", "u"], LayerError, "'a'"),
        (EndsWithoutGradient, ["u"], LayerError, "'u' runs where gradients are off"),
    ],
)
def test_a_route_that_is_cut_is_told(
    kind: type[Net], layers: list[str], error: type[Exception], message: str
) -> None:
    model = seeded(kind()).double()
    before = state_of(model)
    with pytest.raises(error, match=message):
        UNetCAM(model, layers)(IMAGES)
    assert_same(before, state_of(model))


# -- the images ------------------------------------------------------------------------------


class NormalisesInPlace(Net):
    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        x = x.sub_(0.5).div_(0.25)
        if prior is not None:
            x = x + prior.add_(1).log_()
        return super().forward(x)


class Normalises(Net):
    def forward(self, x: Tensor, prior: Tensor | None = None) -> Tensor:
        x = (x - 0.5) / 0.25
        return super().forward(x if prior is None else x + (prior + 1).log())


CALLS: dict[str, Callable[[nn.Module, Tensor], dict[str, Tensor]]] = {
    **{
        method: lambda model, x, method=method: UNetCAM(model, ["u"], method)(x).maps  # type: ignore[misc]
        for method in ("gradcam", "smooth-layercam", "ablationcam", "eigencam")
    },
    "create_graph": lambda model, x: {
        name: maps.detach()
        for name, maps in UNetCAM(model, ["u"])(x, create_graph=True).maps.items()
    },
    "tiled": lambda model, x: UNetCAM(model, ["u"]).tiled(x[:1], 8, 4).maps,
    "field": lambda model, x: {"u": UNetCAM(model, ["u"]).field(x[:1]).derivative},
    "two inputs": lambda model, x: UNetCAM(model, ["u"])((x, x.flip(0))).maps,
    "augment": lambda model, x: UNetCAM(model, ["u"])(x, augment=_flip()).maps,
    "errors": lambda model, x: (
        UNetCAM(model, ["u"]).explain_errors(x, torch.zeros(16, 16, dtype=torch.long)).made_up.maps
    ),
}


def _flip() -> Any:
    import albumentations

    return albumentations.HorizontalFlip()


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_forward_that_changes_its_input_changes_it_for_nobody_else(
    call: Callable[[nn.Module, Tensor], dict[str, Tensor]],
) -> None:
    model = seeded(NormalisesInPlace()).double()
    twin = Normalises().eval().double()
    twin.load_state_dict(model.state_dict())
    given = IMAGES.clone()
    ours, right = call(model, given), call(twin, IMAGES.clone())
    assert torch.equal(given, IMAGES)
    for name, maps in right.items():
        torch.testing.assert_close(ours[name], maps, rtol=1e-9, atol=1e-12, equal_nan=True)


def test_a_model_can_still_be_copied_and_run() -> None:
    model = seeded(Net()).double()
    expected = model(IMAGES).detach()
    UNetCAM(model, ["a", "u"])(IMAGES)
    torch.testing.assert_close(copy.deepcopy(model)(IMAGES).detach(), expected, rtol=0, atol=0)
