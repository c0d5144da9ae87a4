"""All targets and layers from one forward, with one backward per target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
from torch import Tensor

from unetcam.engine.run import Collected, Run
from unetcam.engine.shortcuts import Shortcuts
from unetcam.engine.state import preserved
from unetcam.engine.taps import Taps
from unetcam.errors import LayerError, NumericalError


class Reduction(Protocol):
    """How a method condenses gradients: see :class:`unetcam.methods.GradientMethod`."""

    @property
    def needs_mean_only(self) -> bool: ...
    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor: ...
    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor: ...


def collect(run: Run, method: Reduction) -> Collected:
    """Run one forward, and one backward per target from the logits to the deepest layer.

    Nothing before the first tapped layer builds a graph and no parameter collects a gradient. A
    layer's gradient is reduced as it arrives, so that no more than one is held at a time.

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
    NumericalError
        For NaN or infinity; the message says where it was seen first.
    """
    layers = run.layers
    statistics: dict[str, list[Tensor]] = {name: [] for name in layers}
    unscale: list[Tensor] = []

    def on_gradient(name: str, activation: Tensor, gradient: Tensor) -> None:
        with torch.autocast(gradient.device.type, enabled=False):
            gradient = _at_least_single(gradient)
            for factor in unscale:
                gradient = gradient * factor.view(-1, *[1] * (gradient.ndim - 1))
            statistics[name].append(method.reduce(_at_least_single(activation), gradient))

    shortened = Shortcuts(sums_suffice=method.needs_mean_only)
    with preserved(run.model), Taps(layers, on_gradient, shortened.leaf) as taps:
        images = _prepared(run.images, channels_last=run.channels_last)
        with shortened if run.shortcuts else nullcontext():
            logits = run.output(run.model(images))
        restrict = shortened.head(logits)
        taps.seal()
        if not logits.requires_grad:
            raise LayerError(
                f"No gradient comes from the logits to {_listed(layers)}: choose layers on the "
                "way to the output, and let the model return logits that are not detached."
            )
        halved = any(value.dtype == torch.float16 for value in (logits, *taps.activations.values()))
        with torch.autocast(logits.device.type, enabled=False):
            leaf = _at_least_single(logits.detach()).requires_grad_()
            scores = run.score(leaf)
            for done, target in enumerate(scores, start=1):
                restrict(target.channel)
                (seed,) = torch.autograd.grad(
                    target.value.sum(), leaf, retain_graph=True, materialize_grads=True
                )
                if halved:
                    seed, back = _in_range(seed)
                    unscale[:] = [back]
                torch.autograd.grad(
                    logits,
                    taps.leaves,
                    seed.to(logits.dtype),
                    retain_graph=done < len(scores),
                    allow_unused=True,
                )
                _check_reached(statistics, done)
            stacked = {name: torch.stack(values, dim=1) for name, values in statistics.items()}
            with torch.no_grad():
                _check_finite(images, taps.activations, logits, stacked)
                defined = torch.stack([target.defined for target in scores], dim=1)
                maps = {
                    name: _undefined_to_nan(
                        method.combine(_at_least_single(taps.activations[name]), stacked[name]),
                        defined,
                    )
                    for name in layers
                }
        return Collected(logits.detach(), maps, defined)


def _prepared(images: Tensor, *, channels_last: bool) -> Tensor:
    # A subclass would turn what flows into views of itself; an inference tensor of the caller's
    # can't take part in a graph.
    images = images.as_subclass(Tensor)
    images = images.clone() if images.is_inference() else images.detach()
    if channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    return images


def _in_range(seed: Tensor) -> tuple[Tensor, Tensor]:
    """The seed at a magnitude that half precision holds, and what undoes it for each image.

    The mean over a large image gives seeds that half precision rounds to nothing. A power of two
    changes no digit.
    """
    peak = seed.flatten(1).abs().amax(dim=1)
    octaves = torch.where(peak > 0, torch.log2(peak).floor(), torch.zeros_like(peak))
    shift = torch.exp2(-octaves).view(-1, *[1] * (seed.ndim - 1))
    return seed * shift, torch.exp2(octaves)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _undefined_to_nan(maps: Tensor, defined: Tensor) -> Tensor:
    return maps.masked_fill_(~defined.view(*defined.shape, *[1] * (maps.ndim - 2)), torch.nan)


def _check_reached(statistics: Mapping[str, Sequence[Tensor]], done: int) -> None:
    for name, values in statistics.items():
        if len(values) < done:
            raise LayerError(
                f"No gradient comes from the logits to the layer '{name}': choose a layer on the "
                "way to the output that is explained (find_layers lists them)."
            )


def _check_finite(
    images: Tensor,
    activations: Mapping[str, Tensor],
    logits: Tensor,
    statistics: Mapping[str, Tensor],
) -> None:
    """Name the first place on the way of the data that is not finite; the device waits once."""
    places = [("the input images", images)]
    places += [(f"the activation of layer '{name}'", value) for name, value in activations.items()]
    places += [("the logits", logits)]
    places += [(f"the gradient at layer '{name}'", value) for name, value in statistics.items()]
    finite = torch.stack([torch.isfinite(value).all() for _, value in places]).tolist()
    for (place, _), fine in zip(places, finite, strict=True):
        if not fine:
            raise NumericalError(
                f"NaN or infinity in {place}: check the preprocessing and the checkpoint, or run "
                "without half precision."
            )
