"""Classes that were not learned: never predicted, poorly segmented, taken for one another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.contrast import contrast_evidence
from unetcam.diagnosis.examination import Examination
from unetcam.diagnosis.phrases import on_images, percent
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register

#: A class that is found in less than this share of its pixels is never predicted.
_FOUND = 0.01


def missed_shares(exam: Examination, index: int) -> Tensor:
    """The share of a class's pixels that is missed in each image, (B,); NaN where it is absent."""
    truth = exam.truth_pixels[:, index]
    return torch.where(truth > 0, 1 - exam.right_pixels[:, index] / truth, torch.nan)


def _of_others(exam: Examination, index: int, values: Sequence[Tensor]) -> Tensor:
    """The same measurement of the other classes, (B,): their mean in each image."""
    others = [one for other, one in zip(exam.present, values, strict=True) if other != index]
    if not others:
        return torch.full((len(exam.names),), torch.nan, dtype=torch.float64)
    return torch.stack(others).nanmean(dim=0)


@register
class NeverPredicted(Kind):
    """A class that the masks hold and the network never gives."""

    name = "never-predicted"
    title = "A class is never predicted"
    unit = "share of the class's pixels that are missed"
    remedy = (
        "Check that the class's value in the training masks is the one meant here and that the "
        "class was in the training data; then weigh it more in the loss, or sample it more often."
    )
    turn: Turn = "errors"
    limit = 1 - _FOUND
    margin = 0.0

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            recall = float(exam.right_pixels[:, index].sum() / exam.truth_pixels[:, index].sum())
            rows.append(
                Screened(
                    index,
                    missed_shares(exam, index),
                    recall < _FOUND,
                    f"{percent(recall)} of the pixels of {exam.quoted(index)} are found.",
                )
            )
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        truth, predicted = exam.truth_pixels[:, index].sum(), exam.predicted_pixels[:, index].sum()
        where = f"{exam.quoted(index)} is never predicted"
        if predicted:
            where = (
                f"{exam.quoted(index)} is hardly ever predicted ({int(predicted):,} pixels) and "
                f"{percent(float(exam.right_pixels[:, index].sum() / truth))} of it is found"
            )
        taken = exam.confusion[:, index].sum(0)
        taken[index] = -1
        into = int(taken.argmax())
        images = int((exam.truth_pixels[:, index] > 0).sum())
        claim = (
            f"{where}, though the masks of {on_images(images)} hold {int(truth):,} pixels of it; "
            f"most of them are taken for {exam.quoted(into)}."
        )
        # Pooled over pixels this is what was screened; the images it is missed in weigh alike.
        return Tested(
            image=range(len(exam.names)),
            effects=missed_shares(exam, index),
            controls=_of_others(exam, index, [missed_shares(exam, one) for one in exam.present]),
            claim=lambda effect, control: claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"{exam.quoted(index)} in the mask and in the prediction.",
                class_index=index,
            ),
            details={"truth_pixels": float(truth), "predicted_pixels": float(predicted)},
            limit=0.9,
        )


@register
class PoorlyLearned(Kind):
    """A class that is predicted, and badly."""

    name = "poorly-learned"
    title = "A class is segmented poorly"
    unit = "share of the class's union of truth and prediction that is wrong (1 - IoU)"
    remedy = (
        "Look at the worst images first: if the masks there are right, train longer or with more "
        "examples of the class; if they are not, mend the masks."
    )
    turn: Turn = "errors"
    limit = 0.5
    margin = -1.0  # a low IoU is a fault also where the other classes are as bad
    grave = (0.5, 0.7)

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            iou = float(exam.iou[index])
            recall = float(exam.right_pixels[:, index].sum() / exam.truth_pixels[:, index].sum())
            reason = f"The IoU of {exam.quoted(index)} is {iou:.2f}."
            if recall < _FOUND:
                reason = f"{exam.quoted(index)} is never predicted, which is said already."
            rows.append(
                Screened(index, self._wrong(exam, index), recall >= _FOUND and iou < 0.5, reason)
            )
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        right = float(exam.right_pixels[:, index].sum())
        recall = right / float(exam.truth_pixels[:, index].sum())
        precision = right / float(exam.predicted_pixels[:, index].sum())
        iou = float(exam.iou[index])
        images = int((exam.truth_pixels[:, index] > 0).sum())
        claim = (
            f"{exam.quoted(index)} is segmented poorly: over all pixels of {on_images(images)} its "
            f"IoU is {iou:.2f}, {percent(recall)} of it is found, and {percent(precision)} of what "
            "is called so is right."
        )
        return Tested(
            image=range(len(exam.names)),
            effects=self._wrong(exam, index),
            controls=_of_others(exam, index, [self._wrong(exam, one) for one in exam.present]),
            claim=lambda effect, control: claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"{exam.quoted(index)} in the mask and in the prediction.",
                class_index=index,
            ),
            details={"iou": iou, "recall": recall, "precision": precision},
        )

    @staticmethod
    def _wrong(exam: Examination, index: int) -> Tensor:
        there = exam.truth_pixels[:, index] > 0
        return torch.where(there, 1 - exam.image_iou[:, index], torch.nan)


@register
class ConfusedWith(Kind):
    """A class of which another takes a good part."""

    name = "confused-with"
    title = "A class is taken for another"
    unit = "share of the class's pixels that are given to the other class"
    remedy = (
        "Compare both classes' masks in these images for labels that disagree; then give the "
        "network more examples in which the two stand side by side."
    )
    turn: Turn = "errors"
    limit = 0.2

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            others = [j for j in range(len(exam.classes)) if j not in ({index} | exam.surrounding)]
            if exam.predictor.head == "sigmoid" or not others:
                reason = "There is no other class beside this one and what surrounds it."
                if exam.predictor.head == "sigmoid":
                    reason = "The classes do not exclude one another, so none takes another's."
                rows.append(Screened.unasked(index, reason))
                continue
            taken = exam.confusion[:, index, others].sum(0) / exam.truth_pixels[:, index].sum()
            most = int(taken.argmax())
            shares = self._shares(exam, index, others[most])
            reason = (
                f"No class takes more than {percent(float(taken[most]))} of {exam.quoted(index)}."
            )
            suspicious = float(taken[most]) >= self.limit
            rows.append(Screened(index, shares, suspicious, reason, others[most]))
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index, other = suspect.class_index, suspect.other_index
        assert index is not None
        assert other is not None
        rest = [j for j in range(len(exam.classes)) if j not in (index, other)]
        controls = torch.full((len(exam.names),), torch.nan, dtype=torch.float64)
        if rest:
            controls = torch.stack([self._shares(exam, index, j) for j in rest]).amax(dim=0)
        share = exam.confusion[:, index, other].sum() / exam.truth_pixels[:, index].sum()
        images = int((exam.truth_pixels[:, index] > 0).sum())
        claim = (
            f"{percent(float(share))} of the pixels of {exam.quoted(index)} in "
            f"{on_images(images)} are taken for {exam.quoted(other)}."
        )
        union = exam.truth_pixels[:, index].sum() + exam.predicted_pixels[:, index].sum()
        right = exam.right_pixels[:, index].sum()
        won = right + exam.confusion[:, index, other].sum()
        gain = won / (union - right) - right / (union - right)
        return Tested(
            image=range(len(exam.names)),
            effects=self._shares(exam, index, other),
            controls=controls,
            claim=lambda effect, control: claim,
            evidence=lambda image: contrast_evidence(exam, image, index, other),
            gain=float(gain),
            details={"other_class": exam.classes[other], "other_index": float(other)},
        )

    @staticmethod
    def _shares(exam: Examination, index: int, other: int) -> Tensor:
        truth = exam.truth_pixels[:, index]
        return torch.where(truth > 0, exam.confusion[:, index, other] / truth, torch.nan)
