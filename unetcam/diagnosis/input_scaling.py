"""Networks that are fine and fed wrongly: the images in another form than in training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.finding import Evidence
from unetcam.diagnosis.input_forms import Form, arrangements, chained, forms
from unetcam.diagnosis.phrases import on_images
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions.effects import Baseline
from unetcam.interventions.input_statistics import InputStatistics, input_statistics
from unetcam.models.loaded_model import LoadedModel

#: A network that reaches this mean IoU is fed rightly.
_FED_RIGHTLY = 0.8
#: Images on which other forms of the input are tried.
_TRIED = 8
#: Mean absolute logarithms of the variance at the first batch norm over that of the training: as
#: from which images are suspected, and up to which another form fits. Measured on 14 networks: .2
#: to .6 where images are given as in training, 1.7 and more in another range.
_OFF, _FITTING = 1.25, 0.8


@register
class InputScaling(Kind):
    """A network that does far better on the same images in another form."""

    name = "input-scaling"
    title = "The images are given in another form than the network was made for"
    unit = "gain of the mean IoU"
    remedy = "Prepare the images as in training (see the claim for the form that fits), and repeat."
    turn: Turn = "input"
    limit = 0.15
    needs_truth = False

    def screen(self, exam: Examination) -> Sequence[Screened]:
        if not exam.has_truth:
            return [_screened_by_statistics(exam)]
        iou = exam.mean_iou
        if len(exam.names) < 2 * LEAST_IMAGES:
            reason = f"It takes {2 * LEAST_IMAGES} images: half to choose a form, half to test it."
            return [Screened.unasked(None, reason)]
        reason = f"The mean IoU is {iou:.2f}, so the network is fed what it was made for."
        return [Screened(None, torch.zeros(len(exam.names)), not iou >= _FED_RIGHTLY, reason)]

    def expected_forwards(self, exam: Examination) -> int:
        if not exam.has_truth:
            return len(_halves(exam)[0])
        return 0 if exam.mean_iou >= _FED_RIGHTLY else 30 * _TRIED

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        if not exam.has_truth:
            return _tested_by_statistics(exam, suspect)
        every = exam.spread_sample(2 * _TRIED)
        chosen_on, tested_on = every[::2], every[1::2]
        tried = forms(exam.images[every])
        gains = [float(self._gains(exam, chosen_on, form).nanmean()) for form in tried]
        best = tried[int(np.argmax(gains))]
        arranged = arrangements(exam.images)
        if best.description not in {one.description for one in arranged}:
            again = [chained(best, one) for one in arranged]
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
            details={
                "form": best.description,
                "forms_tried": float(count),
                **self._statistics(exam, tested_on, best),
            },
        )

    @staticmethod
    def _statistics(exam: Examination, images: Sequence[int], form: Form) -> dict[str, float]:
        """How far the variance at the first batch norm is off, as it is and in the form."""
        names = ("variance_off", "variance_off_in_that_form")
        measured = (_statistics_of(exam, images, one) for one in (None, form))
        return {
            name: float(one.off.mean())
            for name, one in zip(names, measured, strict=True)
            if one is not None
        }

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


# -- without masks -------------------------------------------------------------------------------


def _statistics_of(
    exam: Examination, images: Sequence[int], form: Form | None
) -> InputStatistics | None:
    if not isinstance(exam.model, LoadedModel):
        return None
    given = exam.images[list(images)]
    if form is not None:
        given = form.apply(given).contiguous()
    return input_statistics(exam.model.module, exam.predictor, given)


def _halves(exam: Examination) -> tuple[list[int], list[int]]:
    """Images to choose a form on and to test it on."""
    count = len(exam.names)
    order = np.random.default_rng(exam.seed).permutation(count)[: 2 * _TRIED]
    every = [int(image) for image in np.sort(order)]
    return every[::2], every[1::2]


def _screened_by_statistics(exam: Examination) -> Screened:
    if not isinstance(exam.model, LoadedModel):
        return Screened.unasked(
            None, "There are no masks, and of a function it can't be told what it was trained on."
        )
    if len(exam.names) < 2 * LEAST_IMAGES:
        reason = f"It takes {2 * LEAST_IMAGES} images: half to choose a form, half to test it."
        return Screened.unasked(None, reason)
    statistics = _statistics_of(exam, _halves(exam)[0], None)
    if statistics is None:
        return Screened.unasked(
            None,
            "There are no masks, and no batch norm of the network holds statistics of its "
            "training that the images could be compared with.",
        )
    off = float(statistics.off.mean())
    reason = (
        f"The variance that reaches the first batch norm ('{statistics.layer}') is off by a "
        f"factor of {math.exp(off):.2g} from that of the training, channel by channel and image "
        "by image."
    )
    return Screened(None, statistics.off, off >= _OFF, reason, limit=_OFF)


def _tested_by_statistics(exam: Examination, suspect: Screened) -> Tested:
    chosen_on, tested_on = _halves(exam)
    orders = {one.description for one in arrangements(exam.images)}
    tried = [one for one in forms(exam.images) if one.description not in orders]

    def off(images: Sequence[int], form: Form | None) -> Tensor:
        statistics = _statistics_of(exam, images, form)
        assert statistics is not None
        return statistics.off

    best = min(tried, key=lambda form: float(off(chosen_on, form).mean()))
    given, fitting = off(tested_on, None), off(tested_on, best)
    layer = _statistics_of(exam, tested_on[:1], None)
    assert layer is not None
    fits = float(fitting.mean()) <= _FITTING
    unknown = torch.full_like(given, torch.nan)

    def claim(effect: float, control: float) -> str:
        return (
            f"The images reach the network in another form than those of its training: at its "
            f"first batch norm ('{layer.layer}') the variance is off by a factor of "
            f"{math.exp(effect):.2g}, and given {best.description} by {math.exp(control):.2g} "
            f"(on {on_images(len(tested_on))} that the form was not chosen on)."
        )

    return Tested(
        image=tested_on,
        effects=given if fits else unknown,
        controls=fitting,
        claim=claim,
        evidence=lambda image: evidence_of(
            exam, image, f"To be given {best.description}.", class_index=None
        ),
        unit="mean absolute logarithm of the variance at the first batch norm over the training's",
        details={"form": best.description, "forms_tried": float(len(tried)), "layer": layer.layer},
        limit=_OFF,
        margin=0.5,
    )
