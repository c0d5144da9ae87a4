"""Networks whose classes are in another order than the masks say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unetcam.diagnosis.examination import Examination
from unetcam.diagnosis.phrases import listed, on_images
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register

#: Another order of the classes fits where it gives the moved ones this mean IoU.
_FITS = 0.5


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
