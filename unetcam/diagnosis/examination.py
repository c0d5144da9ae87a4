"""A network under examination: what all kinds of findings look at, measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetcam.interventions.effects import Baseline
from unetcam.interventions.fills import Fill, Filling, get
from unetcam.interventions.prediction import Predictor
from unetcam.interventions.regions import LEAST_PIXELS, Regions, agreed

#: A class that fills more than this share of the images is itself what surrounds the others.
_SURROUNDING = 0.5
#: A class below this IoU has too few right pixels for a question about what they rest on.
_LEARNED = 0.25
#: Images on which what a class leans on is asked.
SAMPLE = 8
#: Images from which very different and similar ones can be told.
LEAST_DONORS = 5
#: A class must have regions in so many images.
LEAST_IMAGES = 3


@dataclass(frozen=True, eq=False)
class Examination:
    """What all kinds of findings look at.

    Attributes
    ----------
    model : nn.Module, LoadedModel or callable
    predictor : Predictor
    baseline : Baseline
    classes : tuple of str
        The classes' names.
    names : tuple of str
        The images' names.
    stride : int
        The network's, in pixels.
    fills : tuple of str
        With what pixels are hidden.
    seed : int
    smallest : float, optional
        The finest windows' least side in pixels.
    """

    model: Any
    predictor: Predictor
    baseline: Baseline
    classes: tuple[str, ...]
    names: tuple[str, ...]
    stride: int
    fills: tuple[str, ...]
    seed: int
    smallest: float | None = None
    _memory: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def remembered(self, name: str) -> Tensor | None:
        """What was measured before under a name; None where nothing was."""
        return self._memory.get(name)

    def remember(self, name: str, measured: Tensor) -> Tensor:
        """Keep a measurement that several questions need."""
        self._memory[name] = measured
        return measured

    @property
    def images(self) -> Tensor:
        """(B, C, *spatial)."""
        return self.baseline.images

    @property
    def size(self) -> torch.Size:
        """The images' spatial size."""
        return self.images.shape[2:]

    def quoted(self, index: int) -> str:
        """A class's name for a sentence."""
        return f"'{self.classes[index]}'"

    # -- what is where ---------------------------------------------------------------------------

    @cached_property
    def confusion(self) -> Tensor:
        """(B, classes, classes) float64: the pixels of each true class by what is predicted."""
        rows = []
        known = self.baseline.known
        for truth, predicted, seen in zip(
            self.baseline.truth, self.baseline.predicted, known, strict=True
        ):
            both = (truth & seen).flatten(1).float(), (predicted & seen).flatten(1).float()
            rows.append(both[0] @ both[1].T)
        return torch.stack(rows).double().cpu()

    @cached_property
    def truth_pixels(self) -> Tensor:
        """(B, classes) float64."""
        return self.baseline.truth.flatten(2).sum(2).double().cpu()

    @cached_property
    def predicted_pixels(self) -> Tensor:
        """(B, classes) float64."""
        return self.baseline.predicted.flatten(2).sum(2).double().cpu()

    @cached_property
    def right_pixels(self) -> Tensor:
        """(B, classes) float64."""
        return self.baseline.correct.flatten(2).sum(2).double().cpu()

    @cached_property
    def image_iou(self) -> Tensor:
        """(B, classes) float64; NaN where a class is neither true nor predicted."""
        union = self.truth_pixels + self.predicted_pixels - self.right_pixels
        return self.right_pixels / union

    @cached_property
    def iou(self) -> Tensor:
        """(classes,) float64 over all pixels; NaN for a class that is nowhere."""
        right = self.right_pixels.sum(0)
        return right / (self.truth_pixels.sum(0) + self.predicted_pixels.sum(0) - right)

    @cached_property
    def present(self) -> tuple[int, ...]:
        """The classes of which the ground truth holds enough pixels to ask about them."""
        enough = (self.truth_pixels >= LEAST_PIXELS).any(0)
        return tuple(enough.nonzero()[:, 0].tolist())

    @cached_property
    def mean_iou(self) -> float:
        """Over the classes that are present."""
        return float(self.iou[list(self.present)].mean()) if self.present else float("nan")

    @cached_property
    def surrounding(self) -> frozenset[int]:
        """The classes that are themselves what surrounds the others: most of the pixels."""
        share = self.truth_pixels.sum(0) / max(1.0, float(self.baseline.known.sum()))
        if self.baseline.known.shape[1] > 1:
            share = share * self.baseline.known.shape[1]
        return frozenset((share > _SURROUNDING).nonzero()[:, 0].tolist())

    # -- what can be asked -----------------------------------------------------------------------

    def sample(self, index: int, most: int = SAMPLE) -> list[int]:
        """Images with right pixels of a class, drawn among all that have some, in order."""
        fitting = (self.right_pixels[:, index] >= LEAST_PIXELS).nonzero()[:, 0].numpy()
        if len(fitting) > most:
            generator = np.random.default_rng((self.seed, index))
            fitting = np.sort(generator.choice(fitting, most, replace=False))
        return [int(image) for image in fitting]

    @cached_property
    def mixed_sample(self) -> list[int]:
        """Images in which every class is to be seen, for changes of the whole image, in order."""
        asked = [index for index in self.present if index not in self.surrounding] or self.present
        each = max(LEAST_IMAGES, 2 * SAMPLE // max(1, len(asked)))
        return sorted({image for index in asked for image in self.sample(index, min(each, 6))})

    def spread_sample(self, most: int) -> list[int]:
        """Images drawn among all that hold more than what surrounds, in order."""
        asked = [index for index in self.present if index not in self.surrounding] or self.present
        fitting = (self.truth_pixels[:, list(asked)] > 0).any(1).nonzero()[:, 0].numpy()
        if len(fitting) > most:
            generator = np.random.default_rng(self.seed)
            fitting = np.sort(generator.choice(fitting, most, replace=False))
        return [int(image) for image in fitting]

    def unaskable(self, index: int, *, surroundings: bool = False) -> str | None:
        """Why what a class rests on can't be asked; None where it can."""
        if surroundings and index in self.surrounding:
            return f"{self.quoted(index)} fills most of the images, so it has no surroundings."
        if not self.iou[index] >= _LEARNED:
            return (
                f"Too little of {self.quoted(index)} is predicted rightly (IoU "
                f"{float(self.iou[index]):.2f}) to ask what that rests on."
            )
        count = len(self.sample(index))
        if count < LEAST_IMAGES:
            return (
                f"Only {count} image{'s' if count != 1 else ''} hold at least {LEAST_PIXELS} right "
                f"pixels of {self.quoted(index)}, and {LEAST_IMAGES} are needed."
            )
        return None

    # -- hiding ----------------------------------------------------------------------------------

    @cached_property
    def fillings(self) -> dict[Fill, Filling]:
        """The fills, ready for these images."""
        chosen = (get(name) for name in self.fills)
        return {fill: fill.prepared(self.images, self.seed) for fill in chosen}

    @property
    def first_filling(self) -> Filling:
        """The fill that windows are searched with and that evidence shows."""
        return next(iter(self.fillings.values()))

    def regions(self, index: int, images: Sequence[int]) -> Regions:
        """A class's regions in some images."""
        return Regions.of_classes(self.baseline, [(image, index) for image in images])

    def hiding(self, regions: Regions, hidden: Tensor) -> Tensor:
        """What flips of each region when pixels are hidden, as far as fills agree, (N,)."""
        return agreed(regions, self.predictor, self.baseline, hidden, self.fillings).cpu()

    def hiding_once(self, regions: Regions, hidden: Tensor) -> Tensor:
        """The same with the first fill alone: for screens."""
        return regions.hiding(self.predictor, self.baseline, hidden, self.first_filling).flips.cpu()

    def swapping(self, regions: Regions, donor: str) -> Tensor:
        """What flips of each region when its surroundings are another image's, (N,)."""
        filling = get(donor).prepared(self.images, self.seed)
        hidden = regions.surroundings.all
        return regions.hiding(self.predictor, self.baseline, hidden, filling).flips.cpu()

    @cached_property
    def all_swapped(self) -> dict[int, Tensor]:
        """For the images of :attr:`all_hidden`, what flips with a very different image around.

        Empty with too few images to choose from.
        """
        if len(self.images) < LEAST_DONORS:
            return {}
        return {
            index: self.swapping(self.regions(index, images), "other")
            for index, (images, _) in self.all_hidden.items()
        }

    @cached_property
    def all_hidden(self) -> dict[int, tuple[list[int], Tensor]]:
        """By class the images of its sample, and what flips when all around it is the mean.

        Only classes of which that can be asked.
        """
        found = {}
        for index in self.present:
            if self.unaskable(index, surroundings=True) is None:
                images = self.sample(index)
                regions = self.regions(index, images)
                flips = self.hiding_once(regions, regions.surroundings.all)
                found[index] = images, flips
        return found


#: Is told how many of how many questions were asked.
Progress = Callable[[int, int], None]
