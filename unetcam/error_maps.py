"""What a network misses and what it makes up, explained for every class at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

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
from unetcam.targets.base import RegionScore, as_mask, spread
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
        ranked = pixels.flatten().sort(descending=True, stable=True)
        classes = len(pixels)
        pairs = zip(ranked.indices[:count].tolist(), ranked.values[:count].tolist(), strict=True)
        return [Confused(pair // classes, pair % classes, cost) for pair, cost in pairs if cost]


@dataclass(frozen=True)
class _Counts:
    """How many pixels each class, and each pair of classes, has of mistakes."""

    missed: Tensor
    made_up: Tensor
    confused: Tensor


@dataclass(frozen=True)
class _EveryMistake(Choice):
    """What is missed and what is made up of every class; nothing for what no image has."""

    truth: Tensor
    on: Scale
    head: Head

    def targets(self, logits: Tensor) -> tuple[list[Target], list[Target]]:
        """Of every class what is missed, and what is made up."""
        truth, options = self.truth.to(logits.device), {"on": self.on, "head": self.head}
        made: Any = (FalseNegatives, FalsePositives)
        missed, made_up = (
            [kind(index, truth, **options) for index in range(class_count(logits))] for kind in made
        )
        return missed, made_up

    def choose(self, logits: Tensor) -> Sequence[Target]:
        missed, made_up = self.targets(logits)
        missed[0].check(logits)
        counts = _count(logits, self.truth.to(logits.device), self.head)
        pixels = torch.cat([counts.missed, counts.made_up], dim=1)
        occurs = pixels.any(dim=0).tolist()  # the device waits once, and spares backwards
        every = [*missed, *made_up]
        occurring = [target for target, some in zip(every, occurs, strict=True) if some]
        # A prediction without a mistake has its maps too: NaN.
        return occurring or every[:1]


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
    explained = {
        (type(one), cast(RegionScore, one).class_index): row
        for row, one in enumerate(result.targets)
    }

    def part(targets: Sequence[Target]) -> CAMResult:
        keys = [(type(one), cast(RegionScore, one).class_index) for one in targets]
        into = [row for row, key in enumerate(keys) if key in explained]
        taken = [explained[key] for key in keys if key in explained]
        maps = {}
        for layer, given in result.maps.items():
            size = (len(given), len(targets), *given.shape[2:])
            maps[layer] = given.new_full(size, torch.nan)
            maps[layer][:, into] = given[:, taken]
        return replace(result, targets=tuple(targets), maps=maps)

    missed, made_up = every.targets(result.logits)
    counts = _count(result.logits, every.truth.to(result.logits.device), head)
    return Mistakes(part(missed), part(made_up), counts.missed, counts.made_up, counts.confused)


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
