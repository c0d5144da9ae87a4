"""From gradients at the logits to what a method needs of each layer's gradient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Protocol

import torch
from torch import Tensor

from unetcam.engine.hooks import RootNeededError, Taps, is_root_needed
from unetcam.engine.logits_conv import Head, UnitGradients, statistics_by_span
from unetcam.engine.memory import chunked, memory_bytes, require_room
from unetcam.engine.request import WHOLE_BACKWARDS, Collected, Request
from unetcam.engine.score_gradients import ScoreGradients
from unetcam.engine.shortcuts import Shortcuts
from unetcam.engine.state import preserved
from unetcam.engine.tensors import (
    at_least_single,
    copied,
    listed,
    plain_images,
    require_finite,
    undefined_to_nan,
)
from unetcam.errors import LayerError, ModelError, UnetcamError

#: Image pixels that a backward should work on at once. Below it a device idles between the small
#: steps of a backward, and several targets share one. Measured on 2 cores; on a GPU chosen.
_ENOUGH_PIXELS = {"cpu": 1 << 16}
_ENOUGH_ON_A_GPU = 1 << 22
#: What torch says when a gradient is asked for behind a reentrant checkpoint.
_REENTRANT = "use_reentrant=True"


class Reduction(Protocol):
    """How a method condenses gradients: see :class:`unetcam.methods.GradientMethod`."""

    @property
    def needs_mean_only(self) -> bool: ...
    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor: ...
    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor: ...


class Arrivals:
    """Reduces each layer's gradient as it arrives, so that no more than one is held at a time."""

    def __init__(self, method: Reduction) -> None:
        self._method = method
        self._factors: Tensor | None = None
        self._arrived: dict[str, Tensor] = {}

    def begin(self, factors: Tensor | None) -> None:
        """A backward starts, whose gradients are to be multiplied with factors (B,)."""
        self._factors = factors
        self._arrived.clear()

    def receive(self, name: str, activation: Tensor, gradient: Tensor) -> None:
        """Take the gradient that arrived at a layer, (B, K, *spatial)."""
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = at_least_single(gradient)
            if self._factors is not None:
                gradient = gradient * self._factors.view(-1, *[1] * (gradient.ndim - 1))
            self._arrived[name] = self._method.reduce(at_least_single(activation), gradient)

    def take(self, taps: Taps, layers: Sequence[str]) -> tuple[Tensor, ...]:
        """What arrived at the layers, in their order."""
        for name in layers:
            if name not in self._arrived:
                raise taps.unreached(name)
        return tuple(self._arrived.pop(name) for name in layers)


def statistics_by_backwards(
    logits: Tensor,
    taps: Taps,
    arrivals: Arrivals,
    activations: Mapping[str, Tensor],
    scores: ScoreGradients | UnitGradients,
    head: Head,
    *,
    memory: int,
    most: int,
) -> dict[str, Tensor]:
    """Go backward from every score.

    Parameters
    ----------
    logits : Tensor
        (B, C, *spatial), with the forward's graph.
    taps : Taps
        Tell where backwards end.
    arrivals : Arrivals
        What the layers' hooks hand their gradients to.
    activations : Mapping of str to Tensor
        By layer.
    scores : ScoreGradients
    head : Head
        Is told the channels of the logits that a backward touches.
    memory : int
        Bytes that the tensors of one backward may take.
    most : int
        Targets that may share a backward.

    Returns
    -------
    dict of str to Tensor
        By layer, (B, T, ...).
    """
    names = tuple(activations)
    together = True

    def back(grad_output: Tensor, factors: Tensor | None) -> tuple[Tensor, ...]:
        arrivals.begin(factors)
        try:
            torch.autograd.grad(
                logits, taps.ends, grad_output, retain_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            if _REENTRANT not in str(error):
                raise
            raise ModelError(
                "A reentrant checkpoint in the forward lets no gradient through to a layer: call "
                "checkpoint(..., use_reentrant=False), or turn the checkpointing off."
            ) from error
        return arrivals.take(taps, names)

    def explained(targets: Sequence[int]) -> tuple[Tensor, ...]:
        nonlocal together
        begin = scores.of(targets, outside_matters=not head.is_known)
        head.restrict(begin.channels)
        if len(targets) > 1 and together:
            dims = (0, None if begin.factors is None else 0)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    batched: tuple[Tensor, ...] = torch.func.vmap(back, dims)(*begin[:2])
            except (torch.OutOfMemoryError, UnetcamError):
                raise
            except Exception:  # whatever an operation of the network's own raises in a batch
                # If it is not the batching that is wrong, the single backwards will raise it.
                together = False
            else:
                return tuple(one.transpose(0, 1) for one in batched)
        none = [None] * len(targets)
        single = [
            back(values, factors)
            for values, factors in zip(
                begin.values, none if begin.factors is None else begin.factors, strict=True
            )
        ]
        return tuple(torch.stack(ones, dim=1) for ones in zip(*single, strict=True))

    parts = chunked(
        explained,
        range(len(scores)),
        _bytes_of_a_backward(logits, activations),
        memory,
        most=most,
    )
    return {
        name: torch.cat(chunks, dim=1) if len(chunks) > 1 else chunks[0].contiguous()
        for name, chunks in zip(names, zip(*parts, strict=True), strict=True)
    }


def _targets_at_once(logits: Tensor) -> int:
    enough = _ENOUGH_PIXELS.get(logits.device.type, _ENOUGH_ON_A_GPU)
    return max(1, enough // logits[:, 0].numel())


def _bytes_of_a_backward(logits: Tensor, activations: Mapping[str, Tensor]) -> int:
    """About what the gradients on the way take that are alive at the same time."""
    largest = max(tensor.numel() for tensor in (logits, *activations.values()))
    return 4 * largest * max(4, logits.element_size())


def collect(request: Request, method: Reduction) -> Collected:
    """Request one forward, and backwards from the logits to the deepest layer.

    Nothing before the first tapped layer builds a graph and no parameter collects a gradient. A
    layer's gradient is reduced as it arrives, so that no more than one is held at a time. Where
    images are so small that a backward leaves the device idle, several targets share one.

    Parameters
    ----------
    request : Request
    method : Reduction

    Returns
    -------
    Collected

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that no gradient reaches.
    MemoryBudgetError
        When the maps alone exceed the request's memory budget.
    NumericalError
        For NaN or infinity; the message says where it was seen first.
    """
    if not is_root_needed(request):
        with suppress(RootNeededError):
            return _collected(request, method, rooted=False)
    return _collected(request, method, rooted=True)


def _collected(request: Request, method: Reduction, *, rooted: bool) -> Collected:
    shortened = Shortcuts(request.shortcuts, sums_suffice=method.needs_mean_only)
    arrivals = Arrivals(method)
    tapped = Taps(request.layers, arrivals.receive, shortened.leaf, rooted=rooted)
    with preserved(request.model), tapped as taps:
        images = plain_images(request.images)
        with shortened if request.shortcuts - WHOLE_BACKWARDS else nullcontext():
            root = images.detach().requires_grad_(rooted)
            given = copied(root, channels_last=request.channels_last)
            logits = request.output(request.model(given))
        taps.seal()
        if not logits.requires_grad:
            if len(request.layers) == len(taps.cut_off):
                raise taps.unreached(taps.cut_off[0])
            raise LayerError(
                f"No gradient comes from the logits to {listed(request.layers)}: choose layers on "
                "the way to the output, and let the model return logits that are not detached."
            )
        activations = {name: taps.activations[name] for name in request.layers}
        mixed = torch.is_autocast_enabled(logits.device.type)
        with torch.autocast(logits.device.type, enabled=False):
            scores = ScoreGradients(
                request, logits, halved=_is_halved(logits, *activations.values())
            )
            require_room(request.memory_budget, activations.values(), len(scores))
            statistics = _statistics(
                request,
                method,
                images,
                logits,
                taps,
                arrivals,
                activations,
                scores,
                shortened,
                mixed=mixed,
            )
            logits = logits.detach()
            with torch.no_grad():
                require_finite(images, activations, logits, statistics)
                maps = {
                    name: undefined_to_nan(
                        method.combine(at_least_single(activation), statistics[name]),
                        scores.defined,
                    )
                    for name, activation in activations.items()
                }
        return Collected(logits, maps, scores.defined, scores.targets)


def _statistics(
    request: Request,
    method: Reduction,
    images: Tensor,
    logits: Tensor,
    taps: Taps,
    arrivals: Arrivals,
    activations: Mapping[str, Tensor],
    scores: ScoreGradients,
    shortened: Shortcuts,
    *,
    mixed: bool,
) -> dict[str, Tensor]:
    """What the method needs of the gradients, (B, T, ...) by layer, by the shortest route."""
    memory = memory_bytes(request.memory_budget, logits.device)
    head = shortened.head(logits)

    def go_back(scores: ScoreGradients | UnitGradients) -> dict[str, Tensor]:
        return statistics_by_backwards(
            logits,
            taps,
            arrivals,
            activations,
            scores,
            head,
            memory=memory,
            most=_targets_at_once(logits) if "sharing" in request.shortcuts else 1,
        )

    if method.needs_mean_only and "span" in request.shortcuts:
        by_span = statistics_by_span(head, scores, go_back)
        if by_span is not None:
            return by_span
    return go_back(scores)


def _is_halved(*tensors: Tensor) -> bool:
    return any(tensor.dtype == torch.float16 for tensor in tensors)
