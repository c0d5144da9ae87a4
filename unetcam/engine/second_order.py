"""From a score to its second derivative at a layer, along the layer's own activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge, Node

from unetcam.engine.differentiable import OpenTaps
from unetcam.engine.function_mode import FunctionMode
from unetcam.engine.layout import Layout
from unetcam.engine.memory import require_room
from unetcam.engine.request import Collected, Request, Score, targets_of
from unetcam.engine.state import preserved
from unetcam.engine.tensors import (
    at_least_single,
    copied,
    plain_images,
    require_finite,
    undefined_to_nan,
)
from unetcam.errors import ModelError

#: What torch says of an operation whose gradient has no derivative.
_NOT_TWICE = ("differentiate twice", "is not implemented", "not supported for double backward")
#: What every function that was declared to be differentiable once runs in a backward.
_ONCE = once_differentiable(lambda *args: None).__code__


class SecondOrderReduction(Protocol):
    """How a method condenses a gradient G and the product H A of the Hessian with the activation.

    All three tensors of `reduce` are (B, K, *layer_spatial).
    """

    def reduce(self, activation: Tensor, gradient: Tensor, product: Tensor) -> Tensor: ...
    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor: ...


def differentiate_twice(request: Request, method: SecondOrderReduction) -> Collected:
    r"""Explain by gradients and by the second derivative along each layer's own activation.

    With :math:`G = \partial s / \partial A` at a layer, the product is :math:`H A =
    \partial \langle G, A' \rangle / \partial A`, where :math:`A'` is the activation's value held
    fixed: one more backward for each target and layer, and no Hessian. Backwards are whole; no
    shortcut is taken, as those have no second derivative.

    Parameters
    ----------
    request : Request
    method : SecondOrderReduction

    Returns
    -------
    Collected

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that no gradient reaches.
    MemoryBudgetError
        When the maps alone exceed the request's memory budget.
    ModelError
        For an operation whose gradient can't be differentiated again.
    NumericalError
        For NaN or infinity; the message says where it was seen first.
    """
    taps = OpenTaps(request)
    with preserved(request.model), taps:
        images = plain_images(request.images)
        root = images.detach().requires_grad_()  # so that all of a layer's uses are in the graph
        given = copied(root, channels_last=request.channels_last)
        with _PlainAttention():
            logits = request.output(request.model(given))
        taps.seal()
        _require_differentiable_twice(logits, taps)
        activations = {name: taps.activations[name].detach() for name in request.layers}
        halved = any(one.dtype == torch.float16 for one in (logits, *activations.values()))
        with torch.autocast(logits.device.type, enabled=False):
            exact = at_least_single(logits)
            scores = request.score(exact)
            require_room(request.memory_budget, activations.values(), len(scores))
            reduced = [
                _of_score(score, exact, taps, activations, method, halved=halved)
                for score in scores
            ]
            defined = torch.stack([score.defined for score in scores], dim=1)
            statistics = {
                name: torch.stack([one[name] for one in reduced], dim=1) for name in activations
            }
            with torch.no_grad():
                require_finite(images, activations, logits.detach(), statistics)
                maps = {
                    name: undefined_to_nan(
                        method.combine(at_least_single(activation), statistics[name]), defined
                    )
                    for name, activation in activations.items()
                }
        return Collected(logits.detach(), maps, defined, targets_of(scores))


class _PlainAttention(FunctionMode):
    """Inside, attention is what its formula says: fused kernels have no second derivative."""

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return torch.ops.aten._scaled_dot_product_attention_math(*args, **kwargs)[0]
        return function(*args, **kwargs)


def _of_score(
    score: Score,
    logits: Tensor,
    taps: OpenTaps,
    activations: dict[str, Tensor],
    method: SecondOrderReduction,
    *,
    halved: bool,
) -> dict[str, Tensor]:
    """By layer, what the method makes of one score's two derivatives, (B, ...)."""
    value, factors = score.value, None
    if halved and value.requires_grad:
        value, factors = _in_range(value, logits)
    names = tuple(activations)
    edges = [taps.edges[name] for name in names]
    gradients: tuple[Tensor | None, ...] = (None,) * len(names)
    if value.requires_grad:  # not where no image of the batch has the region
        gradients = torch.autograd.grad(value.sum(), edges, create_graph=True, allow_unused=True)
        for name, one in zip(names, gradients, strict=True):
            if one is None:
                raise taps.unreached(name)
    reduced = {}
    for name, edge, gradient in zip(names, edges, gradients, strict=True):
        activation = activations[name]
        first = second = torch.zeros_like(activation)
        if gradient is not None:
            layout = taps.layouts[name]
            whole = gradient if layout is None else layout.to_map(gradient)
            second = _product(name, whole, edge, layout, activation)
            first = whole.detach()
        first, second = at_least_single(first), at_least_single(second)
        if factors is not None:
            undone = factors.view(-1, *[1] * (first.ndim - 1))
            first, second = first * undone, second * undone
        reduced[name] = method.reduce(at_least_single(activation), first, second)
    return reduced


def _product(
    name: str, gradient: Tensor, edge: GradientEdge, layout: Layout | None, activation: Tensor
) -> Tensor:
    """The Hessian times the activation: zero where the gradient does not depend on it."""
    if not gradient.requires_grad:
        return torch.zeros_like(activation)
    try:
        product: Tensor | None = torch.autograd.grad(
            gradient, [edge], activation, retain_graph=True, allow_unused=True
        )[0]
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if not any(words in str(error) for words in _NOT_TWICE):
            raise
        raise _not_twice(f"An operation between the layer '{name}' and the logits") from error
    if product is None:
        return torch.zeros_like(activation)
    return product if layout is None else layout.to_map(product)


def _require_differentiable_twice(logits: Tensor, taps: OpenTaps) -> None:
    """Refuse what was declared to be differentiable once, between the layers and the logits.

    Torch itself says so only where the gradient that arrives there has a graph, and elsewhere
    takes its derivative for zero.
    """
    ends = {edge.node for edge in taps.edges.values()}
    following: dict[Node, list[Node]] = {}
    waiting = [] if logits.grad_fn is None else [logits.grad_fn]
    while waiting:
        node = waiting.pop()
        for before, _ in node.next_functions:
            if before is not None:
                if before not in following and before not in ends:
                    waiting.append(before)
                following.setdefault(before, []).append(node)
    between, waiting = set[Node](), [node for node in ends if node in following]
    while waiting:
        for node in following.get(waiting.pop(), ()):
            if node not in between:
                between.add(node)
                waiting.append(node)
    for node in between:
        function: Any = getattr(node, "_forward_cls", None)  # of a function written in Python
        if getattr(getattr(function, "backward", None), "__code__", None) is _ONCE:
            raise _not_twice(f"The operation {function.__name__}")


def _not_twice(what: str) -> ModelError:
    return ModelError(
        f"{what} has no second derivative, which this method needs: use gradcam, or another method "
        "made of one gradient."
    )


def _in_range(value: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Scores whose gradients half precision holds, and for each image what undoes it, (B,)."""
    (slope,) = torch.autograd.grad(value.sum(), logits, retain_graph=True, materialize_grads=True)
    peak = slope.flatten(1).abs().amax(dim=1)
    octaves = torch.where(peak > 0, torch.log2(peak).floor(), torch.zeros_like(peak))
    return value * torch.exp2(-octaves), torch.exp2(octaves)
