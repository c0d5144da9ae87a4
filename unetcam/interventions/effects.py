"""What an intervention does to a class: how much of it flips, its Dice, its margin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetcam.errors import DataError
from unetcam.interventions.prediction import Head, Predictor, class_masks, predictor_of

#: Draws of a bootstrap.
_DRAWS = 2000


@dataclass(frozen=True, eq=False)
class Baseline:
    """Images, where each class is in truth, and what the network says of them as they are.

    Attributes
    ----------
    images : Tensor
        (B, C, *spatial).
    truth : Tensor
        (B, classes, *spatial) bool.
    known : Tensor
        (B, classes or 1, *spatial) bool: False where the ground truth is ignored.
    predicted : Tensor
        (B, classes, *spatial) bool.
    margins : Tensor
        (B, classes, *spatial), in logits; see
        :class:`~unetcam.interventions.prediction.Prediction`.
    """

    images: Tensor
    truth: Tensor
    known: Tensor
    predicted: Tensor
    margins: Tensor

    @classmethod
    def of(cls, model: Any, images: Tensor, truth: Tensor, head: Head = "softmax") -> Baseline:
        """Predict the images once.

        Parameters
        ----------
        model : nn.Module, LoadedModel, callable or Predictor
        images : Tensor
            (B, C, *spatial).
        truth : Tensor
            (B, *spatial) class indices, -1 where ignored; see
            :func:`~unetcam.interventions.prediction.class_masks`.
        head : {"softmax", "sigmoid"}

        Raises
        ------
        DataError
            For truth that does not fit the images or the network's classes.
        """
        predictor = predictor_of(model, head=head)
        if len(truth) != len(images) or truth.shape[-len(images.shape[2:]) :] != images.shape[2:]:
            raise DataError(
                f"The ground truth of shape {tuple(truth.shape)} does not fit images of shape "
                f"{tuple(images.shape)}: give (B, *spatial) class indices of the same size."
            )
        prediction = predictor(images)
        masks, known = class_masks(truth.to(images.device), prediction.masks.shape[1], head)
        return cls(images, masks, known, prediction.masks & known, prediction.margins)

    @property
    def correct(self) -> Tensor:
        """Where each class is and is predicted, (B, classes, *spatial) bool."""
        return self.truth & self.predicted

    @property
    def classes(self) -> int:
        """The number of classes."""
        return self.truth.shape[1]

    def dice(self) -> Tensor:
        """Each image's Dice per class, (B, classes) float64; NaN where a class is absent."""
        return _dice(self.truth, self.predicted, leading=2)


@dataclass(frozen=True, eq=False)
class Effects:
    """What N interventions did to a class each; NaN where it has no pixel to lose.

    Attributes
    ----------
    flips : Tensor
        (N,) float64, the share of the class's region that is no longer predicted as it.
    dice : Tensor
        (N,) float64, the change of the class's Dice where nothing was hidden.
    margin : Tensor
        (N,) float64, the change of the mean margin in the region, in logits.
    """

    flips: Tensor
    dice: Tensor
    margin: Tensor

    @classmethod
    def joined(cls, parts: list[Effects]) -> Effects:
        """One after the other."""
        columns = ([getattr(part, name) for part in parts] for name in ("flips", "dice", "margin"))
        return cls(*(torch.cat(column) for column in columns))


#: Gives the images, regions or masks of some of N interventions, by their numbers (n,).
PerIntervention = Callable[[Tensor], Tensor]


def measure(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    classes: Tensor,
    change: PerIntervention,
    *,
    region: PerIntervention | None = None,
    hidden: PerIntervention | None = None,
) -> Effects:
    """What interventions do to one class each.

    Parameters
    ----------
    predictor : Predictor
    baseline : Baseline
    image, classes : Tensor
        (N,) which image and which class each intervention is about.
    change : callable
        Gives the changed images (n, C, *spatial) of a chunk of interventions.
    region : callable, optional
        Gives what may flip, (n, *spatial) bool; where the class is and is predicted by default.
    hidden : callable, optional
        Gives what was hidden, (n, *spatial) bool: left out of the Dice.

    Returns
    -------
    Effects
        Of N.
    """

    def one_chunk(numbers: Tensor) -> Effects:
        at = image[numbers], classes[numbers]
        after = predictor(change(numbers))
        picked = torch.arange(len(numbers), device=image.device), classes[numbers]
        shown = baseline.known.expand_as(baseline.truth)[at]
        if hidden is not None:
            shown = shown & ~hidden(numbers)
        before, now, truth = baseline.predicted[at], after.masks[picked], baseline.truth[at]
        margins = after.margins[picked] - baseline.margins[at]
        watched = truth & before if region is None else region(numbers)
        return Effects(
            _share(watched & ~now, watched),
            _dice(truth & shown, now & shown) - _dice(truth & shown, before & shown),
            _mean(margins, watched),
        )

    numbers = torch.arange(len(image), device=image.device)
    if not len(numbers):
        empty = torch.zeros(0, dtype=torch.float64, device=image.device)
        return Effects(empty, empty, empty)
    return Effects.joined(predictor.in_chunks(one_chunk, numbers, baseline.images))


def measure_all_classes(
    predictor: Predictor, baseline: Baseline, image: Tensor, change: PerIntervention
) -> Tensor:
    """The share of each class's region that flips, where one forward serves all classes.

    Parameters
    ----------
    predictor, baseline, image, change
        As for :func:`measure`.

    Returns
    -------
    Tensor
        (N, classes) float64; NaN where the image has no right pixel of the class.
    """

    def one_chunk(numbers: Tensor) -> Tensor:
        region = baseline.correct[image[numbers]]
        return _share(region & ~predictor(change(numbers)).masks, region, leading=2)

    numbers = torch.arange(len(image), device=image.device)
    if not len(numbers):
        return torch.zeros((0, baseline.classes), dtype=torch.float64, device=image.device)
    return torch.cat(predictor.in_chunks(one_chunk, numbers, baseline.images))


def bootstrap_interval(values: Tensor, seed: int = 0, level: float = 0.95) -> tuple[float, float]:
    """The interval of a mean over images, by drawing images with replacement.

    Parameters
    ----------
    values : Tensor
        (n,) one per image; NaN is left out.
    seed : int
    level : float

    Returns
    -------
    tuple of float
        The percentile interval of 2,000 draws; NaN without values.

    Examples
    --------
    >>> import torch
    >>> bootstrap_interval(torch.tensor([0.5, 0.5, 0.5]))
    (0.5, 0.5)
    """
    kept = values.detach().double().cpu().numpy()
    kept = kept[~np.isnan(kept)]
    if not len(kept):
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(len(kept), size=(_DRAWS, len(kept)))
    low, high = np.quantile(kept[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _count(masks: Tensor, leading: int) -> Tensor:
    """The pixels of masks (..., *spatial) with so many leading axes."""
    return masks.flatten(leading).sum(-1).double()


def _share(part: Tensor, whole: Tensor, leading: int = 1) -> Tensor:
    """How much of a whole a part is; NaN where there is none of it."""
    return _count(part, leading) / _count(whole, leading)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return (values.double() * where).flatten(1).sum(-1) / _count(where, 1)


def _dice(truth: Tensor, predicted: Tensor, leading: int = 1) -> Tensor:
    """2 |T and P| / (|T| + |P|); NaN where there is no pixel of the truth."""
    size = _count(truth, leading)
    dice = 2 * _count(truth & predicted, leading) / (size + _count(predicted, leading))
    return torch.where(size > 0, dice, torch.nan)
