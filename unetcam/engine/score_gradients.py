"""Where backwards begin: the derivative of each target's score with respect to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unetcam.engine.request import Request
from unetcam.engine.tensors import at_least_single


class Seeded(NamedTuple):
    """The seeds of some targets.

    Attributes
    ----------
    seeds : Tensor
        (n, B, C, *spatial), of the logits' type.
    factors : Tensor or None
        (n, B): what a gradient must be multiplied with. Half precision is given seeds of a
        magnitude that it holds.
    channels : slice
        The channels of the logits outside which the seeds are zero.
    """

    seeds: Tensor
    factors: Tensor | None
    channels: slice


class Seeds:
    """The targets' scores of a forward, differentiated when they are asked for.

    Parameters
    ----------
    request : Request
    logits : Tensor
        (B, C, *spatial).
    halved : bool
        Whether the backwards pass through half precision.

    Attributes
    ----------
    defined : Tensor
        (B, T) bool: whether the target exists in the image.
    are_exact : bool
        Whether the logits, and so the seeds, are in single precision or better.
    pixels : int
        The pixels of an image's logits.
    bytes_of_one : int
        What one target's seed takes.
    """

    def __init__(self, request: Request, logits: Tensor, *, halved: bool) -> None:
        self._leaf = at_least_single(logits.detach()).requires_grad_()
        self._dtype = logits.dtype
        self._halved = halved
        self.are_exact = logits.dtype in (torch.float32, torch.float64)
        self.pixels = logits[0, 0].numel()
        self.bytes_of_one = self._leaf.numel() * self._leaf.element_size()
        self._scores = request.score(self._leaf)
        self.defined = torch.stack([score.defined for score in self._scores], dim=1)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def means_of(self) -> list[int] | None:
        """The channels of the logits whose means over all pixels the targets are, if they are."""
        channels = [score.channel for score in self._scores if score.everywhere]
        known = [channel for channel in channels if channel is not None]
        return known if len(known) == len(self._scores) else None

    def of_means(self, channels: Sequence[int]) -> Seeded:
        """The seeds of the means of some channels over all pixels."""
        seeds = self._leaf.new_zeros(len(channels), *self._leaf.shape)
        for place, channel in enumerate(channels):
            seeds[place, :, channel] = 1 / self.pixels
        return self._finished(seeds, slice(min(channels), max(channels) + 1))

    def of(self, targets: Sequence[int], *, outside_matters: bool = True) -> Seeded:
        """The seeds of some targets by their numbers.

        Where what stands outside the `channels` of the result does not matter, the mean of a
        channel over all pixels is one number and takes no memory.
        """
        scores = [self._scores[target] for target in targets]
        if len(scores) == 1 and not outside_matters and not self._halved:
            (score,) = scores
            if score.everywhere and score.channel is not None:
                one = self._leaf.detach().new_full((), 1 / self.pixels).to(self._dtype)
                channels = slice(score.channel, score.channel + 1)
                return Seeded(one.expand(1, *self._leaf.shape), None, channels)
        found = [
            torch.autograd.grad(
                score.value.sum(), self._leaf, retain_graph=True, materialize_grads=True
            )[0]
            for score in scores
        ]
        seeds = torch.stack(found) if len(found) > 1 else found[0][None]  # which copies nothing
        touched = [score.channel for score in scores]
        known = [channel for channel in touched if channel is not None]
        alone = len(known) == len(touched)
        return self._finished(seeds, slice(min(known), max(known) + 1) if alone else slice(None))

    def _finished(self, seeds: Tensor, channels: slice) -> Seeded:
        factors = None
        if self._halved:
            seeds, factors = _in_range(seeds)
        return Seeded(seeds.to(self._dtype), factors, channels)


def _in_range(seeds: Tensor) -> tuple[Tensor, Tensor]:
    """Seeds at a magnitude that half precision holds, and what undoes it for each image.

    The mean over a large image gives seeds that half precision rounds to nothing. A power of two
    changes no digit.
    """
    peak = seeds.flatten(2).abs().amax(dim=2)
    octaves = torch.where(peak > 0, torch.log2(peak).floor(), torch.zeros_like(peak))
    shift = torch.exp2(-octaves).view(*peak.shape, *[1] * (seeds.ndim - 2))
    return seeds * shift, torch.exp2(octaves)
