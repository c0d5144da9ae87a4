"""What a class leans on beside itself: its surroundings, and another class in particular."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.finding import Evidence
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.diagnosis.wording import listed, percent, pixels
from unetcam.interventions import fills
from unetcam.interventions.fills import Filling
from unetcam.interventions.hiding import moved
from unetcam.interventions.regions import Regions, window_masks
from unetcam.interventions.windows import Window

#: What must flip under a flat fill of all surroundings for a class to be looked at closer.
_WORTH_A_WINDOW = 0.15
#: The least mean effect of the strongest windows, and of everything around at once.
_WINDOW, _ALL = 0.2, 0.3
#: Images whose surroundings are searched window by window.
_SEARCHED = 6
#: Centres of windows that spread by less than this share of the sides stand in one place.
_ONE_PLACE = 0.12
#: Distances are said up to this share of the longest side.
_REACH = 0.25
#: What "in the upper left" and so on mean, as shares of the sides.
_FIRST, _LAST = 0.4, 0.6


@register
class LeansOnSurroundings(Kind):
    """Right pixels of a class that flip when what is around the class is hidden."""

    name = "leans-on-surroundings"
    title = "A class leans on what is around it"
    unit = "share of the class's right pixels that flip"
    remedy = (
        "Break the link in the training data: show the class without this surrounding and the "
        "surrounding without the class (paste objects elsewhere, hide or replace the place in "
        "augmentation), then diagnose again."
    )
    turn: Turn = "reliance"
    limit = _WINDOW
    grave = (0.3, 0.6)

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            cannot = exam.unaskable(index, surroundings=True)
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            _, flips = exam.all_hidden[index]
            share = float(flips.nanmean())
            reason = (
                f"With everything around {exam.quoted(index)} hidden, {percent(share)} of its "
                "right pixels flip"
            )
            suspicious = share >= _WORTH_A_WINDOW
            if index in exam.all_swapped:
                swapped = float(exam.all_swapped[index].nanmean())
                reason += f", and {percent(swapped)} with a very different image around it"
                suspicious = suspicious or swapped >= _ALL
            rows.append(Screened(index, flips, suspicious, f"{reason}."))
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        images, _ = exam.all_hidden[index]
        images = images[:_SEARCHED]
        regions = exam.regions(index, images)
        around = regions.surroundings
        everything = exam.hiding(regions, around.all)
        searched = regions.searched(
            exam.predictor, exam.baseline, exam.first_filling, smallest=exam.smallest
        )
        windows = window_masks(regions, searched.strongest)
        flips = torch.nan_to_num(exam.hiding(regions, windows), nan=0.0)
        controls = exam.hiding(regions, moved(windows, around))
        parts = {
            "flips_all": everything,
            "flips_near": exam.hiding(regions, around.near),
            "flips_far": exam.hiding(regions, around.far),
        }
        numbers = {key: float(value.nanmean()) for key, value in parts.items()}
        above = flips - torch.nan_to_num(controls, nan=0.0)
        if float(flips.mean()) >= _WINDOW and float(above.mean()) >= 0.5 * float(flips.mean()):
            return self._by_window(
                exam, index, regions, searched.strongest, windows, flips, controls, numbers
            )
        if index in exam.all_swapped:
            swapped = exam.all_swapped[index][: len(images)]
            tested = self._by_swapping(exam, index, regions, swapped, numbers)
            if float(tested.effects.nanmean()) > max(_ALL, float(everything.nanmean())):
                return tested
        edge = exam.hiding(regions, around.edge)
        return self._by_everything(exam, index, regions, everything, edge, numbers)

    def _by_swapping(
        self,
        exam: Examination,
        index: int,
        regions: Regions,
        swapped: Tensor,
        numbers: Mapping[str, float],
    ) -> Tested:
        effects = torch.minimum(swapped, exam.swapping(regions, "second-other"))
        controls = exam.swapping(regions, "alike")
        band = pixels(round(regions.surroundings.band, 1))

        def claim(effect: float, control: float) -> str:
            return (
                f"{exam.quoted(index)} leans on the kind of surroundings it stands in: with the "
                f"same place of a very different image around it (it and a band of {band} stay "
                f"untouched), {percent(effect)} of its right pixels turn into something else; with "
                f"that of a similar image {percent(control)}."
            )

        other = fills.get("other").prepared(exam.images, exam.seed)
        return Tested(
            image=regions.image.tolist(),
            effects=effects,
            controls=controls,
            claim=claim,
            evidence=_hidden_evidence(
                exam,
                index,
                regions,
                regions.surroundings.all,
                "The same place of a very different image is put around it",
                other,
            ),
            fills=("other", "second-other"),
            details={"flips_other": float(swapped.nanmean()), **numbers},
            limit=_ALL,
        )

    def _by_window(
        self,
        exam: Examination,
        index: int,
        regions: Regions,
        strongest: Sequence[Window | None],
        masks: Tensor,
        flips: Tensor,
        controls: Tensor,
        numbers: Mapping[str, float],
    ) -> Tested:
        found = [
            (window, share)
            for window, share in zip(strongest, flips.tolist(), strict=True)
            if window is not None and share > 0
        ]
        sides = [window.stop[-1] - window.start[-1] for window, _ in found]
        side = sorted(sides)[len(sides) // 2]
        place = _place([window for window, _ in found], exam.size)
        distance = _distance(regions, masks)
        details: dict[str, float | str] = {
            "window_side": float(side),
            "window_distance": distance,
            **({"window_place": place} if place else {}),
            **numbers,
        }
        band = pixels(round(regions.surroundings.band, 1))

        def claim(effect: float, control: float) -> str:
            elsewhere = (
                f"; hiding the same shape elsewhere turns {percent(control)}"
                if not math.isnan(control)
                else ""
            )
            where = f", {place}" if place else ""
            return (
                f"{exam.quoted(index)} leans on something beside it: hiding one window of about "
                f"{side} by {side} pixels{where} (a median of at least {pixels(distance)} away "
                f"from it; it and a band of {band} stay untouched) turns {percent(effect)} of its "
                f"right pixels into something else{elsewhere}."
            )

        return Tested(
            image=regions.image.tolist(),
            effects=flips,
            controls=controls,
            claim=claim,
            evidence=_hidden_evidence(exam, index, regions, masks, "One window is hidden"),
            fills=exam.fills,
            details=details,
        )

    def _by_everything(
        self,
        exam: Examination,
        index: int,
        regions: Regions,
        everything: Tensor,
        edge: Tensor,
        numbers: Mapping[str, float],
    ) -> Tested:
        near, far = numbers["flips_near"], numbers["flips_far"]
        band = pixels(round(regions.surroundings.band, 1))
        reach = pixels(round(5 * regions.surroundings.band, 1))
        parts = []
        if not math.isnan(near):
            parts.append(f"hiding only what is nearer than {reach} turns {percent(near)}")
        if not math.isnan(far):
            parts.append(f"hiding only what is farther turns {percent(far)}")
        apart = f"; {listed(parts)}" if parts else ""

        def claim(effect: float, control: float) -> str:
            return (
                f"{exam.quoted(index)} leans on its surroundings as a whole: hiding everything but "
                f"it and a band of {band} turns {percent(effect)} of its right pixels into "
                f"something else (hiding only the first pixel behind the band: {percent(control)})"
                f"{apart}; no single window explains it."
            )

        return Tested(
            image=regions.image.tolist(),
            effects=everything,
            controls=edge,
            claim=claim,
            evidence=_hidden_evidence(
                exam, index, regions, regions.surroundings.all, "Everything around is hidden"
            ),
            fills=exam.fills,
            details=dict(numbers),
            limit=_ALL,
            remedy=(
                "If the class can be told from its own pixels, show it in other surroundings in "
                "training (paste objects elsewhere, replace backgrounds); if it can't, this is "
                "what the network has to do, and it will fail where the surroundings change."
            ),
        )


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

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            cannot = exam.unaskable(index, surroundings=True)
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            images, everything = exam.all_hidden[index]
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
            flips = exam.hiding_once(regions, self._hidden(exam, regions, other))
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
        images, _ = exam.all_hidden[index]
        regions = exam.regions(index, images)
        masks = self._hidden(exam, regions, other)
        effects = exam.hiding(regions, masks)
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
            evidence=_hidden_evidence(
                exam, index, regions, masks, f"{exam.quoted(other)} is hidden"
            ),
            fills=exam.fills,
            details={"other_class": exam.classes[other], "other_index": float(other)},
        )


def _hidden_evidence(
    exam: Examination,
    index: int,
    regions: Regions,
    masks: Tensor,
    what: str,
    filling: Filling | None = None,
) -> Callable[[int], Evidence]:
    """Makes the evidence of an image with something hidden, by the first fill or another one."""
    of_image = dict(zip(regions.image.tolist(), masks, strict=True))
    fill = f" ({fills.get(exam.fills[0]).description})" if filling is None else ""

    def evidence(image: int) -> Evidence:
        mask = of_image[image]
        at = torch.tensor([image], device=mask.device)
        return evidence_of(
            exam,
            image,
            f"{what}{fill}: {exam.quoted(index)} before and after.",
            class_index=index,
            after=(filling or exam.first_filling)(at, mask[None])[0],
            region=mask,
        )

    return evidence


def _place(windows: Sequence[Window], size: Sequence[int]) -> str | None:
    """Where in the image windows stand, if they stand in one place; of images only."""
    if len(size) != 2 or len(windows) < LEAST_IMAGES:
        return None
    centres = torch.tensor(
        [
            [
                (low + high) / 2 / side
                for low, high, side in zip(one.start, one.stop, size, strict=True)
            ]
            for one in windows
        ]
    )
    if float(centres.std(dim=0).max()) > _ONE_PLACE:
        return None
    y, x = centres.mean(dim=0).tolist()
    vertical = "upper" if y < _FIRST else "lower" if y > _LAST else ""
    horizontal = "left" if x < _FIRST else "right" if x > _LAST else ""
    if not vertical and not horizontal:
        return "in the middle of the image"
    if vertical and horizontal:
        return f"in the {vertical} {horizontal} of the image"
    return f"in the {vertical + ' part' if vertical else horizontal + ' part'} of the image"


def _distance(regions: Regions, masks: Tensor) -> float:
    """The median over regions of how near the hidden pixels come, in pixels, rounded down."""
    farthest = _REACH * max(masks.shape[1:])
    distance = regions.surroundings.distance.clamp(max=farthest)
    nearest = torch.where(masks, distance, torch.inf).flatten(1).amin(dim=1)
    finite = nearest[torch.isfinite(nearest)]
    return math.floor(float(finite.median())) if len(finite) else math.nan
