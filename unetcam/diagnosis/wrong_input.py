"""Networks that are fine and fed wrongly: classes in another order, images in another form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.finding import Evidence
from unetcam.diagnosis.phrases import listed, on_images
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions.effects import Baseline

#: A network that reaches this mean IoU is fed rightly.
_FED_RIGHTLY = 0.8
#: Another order of the classes fits where it gives the moved ones this mean IoU.
_FITS = 0.5
#: Images on which other forms of the input are tried.
_TRIED = 8


@register
class ClassesPermuted(Kind):
    """Predictions that fit the masks far better under another order of the classes."""

    name = "classes-permuted"
    title = "The classes are in another order than the masks say"
    unit = "gain of the mean IoU of the exchanged classes"
    remedy = (
        "Put the class names, or the mask values of the class table, in the order in which the "
        "network was trained, and run this again."
    )
    turn: Turn = "input"
    limit = 0.25

    def screen(self, exam: Examination) -> Sequence[Screened]:
        count = len(exam.classes)
        if count < 2 or len(exam.names) < 2:
            return [Screened.unasked(None, "It takes two classes and two images to tell.")]
        whole = _best_order(exam.confusion.sum(0))
        halves = [_best_order(exam.confusion[start::2].sum(0)) for start in (0, 1)]
        moved = [index for index in range(count) if whole[index] != index]
        gains = _order_gains(exam, whole, moved)
        agreed = all(half[index] == whole[index] for half in halves for index in moved)
        fits = (
            bool(moved) and float(_order_iou(exam.confusion.sum(0), whole)[moved].mean()) >= _FITS
        )
        reason = "No other order of the classes fits the masks of both halves of the images well."
        return [Screened(None, gains, agreed and fits, reason)]

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        order = _best_order(exam.confusion.sum(0))
        moved = [index for index in range(len(order)) if order[index] != index]
        generator = np.random.default_rng(exam.seed)
        others = []
        for _ in range(10):
            shuffled = list(range(len(order)))
            shown = generator.permutation(moved)
            for index, other in zip(moved, shown, strict=True):
                shuffled[index] = int(other)
            if shuffled != order:
                others.append(_order_gains(exam, shuffled, moved))
        controls = torch.full((len(exam.names),), torch.nan, dtype=torch.float64)
        if others:
            controls = torch.stack(others).mean(dim=0)
        pairs = [
            f"what the network predicts as {exam.quoted(order[index])} is {exam.quoted(index)} in "
            "the masks"
            for index in moved
        ]
        before = float(torch.nan_to_num(exam.iou[moved]).mean())
        after = float(_order_iou(exam.confusion.sum(0), order)[moved].mean())
        claim = (
            f"The classes are in another order than the masks say: {listed(pairs)}; read so, the "
            f"mean IoU of these classes over {on_images(len(exam.names))} is {after:.2f} and not "
            f"{before:.2f}."
        )
        first = moved[0]
        return Tested(
            image=range(len(exam.names)),
            effects=_order_gains(exam, order, moved),
            controls=controls,
            claim=lambda effect, control: claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"{exam.quoted(first)} in the masks, as predicted, and what is predicted as "
                f"{exam.quoted(order[first])}.",
                class_index=first,
                mask_after=exam.baseline.predicted[image, order[first]],
            ),
            gain=after - before,
            details={f"{exam.classes[index]}": exam.classes[order[index]] for index in moved},
        )


def _order_iou(confusion: Tensor, order: Sequence[int]) -> Tensor:
    """The IoU of each true class with the predicted class `order` gives for it; 0 where absent."""
    both = confusion[range(len(order)), list(order)]
    either = confusion.sum(1) + confusion.sum(0)[list(order)] - both
    return torch.where(either > 0, both / either.clamp(min=1), 0.0)


def _best_order(confusion: Tensor) -> list[int]:
    """For each true class the predicted class of the assignment with the best sum of IoUs."""
    count = len(confusion)
    both = confusion
    either = confusion.sum(1, keepdim=True) + confusion.sum(0, keepdim=True) - both
    iou = torch.where(either > 0, both / either.clamp(min=1), 0.0)
    if bool((iou.diagonal() >= iou.amax(1)).all()):  # no class fits another better than its own
        return list(range(count))
    from scipy.optimize import linear_sum_assignment

    # Among equal assignments the one that leaves the classes where they are.
    iou = iou + 1e-9 * torch.eye(count, dtype=iou.dtype)
    _, columns = linear_sum_assignment(-iou.numpy())
    return [int(column) for column in columns]


def _order_gains(exam: Examination, order: Sequence[int], moved: Sequence[int]) -> Tensor:
    """By image, what another order gains in the mean IoU of the moved classes that it holds."""
    rows = []
    for confusion in exam.confusion:
        there = [index for index in moved if confusion[index].sum() > 0]
        if not there:
            rows.append(torch.tensor(torch.nan, dtype=torch.float64))
            continue
        gain = _order_iou(confusion, order) - _order_iou(confusion, range(len(order)))
        rows.append(gain[there].mean())
    return torch.stack(rows)


@dataclass(frozen=True)
class Form:
    """Another form in which the same images can be given.

    Attributes
    ----------
    description : str
        To be read behind "given".
    apply : callable
        Images (B, C, *spatial) as they are, to images of that form.
    undo : callable
        Masks (B, classes, *spatial) of such images, back to where the pixels were.
    """

    description: str
    apply: Callable[[Tensor], Tensor]
    undo: Callable[[Tensor], Tensor] = lambda masks: masks


_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of images in [0, 1]


def _statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """ImageNet's mean and standard deviation, of grey for what isn't three channels."""
    channels = images.shape[1]
    mean, std = (_MEAN, _STD) if channels == 3 else ((0.449,), (0.226,))
    shape = [1, -1, *[1] * (images.ndim - 2)]
    return images.new_tensor(mean).view(shape), images.new_tensor(std).view(shape)


def _read_as(images: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """What the images may be now, as maps to [0, 1]; only what fits their values."""

    def fits(read: Callable[[Tensor], Tensor]) -> bool:
        values = read(images)
        low, high = float(values.min()), float(values.max())
        return low >= -0.02 and high <= 1.02 and high - low > 0.05

    def normalised(values: Tensor) -> Tensor:
        mean, std = _statistics(values)
        return values * std + mean

    candidates: list[tuple[str, Callable[[Tensor], Tensor]]] = [
        ("0 to 1", lambda values: values),
        ("0 to 255", lambda values: values / 255),
        ("-1 to 1", lambda values: (values + 1) / 2),
        ("ImageNet's normalisation", normalised),
        ("ImageNet's normalisation of 1/255", lambda values: 255 * normalised(values)),
    ]
    for name, read in candidates:
        if fits(read):
            yield name, read


def _written_as() -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Forms that networks are trained on, made of images in [0, 1]."""

    def normalised(values: Tensor) -> Tensor:
        mean, std = _statistics(values)
        return (values - mean) / std

    yield "in 0 to 1", lambda values: values
    yield "in 0 to 255", lambda values: 255 * values
    yield "in -1 to 1", lambda values: 2 * values - 1
    yield "with ImageNet's mean and standard deviation", normalised


def _each_standardised(images: Tensor) -> Tensor:
    dims = tuple(range(2, images.ndim))
    mean, std = images.mean(dims, keepdim=True), images.std(dims, keepdim=True, correction=0)
    return (images - mean) / torch.where(std > 0, std, torch.ones_like(std))


def _each_stretched(images: Tensor) -> Tensor:
    dims = tuple(range(1, images.ndim))
    low, high = images.amin(dims, keepdim=True), images.amax(dims, keepdim=True)
    return (images - low) / torch.where(high > low, high - low, torch.ones_like(high))


def _inverted(images: Tensor) -> Tensor:
    return images.amin() + images.amax() - images


def forms(images: Tensor) -> list[Form]:
    """Other forms of images, by what they may be now and what the network may have been made for.

    Ranges and normalisations (0 to 1, 0 to 255, -1 to 1, ImageNet's, per image), the order of
    the channels, bright for dark, and orientations.

    Parameters
    ----------
    images : Tensor
        (B, C, *spatial).

    Examples
    --------
    >>> import torch
    >>> [form.description for form in forms(torch.linspace(0, 255, 64).view(1, 1, 8, 8))][:2]
    ['in 0 to 1 and not in 0 to 255', 'in -1 to 1 and not in 0 to 255']
    """
    found: list[Form] = []
    for now, read in _read_as(images):
        for wanted, write in _written_as():
            if now in wanted or (now.startswith("ImageNet's normal") and "ImageNet" in wanted):
                if now.endswith("1/255") and "ImageNet" in wanted:
                    text = (
                        "normalised by ImageNet's statistics as 0 to 1 and not after another 1/255"
                    )
                    found.append(Form(text, lambda x, r=read, w=write: w(r(x))))  # type: ignore[misc]
                continue
            text = f"{wanted} and not in {now}"
            found.append(Form(text, lambda x, r=read, w=write: w(r(x))))  # type: ignore[misc]
    found.append(Form("with each image's own mean and standard deviation", _each_standardised))
    found.append(Form("with each image stretched to 0 to 1", _each_stretched))
    return found + _arrangements(images)


def _arrangements(images: Tensor) -> list[Form]:
    """Orders of channels and axes, and bright for dark.

    Each orientation twice: the network may have been trained on images of that orientation, and
    the images may lie otherwise than their masks.
    """
    found = [Form("with bright and dark exchanged", _inverted)]
    if images.shape[1] == 3:
        found.append(Form("with red and blue exchanged (BGR)", lambda x: x.flip(1)))
    for text, turn, back in _orientations(images):
        found.append(Form(f"{text}, masks and all", turn, back))
        found.append(Form(f"{text}, with the masks as they are", turn))
    return found


_Turn = Callable[[Tensor], Tensor]


def _orientations(images: Tensor) -> Iterator[tuple[str, _Turn, _Turn]]:
    """Ways to turn images (B, C, *spatial), and to turn what has turned back."""
    axes = range(2, images.ndim)
    for axis in axes:
        text = "upside down" if axis == images.ndim - 2 else "mirrored"
        if images.ndim == 5:
            text = f"with axis {axis - 2} reversed"
        yield text, partial(torch.flip, dims=(axis,)), partial(torch.flip, dims=(axis,))
    for one, other in combinations(axes, 2):
        if images.shape[one] == images.shape[other]:
            swap = partial(torch.transpose, dim0=one, dim1=other)
            yield f"with axes {one - 2} and {other - 2} exchanged", swap, swap
    if images.ndim == 4 and images.shape[2] == images.shape[3]:
        for turns in (1, 3):
            turn = partial(torch.rot90, k=turns, dims=(2, 3))
            yield (
                f"turned by {90 * turns} degrees",
                turn,
                partial(torch.rot90, k=-turns, dims=(2, 3)),
            )


def _chained(first: Form, second: Form) -> Form:
    return Form(
        f"{first.description}, {second.description}",
        lambda images: second.apply(first.apply(images)),
        lambda masks: first.undo(second.undo(masks)),
    )


@register
class InputScaling(Kind):
    """A network that does far better on the same images in another form."""

    name = "input-scaling"
    title = "The images are given in another form than the network was made for"
    unit = "gain of the mean IoU"
    remedy = "Prepare the images as in training (see the claim for the form that fits), and repeat."
    turn: Turn = "input"
    limit = 0.15

    def screen(self, exam: Examination) -> Sequence[Screened]:
        iou = exam.mean_iou
        if len(exam.names) < 2 * LEAST_IMAGES:
            reason = f"It takes {2 * LEAST_IMAGES} images: half to choose a form, half to test it."
            return [Screened.unasked(None, reason)]
        reason = f"The mean IoU is {iou:.2f}, so the network is fed what it was made for."
        return [Screened(None, torch.zeros(len(exam.names)), not iou >= _FED_RIGHTLY, reason)]

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        every = exam.spread_sample(2 * _TRIED)
        chosen_on, tested_on = every[::2], every[1::2]
        tried = forms(exam.images[every])
        gains = [float(self._gains(exam, chosen_on, form).nanmean()) for form in tried]
        best = tried[int(np.argmax(gains))]
        arranged = _arrangements(exam.images)
        if best.description not in {one.description for one in arranged}:
            again = [_chained(best, one) for one in arranged]
            more = [float(self._gains(exam, chosen_on, form).nanmean()) for form in again]
            if max(more) > max(gains) + 0.05:
                best = again[int(np.argmax(more))]
            gains += more
        effects = self._gains(exam, tested_on, best)
        usual = float(np.median(gains))
        before = self._iou(exam, tested_on, None)
        after = self._iou(exam, tested_on, best)
        count = len(gains)

        def claim(effect: float, control: float) -> str:
            return (
                f"The network does far better on the same images given {best.description}: on "
                f"{on_images(len(tested_on))} that the form was not chosen on, the mean IoU is "
                f"{float(after.nanmean()):.2f} and not {float(before.nanmean()):.2f} (the median "
                f"of the {count} forms that were tried changes it by {control:+.2f})."
            )

        index = next((one for one in exam.present if one not in exam.surrounding), None)
        return Tested(
            image=tested_on,
            effects=effects,
            controls=torch.full_like(effects, usual),
            claim=claim,
            evidence=lambda image: self._evidence(exam, image, best, index),
            gain=float(effects.nanmean()),
            details={"form": best.description, "forms_tried": float(count)},
        )

    def _evidence(self, exam: Examination, image: int, form: Form, index: int | None) -> Evidence:
        given = exam.images[image][None]
        masks = form.undo(exam.predictor(form.apply(given)).masks)
        return evidence_of(
            exam,
            image,
            f"The same image given {form.description}.",
            class_index=index,
            mask_after=None if index is None else masks[0, index],
        )

    def _gains(self, exam: Examination, images: Sequence[int], form: Form) -> Tensor:
        return self._iou(exam, images, form) - self._iou(exam, images, None)

    @staticmethod
    def _iou(exam: Examination, images: Sequence[int], form: Form | None) -> Tensor:
        """Each image's mean IoU over the classes that it holds, (n,), in a form or as it is."""
        base: Baseline = exam.baseline
        at = list(images)
        predicted = base.predicted[at]
        if form is not None:
            given = form.apply(exam.images[at]).contiguous()
            predicted = form.undo(exam.predictor(given).masks) & base.known[at]
        truth = base.truth[at]
        both = (truth & predicted).flatten(2).sum(2).double()
        either = (truth | predicted).flatten(2).sum(2).double()
        there = truth.flatten(2).any(2)
        return torch.where(there, both / either.clamp(min=1), torch.nan).nanmean(dim=1).cpu()
