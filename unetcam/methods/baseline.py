"""Maps that a method has to beat: none of them asks the network why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.engine import Collected, Request, observed
from unetcam.engine.score_gradients import scored_leaf
from unetcam.methods.components import oriented
from unetcam.methods.gradient import weighted
from unetcam.methods.registry import Method, register
from unetcam.resizing import averaged


@register
@dataclass(frozen=True)
class Random(Method):
    """Weighs each channel by a number drawn evenly from -1 to 1.

    It has the activation's structure and no knowledge of the target: what a map looks like whose
    weights mean nothing. All images, and layers of as many channels, get the same weights. Their
    common sign is as arbitrary as they are: the one is taken that makes the largest magnitude of
    an image's map positive, so that the map is not empty.

    Parameters
    ----------
    seed : int
        Seeds the weights.
    """

    seed: int = 0

    name = "random"
    title = "Random weights"
    family = "baseline"
    formula = "relu(sum_k u^k A^k),  u^k uniform in [-1, 1]"
    paper = "as RandomCAM in Gildenblat, pytorch-grad-cam, 2021"
    when = "To see how much of a measure is the layer's doing, whatever the weights are."
    asks_why = False

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            maps = {name: _random(a, [self.seed]) for name, a in seen.activations.items()}
            return seen.collected(maps)


def _random(activation: Tensor, seeds: Sequence[int]) -> Tensor:
    """A map for each seed, (B, seeds, *layer_spatial), of an activation (B, K, *layer_spatial)."""
    drawn = []
    for seed in seeds:
        generator = torch.Generator(activation.device).manual_seed(seed)
        drawn.append(
            torch.rand(
                activation.shape[1],
                generator=generator,
                device=activation.device,
                dtype=torch.float32,
            )
        )
    weights = (2 * torch.stack(drawn) - 1).to(activation.dtype)
    maps = weighted(activation, weights.expand(len(activation), -1, -1))
    return oriented(maps.flatten(0, 1)).relu_().view_as(maps)


@dataclass(frozen=True)
class RandomDraws(Method):
    """Several draws of :class:`Random` from one forward: the null of what is measured of a map.

    It is no method to choose, and so is not registered: its maps are of draws, not of targets.

    Parameters
    ----------
    draws : int
        How many maps there are for each image and layer.
    seed : int
        Seeds the first draw; the others' seeds follow it.
    """

    draws: int
    seed: int = 0

    name = "random-draws"
    title = "Random weights, several times"
    family = "baseline"
    formula = Random.formula
    paper = Random.paper
    when = "As the null of a measure."
    asks_why = False

    def explain(self, request: Request) -> Collected:
        seeds = range(self.seed, self.seed + self.draws)
        with observed(request) as seen:
            maps = {name: _random(a, seeds) for name, a in seen.activations.items()}
            return Collected(seen.logits, maps, seen.defined, tuple(_Draw(one) for one in seeds))


@dataclass(frozen=True)
class _Draw:
    """What a draw's map is of: its weights."""

    seed: int

    @property
    def name(self) -> str:
        return f"weights of seed {self.seed}"


@register
class Edges(Method):
    """The magnitude of the image's gradient, over all channels, and the mean of it at a layer.

    Differences are central inside and one-sided at the border; an axis of one pixel has none.

    Examples
    --------
    >>> magnitude(torch.tensor([[[[0.0, 0.0, 2.0, 4.0]]]]))
    tensor([[[[0., 1., 2., 2.]]]])
    """

    name = "edges"
    title = "Edges of the image"
    family = "baseline"
    formula = "sqrt(sum of the squared differences along each axis, over all channels)"
    paper = "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018"
    when = "To see whether maps do more than follow edges, which look like an explanation."
    asks_why = False

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            edges = magnitude(seen.images.to(seen.values.dtype))
            return seen.collected(
                {name: averaged(edges, a.shape[2:]) for name, a in seen.activations.items()}
            )


def magnitude(images: Tensor) -> Tensor:
    """The gradient's magnitude, (B, 1, *spatial), of images (B, C, *spatial)."""
    axes = [axis for axis in range(2, images.ndim) if images.shape[axis] > 1]
    if not axes:
        return torch.zeros_like(images[:, :1])
    squares = torch.stack([slope.square() for slope in torch.gradient(images, dim=axes)])
    return squares.sum(dim=0).sum(dim=1, keepdim=True).sqrt()


@register
class MaskPrior(Method):
    r"""The probability of the classes that the target asks for, where it asks for them.

    For a class's score over the whole image that is the class's probability; for a region, the
    same inside the region and zero outside; for a difference of two classes, the probability of
    the one that counts positively. What the target asks for is read off its derivative at equal
    logits, where no probability is saturated: the classes and pixels at which it is positive.

    Probabilities are a softmax over the channels, and a sigmoid for a one-channel output. At a
    layer the map is the mean over what a pixel of the layer covers.
    """

    name = "mask-prior"
    title = "The prediction itself"
    family = "baseline"
    formula = "sum_c p_c [ds/dl_c > 0 at l = 0],  p the probabilities, l the logits"
    paper = "none: the null hypothesis that a map is the mask"
    when = "To see whether maps tell more than the prediction does."

    def explain(self, request: Request) -> Collected:
        with observed(request) as seen:
            logits = seen.logits.to(seen.values.dtype)
            flat = scored_leaf(request.score, torch.zeros_like(logits), logits)
            wanted = torch.stack([_positive(one) for one in flat.gradients()], dim=1)
            prior = (_probabilities(logits)[:, None] * wanted).sum(dim=2)  # (B, T, *spatial)
            return seen.collected(
                {name: averaged(prior, a.shape[2:]) for name, a in seen.activations.items()}
            )


def _positive(gradient: Tensor) -> Tensor:
    """Where a score grows with the logits, by class: (B, classes, *spatial)."""
    if gradient.shape[1] == 1:
        gradient = torch.cat([-gradient, gradient], dim=1)
    return (gradient > 0).to(gradient.dtype)


def _probabilities(logits: Tensor) -> Tensor:
    """By class, (B, classes, *spatial)."""
    if logits.shape[1] == 1:
        return torch.cat([-logits, logits], dim=1).sigmoid()
    return logits.softmax(dim=1)
