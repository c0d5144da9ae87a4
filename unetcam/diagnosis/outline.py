"""Outlines that are drawn too tight or too wide, and what moving them would gain."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.phrases import percent, pixels
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.interventions.regions import LEAST_PIXELS
from unetcam.morphology.distance import default_width, distance_transform

#: A class of which less than this share lies deeper than the band is all outline.
_LEAST_DEEP = 0.15
#: The IoU that moving the outline must gain.
_LEAST_GAIN = 0.02


class _Outline(Kind):
    """What both kinds share: shares of a band, and the IoU of an outline that is moved."""

    turn: Turn = "errors"
    limit = 0.5
    grave = (0.5, 0.8)
    side: int  # +1: the prediction should grow

    @abstractmethod
    def _shares(self, exam: Examination, index: int) -> tuple[Tensor, Tensor]:
        """The share of the band that is wrong and, as a control, of what lies behind it, (B,)."""

    @abstractmethod
    def _sentence(self, exam: Examination, index: int, effect: float, control: float) -> str:
        """The claim's first half."""

    def screen(self, exam: Examination) -> Sequence[Screened]:
        rows = []
        for index in exam.present:
            if index in exam.surrounding:
                reason = (
                    f"{exam.quoted(index)} fills most of the images: its outline is that of the "
                    "others."
                )
                rows.append(Screened.unasked(index, reason))
                continue
            if not self._has_outline(exam, index):
                reason = (
                    f"{exam.quoted(index)} is nearly all outline, so there is no inside to "
                    "compare it with."
                )
                rows.append(Screened.unasked(index, reason))
                continue
            wrong, _ = self._shares(exam, index)
            share = float(wrong.nanmean())
            if int((~torch.isnan(wrong)).sum()) < LEAST_IMAGES:
                reason = (
                    f"Fewer than {LEAST_IMAGES} images show an outline of {exam.quoted(index)}."
                )
                rows.append(Screened.unasked(index, reason))
                continue
            what = "missed" if self.side > 0 else "overrun"
            reason = (
                f"{percent(share)} of the band at the outline of {exam.quoted(index)} is {what}."
            )
            suspicious = share >= self.limit and self._gain(exam, index)[1] >= _LEAST_GAIN
            rows.append(Screened(index, wrong, suspicious, reason))
        return rows

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        wrong, behind = self._shares(exam, index)
        shift, gain = self._gain(exam, index)
        verb = "growing" if self.side > 0 else "shrinking"
        moved = exam.baseline.predicted[:, index]

        def claim(effect: float, control: float) -> str:
            return (
                f"{self._sentence(exam, index, effect, control)}; {verb} the prediction by "
                f"{pixels(shift)} raises its IoU by {gain:.2f}."
            )

        def grown(image: int) -> Tensor:
            return _moved(moved[image][None], self.side * shift)[0]

        return Tested(
            image=range(len(exam.names)),
            effects=wrong,
            controls=behind,
            claim=claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"{exam.quoted(index)} as predicted, and {verb} by {pixels(shift)}.",
                class_index=index,
                mask_after=grown(image),
                region=self._region(exam, index, image),
            ),
            gain=gain,
            details={"shift_pixels": float(self.side * shift), "band": _band(exam)},
        )

    def _region(self, exam: Examination, index: int, image: int) -> Tensor:
        truth, predicted = exam.baseline.truth[image, index], exam.baseline.predicted[image, index]
        return truth & ~predicted if self.side > 0 else predicted & ~truth

    def _has_outline(self, exam: Examination, index: int) -> bool:
        inside = _depth(exam, index, inside=True)
        deep = (inside > _band(exam)).flatten(1).sum(1)
        return bool(deep.sum() >= _LEAST_DEEP * exam.truth_pixels[:, index].sum())

    def _gain(self, exam: Examination, index: int) -> tuple[float, float]:
        """By how many pixels to move the outline, and the IoU gained by it.

        The shift is the smaller one of those that are best on either half of the images.
        """
        kept = exam.remembered(f"{self.name} {index}")
        if kept is None:
            there = (exam.truth_pixels[:, index] > 0).nonzero()[:, 0].to(exam.images.device)
            truth = exam.baseline.truth[there, index]
            predicted = exam.baseline.predicted[there, index]
            known = exam.baseline.known.expand_as(exam.baseline.truth)[there, index]
            widths = range(math.ceil(2 * _band(exam)) + 1)
            counts = [_counts(truth, _moved(predicted, self.side * by) & known) for by in widths]
            best = [
                max(widths, key=[_pooled(one[:, half]) for one in counts].__getitem__)
                for half in (slice(0, None, 2), slice(1, None, 2))
            ]
            gain = _pooled(counts[min(best)]) - _pooled(counts[0])
            kept = exam.remember(f"{self.name} {index}", torch.tensor([float(min(best)), gain]))
        shift, gain = kept.tolist()
        return shift, gain if math.isfinite(gain) else 0.0


@register
class OutlineTooTight(_Outline):
    """Predictions that end before the class does, all along its outline."""

    name = "outline-too-tight"
    title = "The outline is drawn too tight"
    unit = "share of the band inside the true outline that is missed"
    remedy = (
        "Look whether the training masks are drawn tighter than these (another annotator, eroded "
        "masks, another resolution); if not, weigh the outline in the loss, or grow the prediction."
    )
    side = 1

    def _shares(self, exam: Examination, index: int) -> tuple[Tensor, Tensor]:
        depth = _depth(exam, index, inside=True)
        missed = exam.baseline.truth[:, index] & ~exam.baseline.predicted[:, index]
        band = (depth > 0) & (depth <= _band(exam))
        deep = depth > _band(exam)
        return _share(missed, band), _share(missed, deep)

    def _sentence(self, exam: Examination, index: int, effect: float, control: float) -> str:
        return (
            f"The outline of {exam.quoted(index)} is drawn too tight: {percent(effect)} of what "
            f"lies up to {pixels(round(_band(exam), 1))} inside its true outline is missed, and "
            f"{percent(control)} of what lies deeper"
        )


@register
class OutlineTooWide(_Outline):
    """Predictions that go beyond the class, all along its outline."""

    name = "outline-too-wide"
    title = "The outline is drawn too wide"
    unit = "share of the band outside the true outline that is overrun"
    remedy = (
        "Look whether the training masks are drawn wider than these (another annotator, dilated "
        "masks, another resolution); if not, weigh the outline in the loss, or shrink the "
        "prediction."
    )
    side = -1

    def _shares(self, exam: Examination, index: int) -> tuple[Tensor, Tensor]:
        away = _depth(exam, index, inside=False)
        extra = exam.baseline.predicted[:, index] & ~exam.baseline.truth[:, index]
        band = (away > 0) & (away <= _band(exam))
        behind = (away > 2 * _band(exam)) & (away <= 4 * _band(exam))
        return _share(extra, band), _share(extra, behind)

    def _sentence(self, exam: Examination, index: int, effect: float, control: float) -> str:
        band = _band(exam)
        return (
            f"The outline of {exam.quoted(index)} is drawn too wide: it covers {percent(effect)} "
            f"of what lies up to {pixels(round(band, 1))} outside its true outline, and "
            f"{percent(control)} of what lies {2 * band:.3g} to {pixels(round(4 * band, 1))} away"
        )


def _band(exam: Examination) -> float:
    return default_width(exam.size)


def _depth(exam: Examination, index: int, *, inside: bool) -> Tensor:
    """How far each pixel lies inside (outside) the class's true outline, (B, *spatial); else 0.

    Ignored pixels are neither inside nor outside, and images without the class have no outline.
    """
    name = f"depth {index} {inside}"
    kept = exam.remembered(name)
    if kept is None:
        known = exam.baseline.known.expand_as(exam.baseline.truth)[:, index]
        truth = exam.baseline.truth[:, index] & known
        side, other = (truth, known & ~truth) if inside else (known & ~truth, truth)
        reach = 4 * _band(exam) + 1
        distance = distance_transform(other, spatial_dims=len(exam.size), reach=reach)
        has_outline = truth.flatten(1).any(1) & (known & ~truth).flatten(1).any(1)
        shape = [-1, *[1] * len(exam.size)]
        kept = exam.remember(name, torch.where(side & has_outline.view(shape), distance, 0.0))
    return kept


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """(B,) float64; NaN where there is too little of the whole."""
    count = whole.flatten(1).sum(1).double()
    share = (part & whole).flatten(1).sum(1).double() / count
    return torch.where(count >= LEAST_PIXELS, share, torch.nan).cpu()


def _moved(masks: Tensor, by: float) -> Tensor:
    """Masks (N, *spatial) grown (by > 0) or shrunk by a distance in pixels."""
    dims = masks.ndim - 1
    if by >= 0:
        return distance_transform(masks, spatial_dims=dims, reach=max(1.0, by)) <= by
    return distance_transform(~masks, spatial_dims=dims, reach=max(1.0, -by)) > -by


def _counts(truth: Tensor, predicted: Tensor) -> Tensor:
    """Pixels in both and in either, (2, N) float64."""
    both = (truth & predicted).flatten(1).sum(1)
    return torch.stack((both, (truth | predicted).flatten(1).sum(1))).double().cpu()


def _pooled(counts: Tensor) -> float:
    both, either = counts.sum(dim=1).tolist()
    return both / either if either else math.nan
