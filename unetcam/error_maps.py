"""What a network misses and what it makes up, explained for every class at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.result import CAMResult
from unetcam.targets import (
    Choice,
    FalseNegatives,
    FalsePositives,
    Head,
    Scale,
    Target,
    class_count,
    predict,
)
from unetcam.targets.base import as_mask, spread
from unetcam.targets.channels import is_multi_label


class Confused(NamedTuple):
    """Pixels that truly are of one class and were given another."""

    truth: int
    predicted: int
    pixels: int


@dataclass(frozen=True, eq=False)
class Mistakes:
    """What a batch of images has of mistakes, with the maps that explain them.

    Attributes
    ----------
    missed : CAMResult
        Of every class its :class:`~unetcam.targets.FalseNegatives`: ``missed["up4"]`` is
        (B, classes, *layer_spatial), raw; NaN where nothing of the class is missed.
    made_up : CAMResult
        Of every class its :class:`~unetcam.targets.FalsePositives`, likewise.
    missed_pixels, made_up_pixels : Tensor
        (B, classes) int64, on the model's device: how many pixels each map stands on.
    confused_pixels : Tensor
        (B, classes, classes) int64: pixels in which the first class was missed and the second
        made up; zero on the diagonal.
    """

    missed: CAMResult
    made_up: CAMResult
    missed_pixels: Tensor
    made_up_pixels: Tensor
    confused_pixels: Tensor

    def costliest(self, count: int = 5) -> list[Confused]:
        """The pairs of classes that cost the batch most pixels, the costliest first.

        A pair is explained by ``Confusion(pair.truth, pair.predicted, truth)``, and by
        ``Contrast(pair.predicted, pair.truth, within=that)``.

        Parameters
        ----------
        count : int
            How many at most; pairs that cost no pixel are left out.
        """
        pixels = self.confused_pixels.sum(dim=0)
        found = pixels.flatten().sort(descending=True, stable=True)
        classes = len(pixels)
        pairs = zip(found.indices[:count].tolist(), found.values[:count].tolist(), strict=True)
        return [Confused(place // classes, place % classes, cost) for place, cost in pairs if cost]


@dataclass(frozen=True)
class _Counts:
    """How many pixels each class, and each pair of classes, has of mistakes."""

    missed: Tensor
    made_up: Tensor
    confused: Tensor


class _EveryMistake(Choice):
    """What is missed and what is made up of every class; nothing for what no image has."""

    def __init__(self, truth: Tensor, on: Scale, head: Head) -> None:
        self.truth, self.on, self.head = truth, on, head

    def choose(self, logits: Tensor) -> Sequence[Target]:
        classes = range(class_count(logits))
        truth = self.truth.to(logits.device)
        options: dict[str, Any] = {"on": self.on, "head": self.head}
        self.missed = [FalseNegatives(c, truth, **options) for c in classes]
        self.made_up = [FalsePositives(c, truth, **options) for c in classes]
        self.missed[0].check(logits)
        self.counts = _count(logits, truth, self.head)
        every = [*self.missed, *self.made_up]
        pixels = torch.cat([self.counts.missed, self.counts.made_up], dim=1)
        occurs = pixels.any(dim=0).tolist()  # the device waits once, and spares backwards
        found = [target for target, some in zip(every, occurs, strict=True) if some]
        # A prediction without a mistake has its maps too: NaN.
        self.chosen = found or every[:1]
        return self.chosen


def explain_errors(
    explain: Callable[[Choice], CAMResult],
    truth: Tensor | ArrayLike,
    *,
    on: Scale = "logits",
    head: Head = "softmax",
) -> Mistakes:
    """Explain the mistakes of a batch: see :meth:`unetcam.UNetCAM.explain_errors`.

    Parameters
    ----------
    explain : callable
        Gives the maps of chosen targets, from one forward.
    truth : array_like or Tensor
    on, head
        See :class:`~unetcam.targets.RegionScore`.
    """
    every = _EveryMistake(as_mask(truth), on, head)
    result = explain(every)
    place = {id(target): index for index, target in enumerate(every.chosen)}

    def part(targets: Sequence[Target]) -> CAMResult:
        places = [place.get(id(target)) for target in targets]
        into = [index for index, at in enumerate(places) if at is not None]
        taken = [at for at in places if at is not None]
        maps = {}
        for layer, found in result.maps.items():
            size = (len(found), len(targets), *found.shape[2:])
            maps[layer] = found.new_full(size, torch.nan)
            maps[layer][:, into] = found[:, taken]
        return replace(result, targets=tuple(targets), maps=maps)

    counts = every.counts
    return Mistakes(
        part(every.missed), part(every.made_up), counts.missed, counts.made_up, counts.confused
    )


def _count(logits: Tensor, truth: Tensor, head: Head) -> _Counts:
    batch, classes = len(logits), class_count(logits)
    if is_multi_label(logits, head):
        truth = truth.expand(logits.shape).reshape(batch, classes, -1)
        predicted = logits.detach().reshape(batch, classes, -1) > 0
        missed, made_up = (truth > 0) & ~predicted, (truth == 0) & predicted
        # Counts of pixels are exact in float64 in whatever order a device adds them.
        confused = missed.double() @ made_up.double().transpose(1, 2)
        return _Counts(missed.sum(2), made_up.sum(2), confused.long())
    truth = spread(truth, logits).reshape(batch, -1).long()
    predicted = predict(logits.detach()).reshape(batch, -1)
    pair = torch.where(truth < 0, classes, truth) * classes + predicted
    pixels = torch.zeros(batch, (classes + 1) * classes, dtype=torch.int64, device=logits.device)
    pixels.scatter_add_(1, pair, torch.ones_like(pair))
    confused = pixels.view(batch, classes + 1, classes)[:, :classes]
    confused.diagonal(dim1=1, dim2=2).zero_()
    return _Counts(confused.sum(2), confused.sum(1), confused)
