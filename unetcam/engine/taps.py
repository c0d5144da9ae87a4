"""Hooks: take each layer's activation on the way out, and its gradient on the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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
    What flows on is a fresh tensor: an in-place operation behind the layer works.

    The activation of the first tapped layer to run becomes a leaf. With no parameter requiring a
    gradient, the graph begins there and nowhere before.

    Parameters
    ----------
    layers : Mapping of str to nn.Module
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
        layers: Mapping[str, nn.Module],
        on_gradient: OnGradient,
        on_leaf: Callable[[Tensor], None] = lambda leaf: None,
    ) -> None:
        self.activations: dict[str, Tensor] = {}
        self.leaves: list[Tensor] = []
        self._layers = layers
        self._on_gradient = on_gradient
        self._on_leaf = on_leaf
        self._handles: list[RemovableHandle] = []
        self._leaf_names: set[str] = set()
        self._sealed = False

    def __enter__(self) -> Taps:
        try:
            for name, layer in self._layers.items():
                self._handles.append(layer.register_forward_hook(self._capture(name)))
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
        missed = [name for name in self._layers if name not in self.activations]
        if missed:
            raise LayerError(
                f"The forward never ran the layer {_listed(missed)}: choose a layer that the "
                "network uses (find_layers lists them)."
            )

    def _remove(self) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _capture(self, name: str) -> Callable[[nn.Module, Any, Any], Tensor]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if self._sealed:
                # A checkpointed block runs again during the backward: the same graph, unrecorded.
                is_leaf = name in self._leaf_names
                again: Tensor = output.detach().requires_grad_() if is_leaf else output
                return again.clone()
            _check_output(name, output, again=name in self.activations)
            self.activations[name] = output.detach().clone()
            if self.leaves and output.requires_grad:
                activation = output
            else:
                activation = output.detach().requires_grad_()
                self.leaves.append(activation)
                self._leaf_names.add(name)
            tap = _Tap()
            self._handles.append(tap.register_full_backward_hook(self._receive(name)))
            # torch forbids in-place operations on what a hooked module gives, not on its clone.
            fresh: Tensor = tap(activation).clone()
            if activation.is_leaf:
                self._on_leaf(fresh)
            return fresh

        return hook

    def _receive(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, grad_input: Any, grad_output: Any) -> None:
            with torch.no_grad():
                self._on_gradient(name, self.activations[name], grad_output[0])

        return hook


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _check_output(name: str, output: Any, *, again: bool) -> None:
    if again:
        raise LayerError(
            f"The layer '{name}' runs more than once in a forward, so it has no single map: "
            "choose a layer that runs once (find_layers lists them)."
        )
    if not isinstance(output, Tensor):
        raise LayerError(
            f"The layer '{name}' gives a {type(output).__name__}, not one feature map: choose a "
            "layer inside or behind it that gives a tensor (find_layers lists them)."
        )
    if output.ndim not in (4, 5) or not output.is_floating_point():
        raise LayerError(
            f"The layer '{name}' gives a tensor of shape {tuple(output.shape)} and type "
            f"{output.dtype}, not a feature map (B, K, *spatial): choose another layer "
            "(find_layers lists them)."
        )
