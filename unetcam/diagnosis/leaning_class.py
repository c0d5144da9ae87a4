"""What a class leans on beside itself: another class in particular."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import FIRST, LEAST_IMAGES, Examination, surely_below
from unetcam.diagnosis.phrases import percent
from unetcam.diagnosis.pictures import hidden_evidence
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions.hiding import moved
from unetcam.interventions.regions import Regions


@register
class LeansOnClass(Kind):
    """Right pixels of a class that flip when another class is hidden."""

    name = "leans-on-class"
    title = "A class leans on another class"
    unit = "share of the class's right pixels that flip"
    remedy = (
        "If the two need not occur together, train on images in which this class stands without "
        "the other (hide or paste over the other class in augmentation)."
    )
    turn: Turn = "reliance"
    limit = 0.15
    grave = (0.3, 0.6)

    def expected_forwards(self, exam: Examination) -> int:
        return FIRST * exam.surrounded

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            cannot = exam.unaskable(index, surroundings=True)
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            images, everything = exam.around[index].images, exam.around[index].hidden
            if float(everything.nanmean()) < self.limit:
                reason = (
                    f"Hiding everything around {exam.quoted(index)} flips "
                    f"{percent(float(everything.nanmean()))} of it: too little to ask which "
                    "class does."
                )
                rows.append(Screened(index, everything, False, reason))
                continue
            rows += self._others(exam, index, images)
        return rows

    def _others(self, exam: Examination, index: int, images: Sequence[int]) -> Sequence[Screened]:
        regions = exam.regions(index, images)
        rows = []
        for other in exam.present:
            if other == index or other in exam.surrounding:
                continue
            hidden = self._hidden(exam, regions, other)
            some = hidden.flatten(1).any(1).nonzero()[:, 0]
            first, rest = some[:FIRST], some[FIRST:]
            flips = torch.full((len(images),), torch.nan, dtype=torch.float64)
            for numbers in (first, rest):
                if not len(numbers) or (numbers is rest and surely_below(flips, self.limit)):
                    break
                part = exam.hiding_once(regions.chosen(numbers), hidden[numbers])
                flips[numbers.cpu()] = part
            beside = int((~torch.isnan(flips)).sum())
            if beside < LEAST_IMAGES:
                continue
            share = float(flips.nanmean())
            reason = (
                f"Hiding all of {exam.quoted(other)} flips {percent(share)} of "
                f"{exam.quoted(index)}."
            )
            rows.append(Screened(index, flips, share >= self.limit, reason, other))
        if not rows:
            reason = f"No other class stands beside {exam.quoted(index)} in {LEAST_IMAGES} images."
            rows.append(Screened.unasked(index, reason))
        return rows

    @staticmethod
    def _hidden(exam: Examination, regions: Regions, other: int) -> Tensor:
        return exam.baseline.truth[regions.image, other] & regions.surroundings.all

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index, other = suspect.class_index, suspect.other_index
        assert index is not None
        assert other is not None
        regions = exam.regions(index, exam.around[index].images)
        masks = self._hidden(exam, regions, other)
        effects = exam.hiding(regions, masks, suspect.values)
        controls = torch.full_like(effects, torch.nan)
        if float(effects.nanmean()) >= self.limit:
            controls = exam.hiding(regions, moved(masks, regions.surroundings))

        def claim(effect: float, control: float) -> str:
            elsewhere = (
                f" (hiding the same shapes elsewhere: {percent(control)})"
                if not math.isnan(control)
                else ""
            )
            return (
                f"{exam.quoted(index)} leans on {exam.quoted(other)}: hiding every pixel of "
                f"{exam.quoted(other)} turns {percent(effect)} of the right pixels of "
                f"{exam.quoted(index)} into something else{elsewhere}."
            )

        return Tested(
            image=regions.image.tolist(),
            effects=effects,
            controls=controls,
            claim=claim,
            evidence=hidden_evidence(
                exam, index, regions, masks, f"{exam.quoted(other)} is hidden"
            ),
            fills=exam.fills,
            details={"other_class": exam.classes[other], "other_index": float(other)},
        )
