"""From seeds at the logits to what a method needs of each layer's gradient."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from unetcam.engine.budget import chunked
from unetcam.engine.head import Head, UnitSeeds
from unetcam.engine.seeds import Seeds
from unetcam.engine.tensors import at_least_single, unreached
from unetcam.errors import UnetcamError

#: Image pixels that a backward should work on at once. Below it a device idles between the small
#: steps of a backward, and several targets share one. Measured on 2 cores; on a GPU chosen.
_ENOUGH_PIXELS = {"cpu": 1 << 16}
_ENOUGH_ON_A_GPU = 1 << 22


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
        self._found: dict[str, Tensor] = {}

    def begin(self, factors: Tensor | None) -> None:
        """A backward starts, whose gradients are to be multiplied with factors (B,)."""
        self._factors = factors
        self._found.clear()

    def receive(self, name: str, activation: Tensor, gradient: Tensor) -> None:
        """Take the gradient that arrived at a layer, (B, K, *spatial)."""
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = at_least_single(gradient)
            if self._factors is not None:
                gradient = gradient * self._factors.view(-1, *[1] * (gradient.ndim - 1))
            self._found[name] = self._method.reduce(at_least_single(activation), gradient)

    def take(self, layers: Sequence[str]) -> tuple[Tensor, ...]:
        """What arrived at the layers, in their order."""
        for name in layers:
            if name not in self._found:
                raise unreached(name)
        return tuple(self._found.pop(name) for name in layers)


def statistics_by_backwards(
    logits: Tensor,
    leaves: Sequence[Tensor],
    arrivals: Arrivals,
    activations: Mapping[str, Tensor],
    seeds: Seeds | UnitSeeds,
    head: Head,
    *,
    memory: int,
) -> dict[str, Tensor]:
    """Go backward from every seed.

    Parameters
    ----------
    logits : Tensor
        (B, C, *spatial), with the forward's graph.
    leaves : sequence of Tensor
        Where backwards end.
    arrivals : Arrivals
        What the layers' hooks hand their gradients to.
    activations : Mapping of str to Tensor
        By layer.
    seeds : Seeds
    head : Head
        Is told the channels of the logits that a backward touches.
    memory : int
        Bytes that the tensors of one backward may take.

    Returns
    -------
    dict of str to Tensor
        By layer, (B, T, ...).
    """
    names = tuple(activations)
    together = True

    def back(seed: Tensor, factors: Tensor | None) -> tuple[Tensor, ...]:
        arrivals.begin(factors)
        torch.autograd.grad(logits, leaves, seed, retain_graph=True, allow_unused=True)
        return arrivals.take(names)

    def explained(targets: Sequence[int]) -> tuple[Tensor, ...]:
        nonlocal together
        found = seeds.of(targets, outside_matters=not head.is_known)
        head.restrict(found.channels)
        if len(targets) > 1 and together:
            dims = (0, None if found.factors is None else 0)
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", "There is a performance drop")
                    batched: tuple[Tensor, ...] = torch.func.vmap(back, dims)(*found[:2])
            except (torch.OutOfMemoryError, UnetcamError):
                raise
            except Exception:
                # An operation of the network's own that can't be batched; if something else is
                # wrong, the single backwards will say it.
                together = False
            else:
                return tuple(one.transpose(0, 1) for one in batched)
        none = [None] * len(targets)
        single = [
            back(seed, factors)
            for seed, factors in zip(
                found.seeds, none if found.factors is None else found.factors, strict=True
            )
        ]
        return tuple(torch.stack(ones, dim=1) for ones in zip(*single, strict=True))

    parts = chunked(
        explained,
        range(len(seeds)),
        _bytes_of_a_backward(logits, activations),
        memory,
        most=_targets_at_once(logits),
    )
    return {
        name: torch.cat(found, dim=1) if len(found) > 1 else found[0].contiguous()
        for name, found in zip(names, zip(*parts, strict=True), strict=True)
    }


def _targets_at_once(logits: Tensor) -> int:
    enough = _ENOUGH_PIXELS.get(logits.device.type, _ENOUGH_ON_A_GPU)
    return max(1, enough // logits[:, 0].numel())


def _bytes_of_a_backward(logits: Tensor, activations: Mapping[str, Tensor]) -> int:
    """About what the gradients on the way take that are alive at the same time."""
    largest = max(tensor.numel() for tensor in (logits, *activations.values()))
    return 4 * largest * max(4, logits.element_size())
