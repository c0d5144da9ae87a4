"""Classes that hang on how the whole image looks, and on where in it things stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.phrases import percent, pixels, towards
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions import appearance
from unetcam.interventions.position import Shift, quarter_shifts, shift_flips
from unetcam.interventions.regions import LEAST_PIXELS

#: Changes that no image of the same kind shows; a network may well tell classes by their colour.
_NOT_MILD = frozenset({"grey"})
#: Changes of which it was not measured how much the images differ in them.
_NOT_MEASURED = frozenset({"blurred", "noisy"})


@register
class LeansOnPosition(Kind):
    """Right pixels of a class that flip when the image's contents move."""

    name = "leans-on-position"
    title = "A class leans on where in the image it stands"
    unit = "share of the class's right pixels that flip"
    remedy = (
        "Shift, flip and crop in training, so that every class is seen everywhere; padding by "
        "reflection in place of zeros gives the network less to tell the place by."
    )
    turn: Turn = "reliance"
    limit = 0.25

    def expected_forwards(self, exam: Examination) -> int:
        return len(quarter_shifts(exam.size, exam.stride)) * len(exam.mixed_sample)

    def screen(self, exam: Examination) -> Sequence[Screened]:
        moves = quarter_shifts(exam.size, exam.stride)
        if not moves:
            reason = (
                f"The images are too small to be moved by the network's stride of {exam.stride} "
                "pixels."
            )
            return [Screened.unasked(None, reason)]
        rows = []
        effects = self._effects(exam)
        for index in exam.present:
            cannot = exam.unaskable(index)
            flips = effects[:, :, index]
            if cannot is None and int((~torch.isnan(flips)).any(0).sum()) < LEAST_IMAGES:
                cannot = (
                    f"Too few images keep {exam.quoted(index)} in view when their contents move."
                )
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            worst = _worst(flips)
            share = float(flips[worst].nanmean())
            reason = (
                f"When the contents move by {pixels(abs(moves[worst].pixels))}, at most "
                f"{percent(share)} of the right pixels of {exam.quoted(index)} flip."
            )
            rows.append(Screened(index, flips[worst], share >= self.limit, reason))
        return rows

    def _effects(self, exam: Examination) -> Tensor:
        """(shifts, images, classes) flips; the same on every call."""
        kept = exam.remembered(self.name)
        if kept is None:
            moves = quarter_shifts(exam.size, exam.stride)
            images = exam.mixed_sample
            rows = [self._flips(exam, images, move, moving=True) for move in moves]
            kept = exam.remember(self.name, torch.stack(rows))
        return kept

    @staticmethod
    def _flips(exam: Examination, images: Sequence[int], move: Shift, *, moving: bool) -> Tensor:
        return shift_flips(
            exam.predictor,
            exam.baseline,
            torch.tensor(images, device=exam.images.device, dtype=torch.long),
            move,
            moving=moving,
            margin=exam.stride // 2,
            least=LEAST_PIXELS,
        ).cpu()

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        screened = self._effects(exam)[..., index]
        worst = _worst(screened)
        images = exam.mixed_sample_extended
        move = quarter_shifts(exam.size, exam.stride)[worst]
        direction = towards(move.axis, move.pixels, len(exam.size))

        def claim(effect: float, control: float) -> str:
            return (
                f"{exam.quoted(index)} leans on where it stands: moving the image's contents "
                f"{direction} by {pixels(abs(move.pixels))} turns {percent(effect)} of its right "
                "pixels into something else, and losing the same border without moving turns "
                f"{percent(control)}."
            )

        further = self._flips(exam, images[screened.shape[1] :], move, moving=True)[:, index]
        return Tested(
            image=images,
            effects=torch.cat((screened[worst], further)),
            controls=self._flips(exam, images, move, moving=False)[:, index],
            claim=claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"The contents moved {direction} by {pixels(abs(move.pixels))}.",
                class_index=index,
                after=move.moved(exam.images[image][None])[0],
            ),
            details={"shift_pixels": float(move.pixels), "shift_axis": float(move.axis)},
        )


@register
class LeansOnAppearance(Kind):
    """Right pixels of a class that flip when the whole image looks a little different."""

    name = "leans-on-appearance"
    title = "A class leans on the look of the whole image"
    unit = "share of the class's right pixels that flip"
    remedy = "Vary this in training by augmentation, a little more than it varies in use."
    turn: Turn = "reliance"
    limit = 0.5
    grave = (0.5, 0.7)

    def expected_forwards(self, exam: Examination) -> int:
        return len(appearance.fitting(exam.images.shape[1])) * len(exam.mixed_sample)

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        effects, amounts = self._effects(exam)
        names = tuple(amounts)
        for index in exam.present:
            cannot = exam.unaskable(index)
            flips = effects[:, :, index]
            if cannot is None and int((~torch.isnan(flips)).any(0).sum()) < LEAST_IMAGES:
                cannot = f"Too few images of the sample hold {exam.quoted(index)}."
            if cannot is not None:
                rows.append(Screened.unasked(index, cannot))
                continue
            worst = _worst(flips)
            share = float(flips[worst].nanmean())
            change = appearance.get(names[worst]).described(amounts[names[worst]])
            reason = (
                f"Of {len(names)} mild changes of the whole image the worst ({change}) flips "
                f"{percent(share)} of the right pixels of {exam.quoted(index)}."
            )
            rows.append(Screened(index, flips[worst], share >= self.limit, reason))
        return rows

    def _effects(self, exam: Examination) -> tuple[Tensor, dict[str, float]]:
        """(changes, images, classes) and the changes' amounts; the same on every call."""
        fitting = appearance.fitting(exam.images.shape[1])
        usual = appearance.usual_amounts(exam.images)
        amounts = {name: usual[name] for name in fitting if name not in _NOT_MILD}
        kept = exam.remembered(self.name)
        if kept is None:
            kept = exam.remember(self.name, self._flips(exam, exam.mixed_sample, amounts))
        return kept, amounts

    @staticmethod
    def _flips(exam: Examination, images: Sequence[int], amounts: Mapping[str, float]) -> Tensor:
        image = torch.tensor(images, device=exam.images.device, dtype=torch.long)
        return appearance.appearance_effects(
            exam.predictor, exam.baseline, image, amounts, exam.seed
        ).cpu()

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        effects, amounts = self._effects(exam)
        names = tuple(amounts)
        flips = effects[:, :, index]
        worst = _worst(flips)
        others = torch.cat((flips[:worst], flips[worst + 1 :]))
        amount = amounts[names[worst]]
        images = exam.mixed_sample_extended
        further = self._flips(exam, images[flips.shape[1] :], {names[worst]: amount})[0, :, index]
        unknown = torch.full_like(further, torch.nan)
        change = appearance.get(names[worst]).described(amount)
        usual = (
            ""
            if names[worst] in _NOT_MEASURED
            else (", which is no more than these images differ by among themselves,")
        )

        def claim(effect: float, control: float) -> str:
            return (
                f"{exam.quoted(index)} leans on the look of the whole image: with {change}{usual} "
                f"{percent(effect)} of its right pixels turn into something else; the median of "
                f"the {len(others)} other changes that were tried turns {percent(control)}."
            )

        def after(image: int) -> Tensor:
            one = exam.images[image][None]
            return appearance.changed(one, names[worst], amount, exam.seed)[0]

        means = zip(names, flips.nanmean(dim=1).tolist(), strict=True)
        return Tested(
            image=images,
            effects=torch.cat((flips[worst], further)),
            controls=torch.cat((others.nanmedian(dim=0).values, unknown)),
            claim=claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"The same image with {change}.",
                class_index=index,
                after=after(image),
            ),
            details={
                "change": names[worst],
                "amount": amount,
                **{f"flips_{name}": mean for name, mean in means},
            },
        )


def _worst(flips: Tensor) -> int:
    """Which of several changes, (K, images), flips most on average."""
    return int(torch.nan_to_num(flips.nanmean(dim=1), nan=-1.0).argmax())
