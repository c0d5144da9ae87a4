"""Hooks: take each layer's activation on the way out, and its gradient on the way back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.hooks import RemovableHandle

from unetcam.engine.layout import Layout, UnclearError, is_clearly_map
from unetcam.engine.request import Entry, Request, TapPoint
from unetcam.engine.state import preserved
from unetcam.engine.tensors import plain_images
from unetcam.errors import LayerError

#: Called with a layer's name, its activation and its gradient, both (B, K, *spatial).
OnGradient = Callable[[str, Tensor, Tensor], None]


class _Tap(nn.Module):
    """Hands its input on; it is there to carry a full-backward hook."""

    def forward(self, activation: Tensor) -> Tensor:
        return activation


class Taps:
    """Scoped hooks on named layers; they are gone when the ``with`` block ends.

    The forward hook copies a layer's activation, so that a later in-place operation can't change
    it, and hands the tensor on through a tap module whose full-backward hook sees the gradient.
    What flows on is a fresh tensor: an in-place operation behind the layer works. A layer that
    itself works in place hands its own tensor on, for whoever else holds it sees what it made.

    The activation of the first tapped layer to run becomes a leaf. With no parameter requiring a
    gradient, the graph begins there and nowhere before.

    Parameters
    ----------
    layers : Mapping of str to nn.Module or TapPoint
        The layers by name.
    on_gradient : callable
        Is given each layer's name, activation and gradient as they arrive in a backward.
    on_leaf : callable, optional
        Is given the tensor that flows on from each leaf.

    Attributes
    ----------
    activations : dict of str to Tensor
        (B, K, *layer_spatial) each, in the order in which the layers ran.
    leaves : list of Tensor
        Where a backward ends: pass them to ``torch.autograd.grad``.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module | TapPoint],
        on_gradient: OnGradient,
        on_leaf: Callable[[Tensor], None] = lambda leaf: None,
    ) -> None:
        self.activations: dict[str, Tensor] = {}
        self.leaves: list[Tensor] = []
        self._points = {
            name: layer if isinstance(layer, TapPoint) else TapPoint(layer)
            for name, layer in layers.items()
        }
        self._on_gradient = on_gradient
        self._on_leaf = on_leaf
        self._handles: list[RemovableHandle] = []
        self._leaf_names: set[str] = set()
        self._sealed = False

    def __enter__(self) -> Taps:
        try:
            for name, point in self._points.items():
                if point.entry is None:
                    self._watch_output(name, point)
                else:
                    self._watch_entry(name, point, point.entry)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()
        self.activations.clear()
        self.leaves.clear()

    def seal(self) -> None:
        """The forward is over: check that it reached every layer."""
        self._sealed = True
        missed = [name for name in self._points if name not in self.activations]
        if missed:
            raise LayerError(
                f"The forward never ran the layer {_listed(missed)}: choose a layer that the "
                "network uses (find_layers lists them)."
            )

    def _remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    # -- the forward -------------------------------------------------------------------------

    def _watch_output(self, name: str, point: TapPoint) -> None:
        versions: list[dict[int, int]] = []
        runs = _Runs(name, point.run)

        def enter(module: nn.Module, args: Any) -> None:
            versions.append({id(x): _version(x) for x in args if isinstance(x, Tensor)})

        def leave(module: nn.Module, args: Any, output: Any) -> Tensor | None:
            before = versions.pop()
            if not runs.is_next(again=self._sealed):
                return None
            # A module that hands its input on untouched is as good as any other.
            inplace = before.get(id(output), _version(output)) != _version(output)
            if point.size is not None and isinstance(output, Tensor):
                _check_clear(output, point.size)
            return self._tap(name, output, point.layout, inplace=inplace)

        self._handles.append(point.module.register_forward_pre_hook(enter))
        self._handles.append(point.module.register_forward_hook(leave))

    def _watch_entry(self, name: str, point: TapPoint, entry: Entry) -> None:
        runs = _Runs(name, point.run)
        watches: list[TorchFunctionMode | None] = []

        def enter(module: nn.Module, args: Any) -> None:
            watch: TorchFunctionMode | None = None
            if runs.is_next(again=self._sealed):
                watch = _Watch(entry, lambda x: self._tap_entry(name, x, point, entry))
                _push(watch)
            watches.append(watch)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            watch = watches.pop() if watches else None
            if watch is not None:
                _pop(watch)

        self._handles.append(point.module.register_forward_pre_hook(enter))
        self._handles.append(point.module.register_forward_hook(leave, always_call=True))

    def _tap_entry(self, name: str, tensor: Tensor, point: TapPoint, entry: Entry) -> Tensor:
        if tensor.shape[1 if point.layout is None else point.layout.axis] != entry.channels:
            raise LayerError(
                f"The forward took another course than the traced one, so '{name}' can't be told: "
                "explain the layer as a whole."
            )
        return self._tap(name, tensor, point.layout, inplace=False)

    def _tap(self, name: str, output: Any, layout: Layout | None, *, inplace: bool) -> Tensor:
        if self._sealed:
            # A checkpointed block runs again during the backward: the same graph, unrecorded.
            is_leaf = name in self._leaf_names
            again = output.detach() if is_leaf else output
            if is_leaf:
                again = (again.clone() if inplace else again).requires_grad_()
            return _handed_on(again, output, inplace=inplace)
        check_output(name, output, layout)
        kept = output.detach().clone()
        self.activations[name] = kept if layout is None else layout.to_map(kept)
        is_leaf = not (self.leaves and output.requires_grad)
        if not is_leaf and inplace:
            self._handles.append(output.register_hook(partial(self._receive, name, layout)))
            return cast(Tensor, output)
        activation = (kept if inplace else output).detach().requires_grad_() if is_leaf else output
        if is_leaf:
            self.leaves.append(activation)
            self._leaf_names.add(name)

        def receive(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
            self._receive(name, layout, grad_output[0])

        tap = _Tap()
        self._handles.append(tap.register_full_backward_hook(receive))
        fresh = _handed_on(tap(activation), output, inplace=inplace)
        if is_leaf and layout is None:
            self._on_leaf(fresh)
        return fresh

    # -- the backward ------------------------------------------------------------------------

    def _receive(self, name: str, layout: Layout | None, gradient: Tensor) -> None:
        with torch.no_grad():
            whole = gradient if layout is None else layout.to_map(gradient)
            self._on_gradient(name, self.activations[name], whole)


class _Runs:
    """Counts a module's runs in a forward, and tells the one that is meant."""

    def __init__(self, name: str, wanted: int | None) -> None:
        self._name, self._wanted = name, wanted
        self._count = 0

    def is_next(self, *, again: bool) -> bool:
        """Whether the run that is counted now is the one; `again` in a checkpoint's second run."""
        if again and self._wanted is None:
            return True
        if again:
            raise LayerError(
                f"The layer '{self._name}' is one of several runs of a module in a gradient "
                "checkpoint, where they can't be told apart: turn the checkpointing off."
            )
        self._count += 1
        if self._wanted is None and self._count > 1:
            raise LayerError(
                f"The layer '{self._name}' runs more than once in a forward, so it has no single "
                f"map: name one of its runs, as '{self._name}#1' or '{self._name}#2'."
            )
        return self._wanted is None or self._count == self._wanted + 1


class _Watch(TorchFunctionMode):
    """Waits for one call of a torch function, and taps a tensor that it is given."""

    def __init__(self, entry: Entry, tap: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._entry, self._tap = entry, tap
        self._count = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", str(func)) != self._entry.op:
            return func(*args, **kwargs)
        self._count += 1
        if self._count != self._entry.count + 1:
            return func(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if self._entry.position >= len(places):
            return func(*args, **kwargs)
        place = places[self._entry.position]
        entered = leaves[place]
        leaves[place] = fresh = self._tap(entered)
        args, kwargs = tree_unflatten(leaves, structure)
        result = func(*args, **kwargs)
        # An operation that works in place changes the tensor that the model holds.
        return entered.copy_(result) if result is fresh else result


def _push(mode: AbstractContextManager[Any]) -> None:
    mode.__enter__()


def _pop(mode: AbstractContextManager[Any]) -> None:
    mode.__exit__(None, None, None)


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) and not value.is_inference() else 0


def _handed_on(activation: Tensor, output: Tensor, *, inplace: bool) -> Tensor:
    # torch forbids in-place operations on what a hooked module gives, not on its clone.
    return output.copy_(activation) if inplace else activation.clone()


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _check_clear(output: Tensor, size: tuple[int, ...]) -> None:
    if not is_clearly_map(output.shape, size):
        raise UnclearError


def check_output(name: str, output: Any, layout: Layout | None) -> None:
    """Raise for what a layer gave, where it is no feature map."""
    if not isinstance(output, Tensor):
        raise LayerError(
            f"The layer '{name}' gives a {type(output).__name__}, not one feature map: choose a "
            "layer inside or behind it that gives a tensor (find_layers lists them)."
        )
    if (layout is None and output.ndim not in (4, 5)) or not output.is_floating_point():
        raise LayerError(
            f"The layer '{name}' gives a tensor of shape {tuple(output.shape)} and type "
            f"{output.dtype}, not a feature map (B, K, *spatial), and no grid of pixels was seen "
            "in it: choose another layer (find_layers lists them)."
        )


def forward(request: Request) -> tuple[Tensor, dict[str, Tensor]]:
    """The logits and the layers' activations of a request, without a graph.

    Parameters
    ----------
    request : Request
        Its score is not asked for.

    Returns
    -------
    logits : Tensor
        (B, C, *spatial).
    activations : dict of str to Tensor
        (B, K, *layer_spatial) each, as the layer gave it.

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that gives no feature map.
    """
    images = plain_images(request.images, channels_last=request.channels_last)
    with preserved(request.model), torch.no_grad(), Taps(request.layers, _ignore) as taps:
        logits = request.output(request.model(images))
        taps.seal()
        return logits, dict(taps.activations)


def _ignore(name: str, activation: Tensor, gradient: Tensor) -> None:
    """No gradient comes."""
