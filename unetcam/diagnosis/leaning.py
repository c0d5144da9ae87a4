"""What a class leans on beside itself: a window, all that is around it, or its kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import (
    FIRST,
    HIDDEN_WORTH_A_TEST,
    LEAST_IMAGES,
    SWAPPED_WORTH_A_TEST,
    Examination,
)
from unetcam.diagnosis.phrases import in_the_image, listed, percent, pixels
from unetcam.diagnosis.pictures import hidden_evidence
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions import fills
from unetcam.interventions.hiding import moved
from unetcam.interventions.regions import Regions, window_masks
from unetcam.interventions.windows import Window

#: The least mean effect of the strongest windows, and of everything around at once.
_WINDOW, _ALL = 0.2, 0.3
#: Images whose surroundings are searched window by window.
_SEARCHED = 6
#: Centres of windows that spread by less than this share of the sides stand in one place.
_ONE_LOCATION = 0.12
#: Distances are said up to this share of the longest side.
_REACH = 0.25


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

    def expected_forwards(self, exam: Examination) -> int:
        return 2 * FIRST * exam.surrounded

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            cannot = exam.unaskable(index, surroundings=True)
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            around = exam.around[index]
            share = float(around.hidden.nanmean())
            reason = (
                f"With everything around {exam.quoted(index)} hidden, {percent(share)} of its "
                "right pixels flip"
            )
            if around.swapped is not None:
                swapped = float(around.swapped.nanmean())
                reason += f", and {percent(swapped)} with a very different image around it"
            rows.append(Screened(index, around.hidden, around.suspicious, f"{reason}."))
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        known = exam.around[index]
        images = known.images[:_SEARCHED]
        regions = exam.regions(index, images)
        around = regions.surroundings
        everything = exam.hiding(regions, around.all, known.hidden[:_SEARCHED])
        swapped = None if known.swapped is None else known.swapped[:_SEARCHED]
        little = float(everything.nanmean()) < HIDDEN_WORTH_A_TEST
        if little and (swapped is None or float(swapped.nanmean()) < SWAPPED_WORTH_A_TEST):
            return self._by_everything(exam, index, regions, everything)
        searched = regions.searched(
            exam.predictor, exam.baseline, exam.first_filling, smallest=exam.smallest
        )
        windows = window_masks(regions, searched.strongest)
        once = torch.tensor([0.0 if one is None else one.flips for one in searched.strongest])
        if float(once.mean()) >= _WINDOW:
            flips = torch.nan_to_num(exam.hiding(regions, windows, once.double()), nan=0.0)
            controls = exam.hiding(regions, moved(windows, around))
            above = flips - torch.nan_to_num(controls, nan=0.0)
            if float(flips.mean()) >= _WINDOW and float(above.mean()) >= 0.5 * float(flips.mean()):
                return self._by_window(
                    exam, index, regions, searched.strongest, windows, flips, controls, everything
                )
        if swapped is not None and float(swapped.nanmean()) > max(
            _ALL, float(everything.nanmean())
        ):
            tested = self._by_swapping(exam, index, regions, swapped, everything)
            if float(tested.effects.nanmean()) > max(_ALL, float(everything.nanmean())):
                return tested
        return self._by_everything(exam, index, regions, everything)

    @staticmethod
    def _numbers(exam: Examination, regions: Regions, everything: Tensor) -> dict[str, float]:
        """What flips when all, only the near and only the far surroundings are hidden."""
        around = regions.surroundings
        return {
            "flips_all": float(everything.nanmean()),
            "flips_near": float(exam.hiding(regions, around.near).nanmean()),
            "flips_far": float(exam.hiding(regions, around.far).nanmean()),
        }

    def _by_swapping(
        self,
        exam: Examination,
        index: int,
        regions: Regions,
        swapped: Tensor,
        everything: Tensor,
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
            evidence=hidden_evidence(
                exam,
                index,
                regions,
                regions.surroundings.all,
                "The same place of a very different image is put around it",
                other,
            ),
            fills=("other", "second-other"),
            details={
                "flips_other": float(swapped.nanmean()),
                "flips_all": float(everything.nanmean()),
            },
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
        everything: Tensor,
    ) -> Tested:
        flipping = [
            (window, share)
            for window, share in zip(strongest, flips.tolist(), strict=True)
            if window is not None and share > 0
        ]
        sides = [window.stop[-1] - window.start[-1] for window, _ in flipping]
        side = sorted(sides)[len(sides) // 2]
        location = _location([window for window, _ in flipping], exam.size)
        distance = _distance(regions, masks)
        details: dict[str, float | str] = {
            "window_side": float(side),
            "window_distance": distance,
            **({"window_place": location} if location else {}),
            **self._numbers(exam, regions, everything),
        }
        band = pixels(round(regions.surroundings.band, 1))

        def claim(effect: float, control: float) -> str:
            elsewhere = (
                f"; hiding the same shape elsewhere turns {percent(control)}"
                if not math.isnan(control)
                else ""
            )
            where = f", {location}" if location else ""
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
            evidence=hidden_evidence(exam, index, regions, masks, "One window is hidden"),
            fills=exam.fills,
            details=details,
        )

    def _by_everything(
        self,
        exam: Examination,
        index: int,
        regions: Regions,
        everything: Tensor,
    ) -> Tested:
        enough = float(everything.nanmean()) >= _ALL
        numbers = self._numbers(exam, regions, everything) if enough else {}
        edge = torch.full_like(everything, torch.nan)
        if enough:
            edge = exam.hiding(regions, regions.surroundings.edge)
        near, far = (numbers.get(name, math.nan) for name in ("flips_near", "flips_far"))
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
            evidence=hidden_evidence(
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


def _location(windows: Sequence[Window], size: Sequence[int]) -> str | None:
    """Where in the image windows stand, if they stand in one place; of images only."""
    if len(size) != 2 or len(windows) < LEAST_IMAGES:
        return None
    corners = torch.tensor([[one.start, one.stop] for one in windows]).float()
    centres = corners.mean(dim=1) / torch.tensor(size)
    if float(centres.std(dim=0).max()) > _ONE_LOCATION:
        return None
    y, x = centres.mean(dim=0).tolist()
    return in_the_image(y, x)


def _distance(regions: Regions, masks: Tensor) -> float:
    """The median over regions of how near the hidden pixels come, in pixels, rounded down."""
    farthest = _REACH * max(masks.shape[1:])
    distance = regions.surroundings.distance.clamp(max=farthest)
    nearest = torch.where(masks, distance, torch.inf).flatten(1).amin(dim=1)
    finite = nearest[torch.isfinite(nearest)]
    return math.floor(float(finite.median())) if len(finite) else math.nan
