"""Hooks: take each layer's activation on the way out, and its gradient on the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from threading import get_ident
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unetcam.engine.forward_watch import EntryWatch, RunCounter, TensorUses
from unetcam.engine.layout import Layout, UnclearError, is_clearly_map
from unetcam.engine.request import Entry, Request, TapPoint
from unetcam.engine.state import preserved
from unetcam.engine.tensors import copied, listed, plain_images
from unetcam.errors import LayerError

#: Called with a layer's name, its activation and its gradient, both (B, K, *spatial).
OnGradient = Callable[[str, Tensor, Tensor], None]

#: Modules whose output was seen to be used before they gave it.
_USED_BEFORE: WeakSet[nn.Module] = WeakSet()

T = TypeVar("T")


class RootNeededError(Exception):
    """A layer's output was used before its module gave it: the graph has to begin at the images."""


class Taps:
    """Scoped hooks on named layers; they are gone when the ``with`` block ends.

    The tap is placed on the tensor itself: whoever holds a layer's output, from whatever list,
    attribute or other hook, holds the tensor whose gradient is taken, and the gradient is that of
    all its uses. A copy is kept of what the layer gave, which no later in-place operation reaches.

    With no parameter requiring a gradient, the graph begins at the first tapped layer and nowhere
    before: its output is made a copy of a leaf, in its place. That does not reach what was made of
    the output earlier, inside the module or of the input that it hands on; then :meth:`seal`
    raises :class:`RootNeededError`, and the forward has to be run again on images with a graph.

    The hooks serve the thread that entered the block, and no forward of another.

    Parameters
    ----------
    layers : Mapping of str to nn.Module or TapPoint
        The layers by name.
    on_gradient : callable
        Is given each layer's name, activation and gradient as they arrive in a backward.
    on_leaf : callable, optional
        Is given the tensor that flows on from each leaf.
    rooted : bool
        Whether the images have a graph, so that no leaf is made.

    Attributes
    ----------
    activations : dict of str to Tensor
        (B, K, *layer_spatial) each, in the order in which the layers ran.
    ends : list of GradientEdge
        Where a backward ends: pass them to ``torch.autograd.grad``.
    cut_off : list of str
        The layers that ran where gradients are off.
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module | TapPoint],
        on_gradient: OnGradient | None = None,
        on_leaf: Callable[[Tensor], None] = lambda leaf: None,
        *,
        rooted: bool = False,
    ) -> None:
        self.activations: dict[str, Tensor] = {}
        self.ends: list[GradientEdge] = []
        self._points = {
            name: layer if isinstance(layer, TapPoint) else TapPoint(layer)
            for name, layer in layers.items()
        }
        self._on_gradient, self._on_leaf = on_gradient, on_leaf
        self._rooted = rooted
        self._stack, self._watching = ExitStack(), ExitStack()
        self._uses = TensorUses()
        self._leaf_names: set[str] = set()
        self._is_root_needed = self._is_begun_elsewhere = False
        self.cut_off: list[str] = []
        self._sealed = False

    def __enter__(self) -> Taps:
        with ExitStack() as stack:
            self._stack = stack
            for name, point in self._points.items():
                if point.entry is None:
                    self._watch_output(name, point)
                else:
                    self._watch_entry(name, point, point.entry)
            if self._on_gradient is not None and not self._rooted:
                self._watching.enter_context(self._uses)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watching.close()
        self._stack.close()
        self.activations.clear()
        self.ends.clear()

    def seal(self) -> None:
        """The forward is over: check that it reached every layer, in one piece.

        Raises
        ------
        LayerError
            For a layer that never ran.
        RootNeededError
            Where the gradient of some use of a layer's output would be missing.
        """
        self._sealed = True
        self._watching.close()
        missed = [name for name in self._points if name not in self.activations]
        if missed:
            raise LayerError(
                f"The forward never ran the layer {listed(missed)}: choose a layer that the "
                "network uses (find_layers lists them)."
            )
        if self._is_root_needed:
            raise RootNeededError

    def unreached(self, name: str) -> LayerError:
        """The error of a layer at which no gradient arrives."""
        if name in self.cut_off:
            return LayerError(
                f"The layer '{name}' runs where gradients are off (torch.no_grad or "
                "torch.inference_mode in the forward, or a reentrant checkpoint): build the "
                "network without, as with checkpoint(..., use_reentrant=False)."
            )
        return LayerError(
            f"No gradient comes from the logits to the layer '{name}': choose a layer on the way "
            "to the output that is explained (find_layers lists them)."
        )

    # -- the forward -------------------------------------------------------------------------

    def _watch_output(self, name: str, point: TapPoint) -> None:
        runs = RunCounter(name, point.run)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if runs.is_next(again=self._sealed):
                if point.size is not None and isinstance(output, Tensor):
                    _check_clear(output, point.size)
                self._tap(name, output, point.layout)

        handle = point.module.register_forward_hook(on_this_thread(leave))
        self._stack.callback(handle.remove)

    def _watch_entry(self, name: str, point: TapPoint, entry: Entry) -> None:
        runs = RunCounter(name, point.run)
        open_runs: list[ExitStack] = []

        def enter(module: nn.Module, args: Any) -> None:
            open_runs.append(ExitStack())
            if runs.is_next(again=self._sealed):
                watch = EntryWatch(entry, lambda x: self._tap_entry(name, x, point, entry))
                open_runs[-1].enter_context(watch)

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            if open_runs:
                open_runs.pop().close()

        before = point.module.register_forward_pre_hook(on_this_thread(enter))
        after = point.module.register_forward_hook(on_this_thread(leave), always_call=True)
        self._stack.callback(before.remove)
        self._stack.callback(after.remove)

    def _tap(self, name: str, output: Any, layout: Layout | None) -> None:
        """Put the tap on a layer's output, which stays the tensor that everybody holds."""
        if self._sealed:
            # A checkpointed block runs again during the backward: the same graph, unrecorded.
            if name in self._leaf_names:
                _rooted_in(output.detach().clone().requires_grad_(), output)
            return
        check_output(name, output, layout)
        is_all = self._rooted or (self._uses.is_unused(output) and not output._is_view())
        self._keep(name, output, layout)
        if self._on_gradient is None:
            return
        if not torch.is_grad_enabled():
            self.cut_off.append(name)
        if output.requires_grad:
            self._receive_from(name, output, layout)
            self._end_at(output)
            return
        if not is_all:
            _USED_BEFORE.add(self._points[name].module)
            self._is_root_needed = True
            return
        if output._is_view() or output.is_inference():
            return  # nothing leads here from the images, and a leaf has no place
        leaf = output.detach().clone().requires_grad_()
        self._leaf_names.add(name)
        self._receive_from(name, leaf, layout)
        self.ends.append(get_gradient_edge(leaf))
        _rooted_in(leaf, output)
        if layout is None:
            self._on_leaf(output)

    def _tap_entry(self, name: str, tensor: Tensor, point: TapPoint, entry: Entry) -> Tensor:
        """What one operation is given in the place of a tensor: only that use of it counts."""
        if self._sealed:
            again = tensor.detach().requires_grad_() if name in self._leaf_names else tensor
            return again.clone()
        check_entry(name, tensor, point, entry)
        self._keep(name, tensor, point.layout)
        if self._on_gradient is None:
            return tensor
        if not torch.is_grad_enabled():
            self.cut_off.append(name)
        is_leaf = not tensor.requires_grad
        fresh = tensor.detach().requires_grad_() if is_leaf else tensor.view_as(tensor)
        self._receive_from(name, fresh, point.layout)
        flows_on = fresh.clone()  # which may be changed in place
        if not is_leaf:
            self._end_at(fresh)
            return flows_on
        self._leaf_names.add(name)
        self.ends.append(get_gradient_edge(fresh))
        if point.layout is None:
            self._on_leaf(flows_on)
        return flows_on

    def _end_at(self, tensor: Tensor) -> None:
        """Let backwards end at a tensor that has a graph, where no leaf is known to lie before."""
        self._is_begun_elsewhere = self._is_begun_elsewhere or not self.ends
        if self._rooted or self._is_begun_elsewhere:
            self.ends.append(get_gradient_edge(tensor))

    def _keep(self, name: str, output: Tensor, layout: Layout | None) -> None:
        kept = output.detach().clone()
        self.activations[name] = kept if layout is None else layout.to_map(kept)

    # -- the backward ------------------------------------------------------------------------

    def _receive_from(self, name: str, tensor: Tensor, layout: Layout | None) -> None:
        assert self._on_gradient is not None
        on_gradient = self._on_gradient

        def receive(gradient: Tensor) -> None:
            with torch.no_grad():
                whole = gradient if layout is None else layout.to_map(gradient)
                on_gradient(name, self.activations[name], whole)

        handle = tensor.register_hook(receive)  # type: ignore[no-untyped-call]
        self._stack.callback(handle.remove)


def is_root_needed(request: Request) -> bool:
    """Whether an earlier forward showed that the graph has to begin at the images."""
    return any(
        point.entry is None and point.module in _USED_BEFORE for point in request.layers.values()
    )


class _Root(torch.autograd.Function):
    """Lets a tensor that stands in no graph be, from now on, a copy of a leaf."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, leaf: Tensor) -> Tensor:
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, grads[0]


def _rooted_in(leaf: Tensor, output: Tensor) -> None:
    with torch.enable_grad():
        _Root.apply(output, leaf)


def on_this_thread(hook: Callable[..., T]) -> Callable[..., T | None]:
    """A module's hook that is deaf to forwards in other threads than the present one."""
    thread = get_ident()

    def guarded(*args: Any) -> T | None:
        return hook(*args) if get_ident() == thread else None

    return guarded


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


def check_entry(name: str, tensor: Tensor, point: TapPoint, entry: Entry) -> None:
    """Raise for what an operation is given, where it is not what the traced one was given."""
    if tensor.shape[1 if point.layout is None else point.layout.axis] != entry.channels:
        raise LayerError(
            f"The forward took another course than the traced one, so '{name}' can't be told: "
            "explain the layer as a whole."
        )
    check_output(name, tensor, point.layout)


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
    images = copied(plain_images(request.images), channels_last=request.channels_last)
    with preserved(request.model), torch.no_grad(), Taps(request.layers) as taps:
        logits = request.output(request.model(images))
        taps.seal()
        return logits, dict(taps.activations)
