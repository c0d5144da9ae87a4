"""Watch a forward for gates: sigmoids that a feature map is multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.function_mode import FunctionMode, function_name, tensors_in
from unetcam.engine.hooks import on_this_thread
from unetcam.engine.tensors import at_least_single

Kind = Literal["channel", "spatial", "full"]

_SIGMOIDS = ("sigmoid", "sigmoid_", "hardsigmoid", "special_expit")
_PRODUCTS = ("mul", "mul_", "multiply", "multiply_", "__mul__", "__rmul__", "__imul__")
#: What hands a gate's values on, in another shape, size or place.
_RESHAPED = (
    "view",
    "view_as",
    "reshape",
    "reshape_as",
    "unsqueeze",
    "squeeze",
    "flatten",
    "unflatten",
    "expand",
    "expand_as",
    "repeat",
    "permute",
    "transpose",
    "movedim",
    "contiguous",
    "clone",
    "detach",
    "to",
    "type_as",
    "float",
    "__getitem__",
    "interpolate",
)


@dataclass(frozen=True, eq=False)
class Gate:
    """A gate of a network, on a batch of images.

    Attributes
    ----------
    module : str
        The module in whose forward the feature map is weighed; empty for the network's own.
    kind : {"channel", "spatial", "full"}
        Whether there is one value for each channel, for each pixel, or for each of both.
    values : Tensor
        (B, K, 1, ...), (B, 1, *spatial) or (B, K, *spatial), from 0 to 1, in at least single
        precision.
    passed : Tensor
        (B, *spatial): what share of the feature map passes at each pixel, the values' mean over
        the channels with the feature's magnitude for a weight. Of a spatial gate these are its
        values.
    """

    module: str
    kind: Kind
    values: Tensor
    passed: Tensor


@dataclass(frozen=True)
class Watched:
    """What was seen in a forward.

    Attributes
    ----------
    gates : tuple of Gate
        In the order in which they were applied.
    before : dict of str to tuple of Gate
        By layer: the last gate on the way to it, and those beside it on the same feature map.
    """

    gates: tuple[Gate, ...]
    before: dict[str, tuple[Gate, ...]]


def watched(
    model: nn.Module, layers: Mapping[str, nn.Module], forward: Callable[[], Any]
) -> Watched:
    """Watch `forward`, which calls the model, for gates and for the layers.

    No module's name or type is looked at. A sigmoid that its own input is multiplied with is an
    activation function (SiLU) and no gate.
    """
    with ExitStack() as stack:
        watch = _Watch(model, layers, stack)
        stack.enter_context(watch)
        forward()
    groups = {name: watch.latest_at[name] for name in layers if name in watch.latest_at}
    before = {
        name: tuple(
            gate for gate, group in zip(watch.gates, watch.groups, strict=True) if group == of
        )
        for name, of in groups.items()
    }
    return Watched(tuple(watch.gates), before)


class _Watch(FunctionMode):
    """Follows the sigmoids, and for every tensor the last gate that it came through."""

    def __init__(self, model: nn.Module, layers: Mapping[str, nn.Module], stack: ExitStack) -> None:
        super().__init__()
        self.gates: list[Gate] = []
        self.groups: list[int] = []
        self.latest_at: dict[str, int] = {}
        self._sigmoids: MutableMapping[Tensor, Tensor] = WeakTensorKeyDictionary()
        self._latest: MutableMapping[Tensor, int] = WeakTensorKeyDictionary()
        self._group_of: MutableMapping[Tensor, tuple[int, int]] = WeakTensorKeyDictionary()
        self._open: list[str] = []
        for name, module in model.named_modules():
            enter, leave = on_this_thread(self._enter(name)), on_this_thread(self._leave)
            stack.callback(module.register_forward_pre_hook(enter).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        for name, layer in layers.items():
            keep = on_this_thread(self._keep_latest(name))
            stack.callback(layer.register_forward_hook(keep).remove)

    def _enter(self, name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: self._open.append(name)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._open.pop()

    def _keep_latest(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output in self._latest:
                self.latest_at[name] = self._latest[output]

        return hook

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        name = function_name(function)
        given = list(tensors_in((args, kwargs)))
        latest = [self._latest[tensor] for tensor in given if tensor in self._latest]
        if name in _PRODUCTS and len(given) == 2:
            latest += self._applied(given[0], given[1]) + self._applied(given[1], given[0])
        result = function(*args, **kwargs)
        for tensor in tensors_in(result):
            if latest:
                self._latest[tensor] = max(latest)
            if name in _SIGMOIDS:
                self._sigmoids[tensor] = given[0]
            elif name in _RESHAPED and given and given[0] in self._sigmoids:
                self._sigmoids[tensor] = self._sigmoids[given[0]]
        return result

    def _applied(self, values: Tensor, feature: Tensor) -> list[int]:
        """Keep the gate, where `values` is one for `feature`; gives its group."""
        source = self._sigmoids.get(values)
        if source is None or source is feature or feature.ndim not in (4, 5):
            return []
        if values.ndim != feature.ndim or feature in self._sigmoids:
            return []
        group, version = self._group_of.get(feature, (len(self.gates), feature._version))
        if version != feature._version:
            group = len(self.gates)
        self._group_of[feature] = (group, feature._version)
        self.gates.append(_gate(self._open[-1] if self._open else "", values, feature))
        self.groups.append(group)
        return [group]


def _gate(module: str, values: Tensor, feature: Tensor) -> Gate:
    values, magnitude = at_least_single(values), at_least_single(feature).abs()
    for axis, stride in enumerate(values.stride()):
        if axis and stride == 0:  # expanded from a single value
            values = values.narrow(axis, 0, 1)
    channels, *spatial = values.shape[1:]
    if all(side == 1 for side in spatial):
        kind: Kind = "channel"
    else:
        kind = "spatial" if channels == 1 else "full"
    total = magnitude.sum(dim=1)
    weighed = (values * magnitude).sum(dim=1)
    plain = values.mean(dim=1).expand_as(total)
    passed = torch.where(total > 0, weighed / torch.where(total > 0, total, 1), plain)
    return Gate(module, kind, values.clone(), passed)
