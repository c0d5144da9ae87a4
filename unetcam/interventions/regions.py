"""Regions of images that may flip, and what hiding their surroundings does to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.interventions.effects import Baseline, Effects, measure
from unetcam.interventions.fills import Fill, Filling, agreeing
from unetcam.interventions.hiding import Surroundings
from unetcam.interventions.prediction import Predictor
from unetcam.interventions.windows import Search, Window, search
from unetcam.morphology.components import label_components

#: A class with fewer right pixels in an image has no region there.
LEAST_PIXELS = 12


@dataclass(frozen=True, eq=False)
class Regions:
    """N regions of a batch of images that may flip, and what is spared around each.

    Attributes
    ----------
    image, classes : Tensor
        (N,) int64, in which image each lies and of which class it is.
    masks : Tensor
        (N, *spatial) bool.
    surroundings : Surroundings
        Of N.
    """

    image: Tensor
    classes: Tensor
    masks: Tensor
    surroundings: Surroundings

    @classmethod
    def of_classes(
        cls,
        baseline: Baseline,
        pairs: Sequence[tuple[int, int]],
        band: float | None = None,
    ) -> Regions:
        """Where classes are and are predicted, by pairs of (image, class).

        What is spared is wherever the class is, in truth or by the prediction, with a band.
        """
        device = baseline.images.device
        image, classes = torch.tensor(pairs, device=device).view(-1, 2).unbind(1)
        spared = (baseline.truth | baseline.predicted)[image, classes]
        surroundings = Surroundings.of(spared, band)
        return cls(image, classes, baseline.correct[image, classes], surroundings)

    @classmethod
    def of_objects(
        cls, baseline: Baseline, pairs: Sequence[tuple[int, int]], band: float | None = None
    ) -> Regions:
        """The same for each connected object of the ground truth; only that object is spared."""
        device = baseline.images.device
        image, classes = torch.tensor(pairs, device=device).view(-1, 2).unbind(1)
        truth = baseline.truth[image, classes]
        labels = label_components(truth)
        counts = labels.flatten(1).amax(dim=1)
        row = torch.arange(len(labels), device=device).repeat_interleave(counts)
        first = counts.cumsum(0) - counts
        number = torch.arange(len(row), device=device) - first[row] + 1
        objects = labels[row] == number.view(-1, *[1] * (labels.ndim - 1))
        region = objects & baseline.correct[image[row], classes[row]]
        large = region.flatten(1).sum(1) >= LEAST_PIXELS
        surroundings = Surroundings.of(objects[large], band)
        return cls(image[row][large], classes[row][large], region[large], surroundings)

    def __len__(self) -> int:
        return len(self.image)

    def chosen(self, which: Tensor) -> Regions:
        """Some of them, by a mask or by numbers."""
        surroundings = Surroundings(self.surroundings.distance[which], self.surroundings.band)
        return Regions(self.image[which], self.classes[which], self.masks[which], surroundings)

    def hiding(
        self, predictor: Predictor, baseline: Baseline, hidden: Tensor, filling: Filling
    ) -> Effects:
        """What it does to each region when some pixels, (N, *spatial) bool, are hidden.

        NaN where nothing is hidden, and no forward is spent on it.
        """
        some = hidden.flatten(1).any(1).nonzero()[:, 0]
        effects = measure(
            predictor,
            baseline,
            self.image[some],
            self.classes[some],
            lambda numbers: filling(self.image[some[numbers]], hidden[some[numbers]]),
            region=lambda numbers: self.masks[some[numbers]],
            hidden=lambda numbers: hidden[some[numbers]],
        )
        nothing = torch.full((len(self),), torch.nan, dtype=torch.float64, device=some.device)
        values = (effects.flips, effects.dice, effects.margin)
        return Effects(*(nothing.index_put((some,), value) for value in values))

    def searched(
        self,
        predictor: Predictor,
        baseline: Baseline,
        filling: Filling,
        *,
        smallest: float | None = None,
        done: Callable[[int], None] | None = None,
    ) -> Search:
        """Windows around each region, coarse to fine: see :func:`search`."""
        return search(
            predictor,
            baseline,
            self.image,
            self.classes,
            self.masks,
            self.surroundings,
            filling,
            smallest=smallest,
            done=done,
        )


def agreed(
    regions: Regions,
    predictor: Predictor,
    baseline: Baseline,
    hidden: Tensor,
    fillings: Mapping[Fill, Filling],
    first: Tensor | None = None,
) -> Tensor:
    """The share of each region that flips, (N,), as far as fills of two different looks agree.

    Fill after fill, and no further in regions where the rest can't change the answer: where
    nothing flips under one of two looks nothing is agreed on, whatever the other one does.

    Parameters
    ----------
    regions, predictor, baseline
    hidden : Tensor
        (N, *spatial) bool.
    fillings : Mapping of Fill to callable
    first : Tensor, optional
        (N,) what flips under the first of the fills, where that was measured before.
    """
    looks = [fill.look for fill in fillings]
    some = hidden.flatten(1).any(1)
    shares = [] if first is None else [first]
    for filling in list(fillings.values())[len(shares) :]:
        left = len(looks) - len(shares)
        low, high = (
            agreeing([*shares, *[torch.full_like(some, end, dtype=torch.float64)] * left], looks)
            for end in (0.0, 1.0)
        )
        numbers = (some & (low != high)).nonzero()[:, 0]
        share = torch.zeros(len(some), dtype=torch.float64, device=some.device)
        if len(numbers):
            part = regions.chosen(numbers)
            flips = part.hiding(predictor, baseline, hidden[numbers], filling).flips
            share[numbers] = flips
        shares.append(share)
    return torch.where(some, agreeing(shares, looks), torch.nan)


def window_masks(regions: Regions, windows: Sequence[Window | None]) -> Tensor:
    """What each region's window hides, (N, *spatial) bool; empty for None."""
    size, device = regions.masks.shape[1:], regions.masks.device
    boxes = [
        torch.zeros(size, dtype=torch.bool, device=device)
        if window is None
        else window.mask(size, device)
        for window in windows
    ]
    if not boxes:
        return torch.zeros_like(regions.masks)
    return torch.stack(boxes) & regions.surroundings.all
