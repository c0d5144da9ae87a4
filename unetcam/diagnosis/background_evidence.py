"""Spots of a class's map that lie away from it, and that hiding shows it to need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.cam import UNetCAM
from unetcam.diagnosis.examination import FIRST, LEAST_IMAGES, Examination, surely_below
from unetcam.diagnosis.phrases import percent, pixels
from unetcam.diagnosis.pictures import hidden_evidence
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.errors import LayerError, ModelError
from unetcam.interventions.hiding import moved
from unetcam.interventions.regions import LEAST_PIXELS, Regions
from unetcam.models.loaded_model import LoadedModel
from unetcam.resizing import averaged

#: The spot's side is at least this share of the shortest side, as that of the finest windows.
_SIDE = 1 / 10
#: A cell of which less than this share may be hidden is none outside the class and its band.
_OUTSIDE = 0.5
#: What must flip on average under the first fill for a spot to be tested.
_WORTH_A_TEST = 0.1


@dataclass(frozen=True, eq=False)
class _Spots:
    """The brightest spot outside a class, by image: what is hidden, (N, *spatial) bool."""

    images: list[int]
    masks: Tensor


@register
class BackgroundEvidence(Kind):
    """Spots that a class's Grad-CAM map shows away from the class, and that it does need."""

    name = "background-evidence"
    title = "A class rests on a spot that its map shows away from it"
    unit = "share of the class's right pixels that flip"
    remedy = (
        "Look at what stands in the spot: hide or replace it in training (augmentation, other "
        "backgrounds), so that the class is learned without it."
    )
    turn: Turn = "reliance"
    limit = 0.2
    grave = (0.3, 0.6)

    def expected_forwards(self, exam: Examination) -> int:
        return len(exam.mixed_sample) + FIRST * exam.surrounded

    def screen(self, exam: Examination) -> Sequence[Screened]:
        cannot = self._unaskable(exam)
        if cannot is not None:
            return [Screened.unasked(None, cannot)]
        rows = []
        for index in exam.present:
            why_not = exam.unaskable(index, surroundings=True)
            spots = None if why_not is not None else self._spots(exam, index)
            if spots is None:
                reason = why_not or (
                    f"Fewer than {LEAST_IMAGES} maps of {exam.quoted(index)} show anything away "
                    "from it."
                )
                rows.append(Screened.unasked(index, reason))
                continue
            flips = self._once(exam, index, spots)
            share = float(flips.nanmean())
            reason = (
                f"Hiding the brightest spot of its map outside {exam.quoted(index)} flips "
                f"{percent(share)} of it."
            )
            rows.append(Screened(index, flips, share >= _WORTH_A_TEST, reason))
        return rows

    def _unaskable(self, exam: Examination) -> str | None:
        if not isinstance(exam.model, LoadedModel):
            return "Only a network whose modules are at hand has maps, and this is a function."
        try:
            exam.model.look(exam.images[:1])
        except (LayerError, ModelError) as error:
            return f"The network's layers can't be told: {error}"
        if not exam.model.table.decoder:
            return "The network has no decoder layer whose maps could be looked at."
        return None

    @staticmethod
    def _layer(exam: Examination) -> str:
        """The decoder layer whose cells are nearest to the finest windows' size."""
        assert isinstance(exam.model, LoadedModel)
        strides = exam.model.table.strides
        side = max(1.0, min(exam.size) * _SIDE)
        decoder = exam.model.table.decoder
        return min(decoder, key=lambda name: abs(torch.tensor(strides[name] / side).log().item()))

    def _maps(self, exam: Examination, images: Sequence[int]) -> Tensor:
        """(images, classes, *layer_spatial), Grad-CAM of every class, each image's made once."""
        kept = exam.remembered(self.name)
        size = len(exam.names)
        known = exam.remembered(f"{self.name} images")
        known = torch.zeros(size, dtype=torch.bool) if known is None else known
        missing = [image for image in images if not known[image]]
        if missing:
            maps = self._explained(exam, missing)
            if kept is None:
                kept = torch.full((size, *maps.shape[1:]), torch.nan)
            kept[missing] = maps
            known[missing] = True
            exam.remember(self.name, kept)
            exam.remember(f"{self.name} images", known)
        assert kept is not None
        return kept[list(images)]

    def _explained(self, exam: Examination, images: Sequence[int]) -> Tensor:
        layer, predictor = self._layer(exam), exam.predictor

        def explained(given: Tensor) -> Tensor:
            with UNetCAM(exam.model, [layer], head=predictor.head) as cam:
                predictor.forwards += len(given)
                return cam(given).maps[layer].float().cpu()

        rows = exam.images[list(images)]
        return torch.cat(predictor.in_chunks(explained, rows, rows))

    def _spots(
        self, exam: Examination, index: int, sample: Sequence[int] | None = None
    ) -> _Spots | None:
        right = exam.right_pixels[:, index] >= LEAST_PIXELS
        images = [one for one in (exam.mixed_sample if sample is None else sample) if right[one]]
        if not images:
            return None
        surroundings = exam.regions(index, images).surroundings
        maps = self._maps(exam, images)[:, index]
        size = maps.shape[1:]
        outside = averaged(surroundings.all[:, None].float(), size)[:, 0].cpu() >= _OUTSIDE
        masked = torch.where(outside & ~torch.isnan(maps), maps, 0.0).flatten(1)
        brightest, cell = masked.max(dim=1)
        masks = _boxes(cell, size, exam.size).to(surroundings.distance.device) & surroundings.all
        shown = brightest > 0
        if int(shown.sum()) < LEAST_IMAGES and sample is None:
            return None
        kept = [image for image, one in zip(images, shown.tolist(), strict=True) if one]
        return _Spots(kept, masks[shown.to(masks.device)])

    def _once(self, exam: Examination, index: int, spots: _Spots) -> Tensor:
        regions = exam.regions(index, spots.images)
        flips = torch.full((len(regions),), torch.nan, dtype=torch.float64)
        for at in (slice(0, FIRST), slice(FIRST, None)):
            numbers = torch.arange(len(regions))[at]
            if not len(numbers) or surely_below(flips, _WORTH_A_TEST):
                break
            there = numbers.to(spots.masks.device)
            flips[numbers] = exam.hiding_once(regions.chosen(there), spots.masks[there])
        return flips

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        index = suspect.class_index
        assert index is not None
        first = self._spots(exam, index)
        assert first is not None
        further = self._spots(
            exam, index, exam.mixed_sample_extended[len(exam.mixed_sample) :]
        ) or _Spots([], first.masks[:0])
        images = [*first.images, *further.images]
        masks = torch.cat((first.masks, further.masks))
        regions = exam.regions(index, images)
        unknown = torch.full((len(further.images),), torch.nan, dtype=torch.float64)
        effects = self._agreed(exam, regions, masks, torch.cat((suspect.values, unknown)))
        controls = torch.full_like(effects, torch.nan)
        if float(effects.nanmean()) >= self.limit:
            controls = exam.hiding(regions, moved(masks, regions.surroundings))
        layer = self._layer(exam)
        side = round(max(_sides(exam.size, self._maps(exam, images).shape[2:])))

        def claim(effect: float, control: float) -> str:
            elsewhere = (
                f"; hiding the same shape elsewhere turns {percent(control)}"
                if control == control
                else ""
            )
            return (
                f"{exam.quoted(index)} rests on the brightest spot that its Grad-CAM map at "
                f"'{layer}' shows away from it: hiding that spot (up to {side} by "
                f"{pixels(side)}; it and a band of "
                f"{pixels(round(regions.surroundings.band, 1))} stay untouched) turns "
                f"{percent(effect)} of its right pixels into something else{elsewhere}."
            )

        return Tested(
            image=images,
            effects=effects,
            controls=controls,
            claim=claim,
            evidence=hidden_evidence(
                exam, index, regions, masks, "The map's brightest spot outside is hidden"
            ),
            fills=exam.fills,
            details={"layer": layer, "spot_side": float(side)},
        )

    @staticmethod
    def _agreed(exam: Examination, regions: Regions, masks: Tensor, first: Tensor) -> Tensor:
        """What flips as far as fills agree; the first fill is measured where it was not yet."""
        missing = torch.isnan(first).nonzero()[:, 0]
        if len(missing):
            there = missing.to(masks.device)
            first = first.clone()
            first[missing] = exam.hiding_once(regions.chosen(there), masks[there])
        return exam.hiding(regions, masks, torch.nan_to_num(first))


def _sides(size: Sequence[int], cells: Sequence[int]) -> list[float]:
    """A spot's sides along each axis in pixels: a cell's, and at least a tenth of the shortest."""
    least = max(1.0, min(size) * _SIDE)
    return [max(least, side / count) for side, count in zip(size, cells, strict=True)]


def _boxes(cell: Tensor, cells: Sequence[int], size: Sequence[int]) -> Tensor:
    """A box around cells (N,) of a layer's map, by their flat numbers, as (N, *size) bool."""
    masks = torch.ones(1, dtype=torch.bool)
    for axis, (side, count) in enumerate(zip(_sides(size, cells), cells, strict=True)):
        step = 1
        for later in cells[axis + 1 :]:
            step *= later
        centre = ((cell // step) % count + 0.5) * size[axis] / count
        at = torch.arange(size[axis]) + 0.5
        inside = (at - centre[:, None]).abs() <= side / 2
        shape = [len(cell), *[1] * len(size)]
        shape[axis + 1] = size[axis]
        masks = masks & inside.view(shape)
    return masks
