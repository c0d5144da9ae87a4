"""All targets and layers from one forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from unetcam.engine.backwards import Arrivals, Reduction, statistics_by_backwards
from unetcam.engine.budget import memory_bytes, require_room
from unetcam.engine.head import UnitSeeds, statistics_by_span
from unetcam.engine.run import Collected, Run
from unetcam.engine.seeds import Seeds
from unetcam.engine.shifts import weights_by_shifts
from unetcam.engine.shortcuts import Shortcuts
from unetcam.engine.state import preserved
from unetcam.engine.taps import Taps
from unetcam.engine.tensors import (
    at_least_single,
    listed,
    plain_images,
    require_finite,
    undefined_to_nan,
)
from unetcam.errors import LayerError


def collect(run: Run, method: Reduction) -> Collected:
    """Run one forward, and backwards from the logits to the deepest layer.

    Nothing before the first tapped layer builds a graph and no parameter collects a gradient. A
    layer's gradient is reduced as it arrives, so that no more than one is held at a time. Where
    images are so small that a backward leaves the device idle, several targets share one; where
    targets outnumber a layer's channels by far, forward-mode passes take the backwards' place.

    Parameters
    ----------
    run : Run
    method : Reduction

    Returns
    -------
    Collected

    Raises
    ------
    LayerError
        For a layer that the forward never reaches, or that no gradient reaches.
    MemoryBudgetError
        When the maps alone exceed the run's memory budget.
    NumericalError
        For NaN or infinity; the message says where it was seen first.
    """
    shortened, arrivals = Shortcuts(sums_suffice=method.needs_mean_only), Arrivals(method)
    with preserved(run.model), Taps(run.layers, arrivals.receive, shortened.leaf) as taps:
        images = plain_images(run.images, channels_last=run.channels_last)
        with shortened if run.shortcuts else nullcontext():
            logits = run.output(run.model(images))
        taps.seal()
        if not logits.requires_grad:
            raise LayerError(
                f"No gradient comes from the logits to {listed(run.layers)}: choose layers on "
                "the way to the output, and let the model return logits that are not detached."
            )
        activations = {name: taps.activations[name] for name in run.layers}
        mixed = torch.is_autocast_enabled(logits.device.type)
        with torch.autocast(logits.device.type, enabled=False):
            seeds = Seeds(run, logits, halved=_is_halved(logits, *activations.values()))
            require_room(run.memory_budget, activations.values(), len(seeds))
            statistics = _statistics(
                run,
                method,
                images,
                logits,
                taps.leaves,
                arrivals,
                activations,
                seeds,
                shortened,
                mixed=mixed,
            )
            logits = logits.detach()
            with torch.no_grad():
                require_finite(images, activations, logits, statistics)
                maps = {
                    name: undefined_to_nan(
                        method.combine(at_least_single(activation), statistics[name]),
                        seeds.defined,
                    )
                    for name, activation in activations.items()
                }
        return Collected(logits, maps, seeds.defined)


def _statistics(
    run: Run,
    method: Reduction,
    images: Tensor,
    logits: Tensor,
    leaves: Sequence[Tensor],
    arrivals: Arrivals,
    activations: Mapping[str, Tensor],
    seeds: Seeds,
    shortened: Shortcuts,
    *,
    mixed: bool,
) -> dict[str, Tensor]:
    """What the method needs of the gradients, (B, T, ...) by layer, in the shortest way."""
    memory = memory_bytes(run.memory_budget, logits.device)
    head = shortened.head(logits)

    def go_back(seeds: Seeds | UnitSeeds) -> dict[str, Tensor]:
        return statistics_by_backwards(
            logits, leaves, arrivals, activations, seeds, head, memory=memory
        )

    found = None
    if run.shortcuts and method.needs_mean_only:
        if not mixed:  # what runs again would run in another precision
            found = weights_by_shifts(run, images, activations, seeds, memory=memory)
        found = found or statistics_by_span(head, seeds, go_back)
    return found or go_back(seeds)


def _is_halved(*tensors: Tensor) -> bool:
    return any(tensor.dtype == torch.float16 for tensor in tensors)
