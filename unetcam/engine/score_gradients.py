"""Where backwards begin: the derivative of each target's score with respect to the logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unetcam.engine.request import Request, Score, Scoring, targets_of
from unetcam.engine.tensors import at_least_single


class GradOutputs(NamedTuple):
    """What backwards from the logits begin with, for some targets.

    Attributes
    ----------
    values : Tensor
        (n, B, C, *spatial), of the logits' type.
    factors : Tensor or None
        (n, B): what a gradient must be multiplied with. Half precision is given values of a
        magnitude that it holds.
    channels : slice
        The channels of the logits outside which the values are zero.
    """

    values: Tensor
    factors: Tensor | None
    channels: slice


class ScoreGradients:
    """The targets' scores of a forward, differentiated when their gradients are needed.

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
    targets : tuple
        What the scores are of.
    are_exact : bool
        Whether the logits, and so the gradients, are in single precision or better.
    pixels : int
        The pixels of an image's logits.
    bytes_of_one : int
        What one target's gradient takes.
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
        self.targets = targets_of(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    @property
    def means_of(self) -> list[int] | None:
        """The channels of the logits whose means over all pixels the targets are, if they are."""
        channels = [score.channel for score in self._scores if score.everywhere]
        known = [channel for channel in channels if channel is not None]
        return known if len(known) == len(self._scores) else None

    def of_means(self, channels: Sequence[int]) -> GradOutputs:
        """The gradients of the means of some channels over all pixels."""
        values = self._leaf.new_zeros(len(channels), *self._leaf.shape)
        for row, channel in enumerate(channels):
            values[row, :, channel] = 1 / self.pixels
        return self._finished(values, slice(min(channels), max(channels) + 1))

    def of(self, targets: Sequence[int], *, outside_matters: bool = True) -> GradOutputs:
        """The gradients of some targets by their numbers.

        Where what stands outside the `channels` of the result does not matter, the mean of a
        channel over all pixels is one number and takes no memory.
        """
        scores = [self._scores[target] for target in targets]
        if len(scores) == 1 and not outside_matters and not self._halved:
            (score,) = scores
            if score.everywhere and score.channel is not None:
                one = self._leaf.detach().new_full((), 1 / self.pixels).to(self._dtype)
                channels = slice(score.channel, score.channel + 1)
                return GradOutputs(one.expand(1, *self._leaf.shape), None, channels)
        gradients = [logit_gradient(score, self._leaf) for score in scores]
        values = torch.stack(gradients) if len(gradients) > 1 else gradients[0][None]  # no copy
        touched = [score.channel for score in scores]
        known = [channel for channel in touched if channel is not None]
        alone = len(known) == len(touched)
        return self._finished(values, slice(min(known), max(known) + 1) if alone else slice(None))

    def _finished(self, values: Tensor, channels: slice) -> GradOutputs:
        factors = None
        if self._halved:
            values, factors = _in_range(values)
        return GradOutputs(values.to(self._dtype), factors, channels)


def scored_leaf(score: Scoring, logits: Tensor, reference: Tensor | None = None) -> ScoredLeaf:
    """Logits that stand in no graph, and their scores; `reference` is that of a scoring."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = (logits.clone() if logits.is_inference() else logits.detach()).requires_grad_()
        return ScoredLeaf(leaf, score(leaf, reference))


class ScoredLeaf(NamedTuple):
    """Logits (B, C, *spatial) that gradients are taken with respect to, and their scores."""

    logits: Tensor
    scores: Sequence[Score]

    def gradients(self) -> Iterator[Tensor]:
        """Each score's gradient, (B, C, *spatial), one after the other."""
        for score in self.scores:
            with torch.inference_mode(False):
                gradient = logit_gradient(score, self.logits)
            yield gradient


def logit_gradient(score: Score, logits: Tensor) -> Tensor:
    """The derivative of a score, summed over the images, with respect to logits that made it."""
    (gradient,) = torch.autograd.grad(
        score.value.sum(), logits, retain_graph=True, materialize_grads=True
    )
    return gradient


def _in_range(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values at a magnitude that half precision holds, and what undoes it for each image.

    The mean over a large image gives values that half precision rounds to nothing. A power of two
    changes no digit.
    """
    peak = values.flatten(2).abs().amax(dim=2)
    octaves = torch.where(peak > 0, torch.log2(peak).floor(), torch.zeros_like(peak))
    scale = torch.exp2(-octaves).view(*peak.shape, *[1] * (values.ndim - 2))
    return values * scale, torch.exp2(octaves)
