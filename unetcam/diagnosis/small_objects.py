"""Objects that are missed because they are small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.phrases import percent
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.engine.tensors import at_least_single
from unetcam.morphology.components import label_components
from unetcam.resizing import averaged, interpolated

#: So many objects of a class must there be, and so many times larger the large ones.
_LEAST_OBJECTS, _LEAST_RATIO = 15, 2.0
#: An object is found if this share of its pixels is.
_FOUND = 0.5
#: Objects of fewer pixels are specks of a mask.
_LEAST_AREA = 4
#: Images that are enlarged to see whether that helps, and the IoU that it may cost.
_ENLARGED, _LEAST_LOSS = 4, 0.01


@dataclass(frozen=True)
class _Objects:
    """The objects of a class: in which image each lies, its pixels, and the share that is found."""

    image: Tensor
    area: Tensor
    recall: Tensor

    @property
    def missed(self) -> Tensor:
        return self.recall < _FOUND

    def thirds(self) -> tuple[Tensor, Tensor]:
        """Which are among the smallest and the largest third."""
        order = self.area.argsort(stable=True)
        third = len(order) // 3
        small, large = (torch.zeros(len(order), dtype=torch.bool) for _ in range(2))
        small[order[:third]] = True
        large[order[-third:]] = True
        return small, large

    def share_missed(self, among: Tensor, images: int) -> Tensor:
        """By image, (B,) float64, the share of some of its objects that is missed."""
        count = torch.zeros(images, dtype=torch.float64)
        missed = torch.zeros(images, dtype=torch.float64)
        count.index_add_(0, self.image[among], torch.ones(int(among.sum()), dtype=torch.float64))
        missed.index_add_(0, self.image[among], self.missed[among].double())
        return missed / count


@dataclass(frozen=True)
class _Enlarged:
    """What the network makes of images given at twice their size."""

    images: int
    missed_as_is: float
    missed: float
    iou_change: float

    @property
    def helps(self) -> bool:
        """Whether it finds half of what is missed, and not by claiming more than there is."""
        return self.missed <= 0.5 * self.missed_as_is and self.iou_change >= -_LEAST_LOSS

    @property
    def details(self) -> dict[str, float]:
        return {
            "missed_when_enlarged": self.missed,
            "iou_change_when_enlarged": self.iou_change,
        }


@register
class SmallObjectsMissed(Kind):
    """Small objects of a class that are missed while large ones are found."""

    name = "small-objects-missed"
    title = "Small objects of a class are missed"
    unit = "share of an image's small objects that are missed, averaged over images"
    remedy = (
        "Train with a loss that weighs objects alike (by component, or focal), and with more crops "
        "around small ones."
    )
    turn: Turn = "errors"
    limit = 0.4
    # Counted in pixels the smallest objects cost a class little, however many are missed.
    grave = (2.0, 2.0)

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            objects = self._objects(exam, index)
            cannot = self._unaskable(exam, index, objects)
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            small, large = objects.thirds()
            missed = float(objects.missed[small].double().mean())
            reason = (
                f"Of the smallest third of {len(small)} objects of {exam.quoted(index)} "
                f"{percent(missed)} are missed, of the largest third "
                f"{percent(float(objects.missed[large].double().mean()))}."
            )
            shares = objects.share_missed(small, len(exam.names))
            rows.append(Screened(index, shares, missed >= self.limit, reason))
        return rows

    @staticmethod
    def _unaskable(exam: Examination, index: int, objects: _Objects) -> str | None:
        if index in exam.surrounding:
            return f"{exam.quoted(index)} fills most of the images and has no objects."
        count = len(objects.area)
        if count < _LEAST_OBJECTS or len(torch.unique(objects.image)) < LEAST_IMAGES:
            return (
                f"There are {count} objects of {exam.quoted(index)}; {_LEAST_OBJECTS} are needed."
            )
        small, large = objects.thirds()
        if objects.area[large].median() < _LEAST_RATIO * objects.area[small].median():
            return f"The objects of {exam.quoted(index)} are of much the same size."
        return None

    @staticmethod
    def _objects(exam: Examination, index: int) -> _Objects:
        labels = label_components(exam.baseline.truth[:, index]).flatten(1).cpu()
        predicted = exam.baseline.predicted[:, index].flatten(1).cpu()
        most = int(labels.max())
        rows = torch.arange(len(labels)).view(-1, 1)
        slot = (rows * (most + 1) + labels).flatten()
        area = torch.bincount(slot, minlength=len(labels) * (most + 1))
        hits = torch.bincount(slot, weights=predicted.flatten().double(), minlength=len(area))
        number = torch.arange(len(area))
        real = (number % (most + 1) > 0) & (area >= _LEAST_AREA)
        return _Objects((number // (most + 1))[real], area[real], hits[real] / area[real].double())

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        objects = self._objects(exam, index)
        small, large = objects.thirds()
        images = len(exam.names)
        few, many = (int(objects.area[one].median()) for one in (small, large))
        enlarged = self._enlarged(exam, index, objects, small)
        helps = ""
        remedy = None
        if enlarged is not None:
            helps = (
                f"; in {enlarged.images} of these images {percent(enlarged.missed_as_is)} of "
                f"the small ones are not found, and {percent(enlarged.missed)} where the image is "
                f"given at twice its size (the IoU changes by {enlarged.iou_change:+.2f})"
            )
            if enlarged.helps:
                remedy = (
                    "Train and predict at a higher resolution: enlarged images are enough to find "
                    "many of them."
                )

        missed = [float(objects.missed[one].double().mean()) for one in (small, large)]

        def claim(effect: float, control: float) -> str:
            return (
                f"Small objects of {exam.quoted(index)} are missed: of the smallest third "
                f"(a median of {few:,} pixels) {percent(missed[0])} are not found, of the "
                f"largest third (a median of {many:,}) {percent(missed[1])}{helps}."
            )

        return Tested(
            image=range(images),
            effects=objects.share_missed(small, images),
            controls=objects.share_missed(large, images),
            claim=claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"Objects of {exam.quoted(index)} in the mask and in the prediction.",
                class_index=index,
                region=exam.baseline.truth[image, index] & ~exam.baseline.predicted[image, index],
            ),
            remedy=remedy,
            details={
                "objects": float(len(small)),
                "median_pixels_small": float(few),
                "median_pixels_large": float(many),
                **({} if enlarged is None else enlarged.details),
            },
        )

    @staticmethod
    def _enlarged(
        exam: Examination, index: int, objects: _Objects, small: Tensor
    ) -> _Enlarged | None:
        """What becomes of small objects in images of twice the size; of images only."""
        if exam.images.ndim != 4:
            return None
        holding = torch.unique(objects.image[small & objects.missed]).tolist()[:_ENLARGED]
        if not holding:
            return None
        double = [2 * side for side in exam.size]
        twice = interpolated(at_least_single(exam.images[holding]), double).to(exam.images.dtype)
        masks = exam.predictor(twice).masks[:, index]
        known = exam.baseline.known.expand_as(exam.baseline.truth)[holding, index]
        after = (averaged(masks[:, None].float(), exam.size)[:, 0] >= 0.5) & known
        truth = exam.baseline.truth[holding, index]
        before = exam.baseline.predicted[holding, index]
        labels = label_components(truth)
        limit = int(objects.area[small].max())
        missed, total = [0, 0], 0
        for *predictions, numbered in zip(before, after, labels, strict=True):
            areas = torch.bincount(numbered.flatten())
            kept = (areas >= _LEAST_AREA) & (areas <= limit)
            kept[0] = False
            total += int(kept.sum())
            for at, prediction in enumerate(predictions):
                hits = torch.bincount(numbered.flatten(), weights=prediction.flatten().double())
                missed[at] += int((hits[kept] < _FOUND * areas[kept]).sum())
        as_is, then = (count / total for count in missed)
        return _Enlarged(len(holding), as_is, then, _iou(truth, after) - _iou(truth, before))


def _iou(truth: Tensor, predicted: Tensor) -> float:
    return float((truth & predicted).sum() / (truth | predicted).sum())
