"""Classes that hang on how the whole image looks, and on where in it things stand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.diagnosis.wording import percent, pixels
from unetcam.interventions import appearance
from unetcam.interventions.position import Shift, shift_effects, shifts
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

    def screen(self, exam: Examination) -> Sequence[Screened]:
        moves = shifts(exam.size, exam.stride)
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
            flips = effects[:, 0, :, index]
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
        """(shifts, 2, images, classes): flips and control; the same on every call."""
        kept = exam.remembered(self.name)
        if kept is None:
            image = torch.tensor(exam.mixed_sample, device=exam.images.device, dtype=torch.long)
            rows = [
                torch.stack(
                    shift_effects(
                        exam.predictor,
                        exam.baseline,
                        image,
                        move,
                        margin=exam.stride // 2,
                        least=LEAST_PIXELS,
                    )
                )
                for move in shifts(exam.size, exam.stride)
            ]
            kept = exam.remember(self.name, torch.stack(rows).cpu())
        return kept

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        effects = self._effects(exam)[..., index]
        worst = _worst(effects[:, 0])
        move = shifts(exam.size, exam.stride)[worst]
        direction = _direction(move, len(exam.size))

        def claim(effect: float, control: float) -> str:
            return (
                f"{exam.quoted(index)} leans on where it stands: moving the image's contents "
                f"{direction} by {pixels(abs(move.pixels))} turns {percent(effect)} of its right "
                "pixels into something else, and losing the same border without moving turns "
                f"{percent(control)}."
            )

        return Tested(
            image=exam.mixed_sample,
            effects=effects[worst, 0],
            controls=effects[worst, 1],
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


def _direction(move: Shift, dims: int) -> str:
    if dims != 2:
        return f"along axis {move.axis} {'forwards' if move.pixels > 0 else 'backwards'}"
    names = (("up", "down"), ("to the left", "to the right"))
    return names[move.axis][move.pixels > 0]


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
            image = torch.tensor(exam.mixed_sample, device=exam.images.device, dtype=torch.long)
            effects = appearance.appearance_effects(
                exam.predictor, exam.baseline, image, amounts, exam.seed
            )
            kept = exam.remember(self.name, effects.cpu())
        return kept, amounts

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        effects, amounts = self._effects(exam)
        names = tuple(amounts)
        flips = effects[:, :, index]
        worst = _worst(flips)
        others = torch.cat((flips[:worst], flips[worst + 1 :]))
        amount = amounts[names[worst]]
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
            image=exam.mixed_sample,
            effects=flips[worst],
            controls=others.nanmedian(dim=0).values,
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
