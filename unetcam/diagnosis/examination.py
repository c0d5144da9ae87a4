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
#: Images on which what a class leans on is asked, and how many of them are looked at first.
SAMPLE, FIRST = 8, 5
#: In so many images every class is to be seen where the whole image is changed.
_SEEN_IN = 6
#: What must flip on average for a class to be looked at closer, when all around it is filled with
#: the mean, and when it is that of a very different image.
HIDDEN_WORTH_A_TEST, SWAPPED_WORTH_A_TEST = 0.15, 0.3
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

    @cached_property
    def has_truth(self) -> bool:
        """Whether any pixel's class is known."""
        return bool(self.baseline.known.any())

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
        """Images in which every class is to be seen, for changes of the whole image.

        As few as give each class six of its own, or all that there are of it.
        """
        return self._covering(_SEEN_IN, [])

    @cached_property
    def mixed_sample_extended(self) -> list[int]:
        """Those images first, then as many again: where something is seen in the first ones."""
        return self._covering(2 * _SEEN_IN, self.mixed_sample)

    def _covering(self, each: int, chosen: Sequence[int]) -> list[int]:
        """Images with right pixels of every class, `each` times where there are as many."""
        objects = [index for index in self.present if index not in self.surrounding] or self.present
        fitting = (self.right_pixels[:, list(objects)] >= LEAST_PIXELS).numpy()
        order = np.random.default_rng(self.seed).permutation(len(fitting))
        covering = list(chosen)
        wanted = np.minimum(fitting.sum(axis=0), each) - fitting[covering].sum(axis=0)
        while (wanted > 0).any():
            shown = (fitting[order] & (wanted > 0)).sum(axis=1)
            shown[np.isin(order, covering)] = -1
            covering.append(int(order[shown.argmax()]))
            wanted = wanted - fitting[covering[-1]]
        return covering

    def spread_sample(self, most: int) -> list[int]:
        """Images drawn among all that hold more than what surrounds, in order."""
        objects = [index for index in self.present if index not in self.surrounding] or self.present
        fitting = (self.truth_pixels[:, list(objects)] > 0).any(1).nonzero()[:, 0].numpy()
        if len(fitting) > most:
            generator = np.random.default_rng(self.seed)
            fitting = np.sort(generator.choice(fitting, most, replace=False))
        return [int(image) for image in fitting]

    @property
    def surrounded(self) -> int:
        """How many classes can be asked about their surroundings."""
        return sum(self.unaskable(one, surroundings=True) is None for one in self.present)

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

    def hiding(self, regions: Regions, hidden: Tensor, first: Tensor | None = None) -> Tensor:
        """What flips of each region when pixels are hidden, as far as fills agree, (N,).

        `first` is what flips under the first fill, where that was measured.
        """
        first = None if first is None else first.to(hidden.device)
        return agreed(regions, self.predictor, self.baseline, hidden, self.fillings, first).cpu()

    def hiding_once(self, regions: Regions, hidden: Tensor) -> Tensor:
        """The same with the first fill alone: for screens."""
        return regions.hiding(self.predictor, self.baseline, hidden, self.first_filling).flips.cpu()

    def swapping(self, regions: Regions, donor: str) -> Tensor:
        """What flips of each region when its surroundings are another image's, (N,)."""
        filling = get(donor).prepared(self.images, self.seed)
        hidden = regions.surroundings.all
        return regions.hiding(self.predictor, self.baseline, hidden, filling).flips.cpu()

    @cached_property
    def around(self) -> dict[int, Around]:
        """What flips of each class when everything around it is hidden, or swapped.

        Only classes of which that can be asked. Where the first images show that too little flips
        for a finding, the others of the sample are left out.
        """
        by_class = {}
        for index in self.present:
            if self.unaskable(index, surroundings=True) is None:
                images = self.sample(index)
                by_class[index] = self._around(index, images[:FIRST])
                if len(images) > FIRST and not by_class[index].surely_little:
                    by_class[index] = by_class[index].joined(self._around(index, images[FIRST:]))
        return by_class

    def _around(self, index: int, images: list[int]) -> Around:
        regions = self.regions(index, images)
        hidden = self.hiding_once(regions, regions.surroundings.all)
        enough = len(self.images) >= LEAST_DONORS
        return Around(images, hidden, self.swapping(regions, "other") if enough else None)


@dataclass(frozen=True, eq=False)
class Around:
    """What flips of a class when everything around it is another.

    Attributes
    ----------
    images : list of int
    hidden : Tensor
        (n,) float64, by image, when it is hidden under the first fill.
    swapped : Tensor, optional
        (n,) float64, when it is that of a very different image; None with too few to choose from.
    """

    images: list[int]
    hidden: Tensor
    swapped: Tensor | None

    @property
    def suspicious(self) -> bool:
        """Whether it is worth a closer look."""
        swapped = -1.0 if self.swapped is None else float(self.swapped.nanmean())
        return (
            float(self.hidden.nanmean()) >= HIDDEN_WORTH_A_TEST or swapped >= SWAPPED_WORTH_A_TEST
        )

    @property
    def surely_little(self) -> bool:
        """Whether more images would hardly make it worth a closer look."""
        return surely_below(self.hidden, HIDDEN_WORTH_A_TEST) and (
            self.swapped is None or surely_below(self.swapped, SWAPPED_WORTH_A_TEST)
        )

    def joined(self, other: Around) -> Around:
        """These images and others."""
        swapped = None
        if self.swapped is not None and other.swapped is not None:
            swapped = torch.cat((self.swapped, other.swapped))
        hidden = torch.cat((self.hidden, other.hidden))
        return Around([*self.images, *other.images], hidden, swapped)


def surely_below(values: Tensor, limit: float) -> bool:
    """Whether the mean over all images is below a limit with 95 % certainty, by some of them.

    >>> surely_below(torch.tensor([0.0, 0.1, 0.0]), 0.2)
    True
    >>> surely_below(torch.tensor([0.0, 0.3, 0.0]), 0.2)
    False
    """
    kept = values[~torch.isnan(values)].double()
    if len(kept) < 2:
        return False
    return float(kept.mean() + 1.96 * kept.std(correction=1) / len(kept) ** 0.5) < limit


#: Is told how many images were predicted, and how many about will be.
Progress = Callable[[int, int], None]
