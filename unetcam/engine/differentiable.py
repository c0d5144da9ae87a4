"""Maps that keep their graph, so that they can stand in a loss."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from unetcam.engine.backward import Reduction
from unetcam.engine.hooks import Taps, check_entry, check_output, on_this_thread
from unetcam.engine.layout import Layout
from unetcam.engine.memory import require_room
from unetcam.engine.request import Collected, Entry, Request, TapPoint, targets_of
from unetcam.engine.shortcuts import is_checkpointed
from unetcam.engine.state import preserved
from unetcam.engine.tensors import (
    at_least_single,
    copied,
    require_finite,
    undefined_to_nan,
)
from unetcam.errors import ModelError


class OpenTaps(Taps):
    """Taps whose activations, and the gradients that are asked for at them, have a graph.

    Attributes
    ----------
    edges : dict of str to GradientEdge
        Where in the graph each layer's output is, as the layer gave it.
    layouts : dict of str to Layout or None
    """

    def __init__(self, request: Request) -> None:
        super().__init__(request.layers)
        self.edges: dict[str, GradientEdge] = {}
        self.layouts: dict[str, Layout | None] = {}

    def _tap(self, name: str, output: Any, layout: Layout | None) -> None:
        if not self._sealed:
            check_output(name, output, layout)
            self._open(name, output, layout)

    def _tap_entry(self, name: str, tensor: Tensor, point: TapPoint, entry: Entry) -> Tensor:
        fresh = tensor.view_as(tensor)
        if not self._sealed:
            check_entry(name, tensor, point, entry)
            self._open(name, fresh, point.layout)
        return fresh.clone()  # which may be changed in place

    def _open(self, name: str, output: Tensor, layout: Layout | None) -> None:
        if not torch.is_grad_enabled():
            self.cut_off.append(name)
        if not output.requires_grad:
            raise self.unreached(name)
        self.edges[name], self.layouts[name] = get_gradient_edge(output), layout
        kept = output.clone()
        self.activations[name] = kept if layout is None else layout.to_map(kept)


def differentiate(request: Request, method: Reduction) -> Collected:
    """Explain by whole backwards that are themselves differentiable.

    The maps, and the logits, are functions of the parameters that require a gradient, and of the
    images where they do. The network evaluates, as for any explanation; parameters are not frozen.

    Parameters
    ----------
    request : Request
    method : Reduction

    Returns
    -------
    Collected
        With maps and logits that have a graph.

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that no gradient reaches.
    MemoryBudgetError
        When the maps alone exceed the request's memory budget.
    ModelError
        When nothing requires a gradient, and for a checkpoint in a model that is in training.
    NumericalError
        For NaN or infinity.
    """
    parameters = any(parameter.requires_grad for parameter in request.model.parameters())
    if not parameters and not request.images.requires_grad:
        raise ModelError(
            "create_graph= keeps maps differentiable, and neither a parameter of the model nor the "
            "images require a gradient: let one of them, or leave it out."
        )
    images = request.images.as_subclass(Tensor)
    images = images.clone() if images.is_inference() else images
    # With a graph from the images on, all of a layer's uses are in it.
    root = images if images.requires_grad else images.detach().requires_grad_()
    taps, training = OpenTaps(request), any(module.training for module in request.model.modules())
    with preserved(request.model, frozen=False), taps, ExitStack() as stack:
        for module in request.model.modules() if training else ():
            refuse = on_this_thread(_refuse_checkpoint)
            stack.callback(module.register_forward_pre_hook(refuse).remove)
        logits = request.output(request.model(copied(root)))
        taps.seal()
        names = tuple(request.layers)
        activations = {name: at_least_single(taps.activations[name]) for name in names}
        edges = [taps.edges[name] for name in names]
        with torch.autocast(logits.device.type, enabled=False):
            scores = request.score(at_least_single(logits))
            require_room(request.memory_budget, activations.values(), len(scores))
            statistics: dict[str, list[Tensor]] = {name: [] for name in names}
            for score in scores:
                gradients = torch.autograd.grad(
                    score.value.sum(), edges, create_graph=True, allow_unused=True
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is None:
                        raise taps.unreached(name)
                    layout = taps.layouts[name]
                    whole = gradient if layout is None else layout.to_map(gradient)
                    reduced = method.reduce(activations[name], at_least_single(whole))
                    statistics[name].append(reduced)
            defined = torch.stack([score.defined for score in scores], dim=1)
            stacked = {name: torch.stack(values, dim=1) for name, values in statistics.items()}
            require_finite(images, activations, logits, stacked)
            maps = {
                name: undefined_to_nan(method.combine(activations[name], stacked[name]), defined)
                for name in names
            }
        return Collected(logits, maps, defined, targets_of(scores))


def _refuse_checkpoint(module: nn.Module, args: Any) -> None:
    if is_checkpointed():
        raise ModelError(
            "The model is in training and has a gradient checkpoint, which would run again in "
            "training when the maps' graph is gone through: call model.eval() before, or turn the "
            "checkpointing off."
        )
