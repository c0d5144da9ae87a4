"""Skips and paths of the decoder without which nothing changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.diagnosis.examination import LEAST_IMAGES, Examination
from unetcam.diagnosis.phrases import listed, on_images, percent
from unetcam.diagnosis.pictures import evidence_of
from unetcam.diagnosis.registry import Kind, Screened, Tested, Turn, register
from unetcam.engine.request import TapPoint
from unetcam.errors import LayerError, ModelError
from unetcam.interventions.stages import part_flips, part_means, parts_of
from unetcam.models.loaded_model import LoadedModel

#: Images over which what enters is averaged, and how many are predicted before a part is judged.
_AVERAGED, _AT_ONCE = 4, 2


@register
class StageUnused(Kind):
    """What enters a decoder stage by a skip or a path, and might as well be its mean."""

    name = "stage-unused"
    title = "A skip or path of the decoder is not used"
    unit = "share of the most affected class's right pixels that stay"
    remedy = (
        "Check that the connection is wired as meant (joined, not overwritten or zeroed, weights "
        "loaded); if it is, the network does as well without it and can be made smaller."
    )
    turn: Turn = "reliance"
    limit = 0.998
    grave = (2.0, 2.0)  # always low: nothing is predicted wrongly because of it

    def expected_forwards(self, exam: Examination) -> int:
        return _AVERAGED + 8 * _AT_ONCE if isinstance(exam.model, LoadedModel) else 0

    def screen(self, exam: Examination) -> Sequence[Screened]:
        cannot = self._unaskable(exam)
        if cannot is not None:
            return [Screened.unasked(None, cannot)]
        stays = self._stays(exam)
        if not stays:
            return [Screened.unasked(None, "The network has no skips or paths that can be told.")]
        unused = self._unused(stays)
        least = max(stays, key=lambda name: float(stays[name].nanmean()))
        share = 1 - float(stays[least].nanmean())
        reason = (
            f"Replacing what enters by '{least}' by its mean, the least of {len(stays)} that were "
            f"tried, flips {percent(share)} of the most affected class."
        )
        return [Screened(None, stays[least], bool(unused), reason)]

    def _unaskable(self, exam: Examination) -> str | None:
        if not isinstance(exam.model, LoadedModel):
            return "Only a network whose modules are at hand can be asked, and this is a function."
        if len(exam.mixed_sample) < LEAST_IMAGES:
            return f"Fewer than {LEAST_IMAGES} images hold right pixels of a class."
        try:
            exam.model.look(exam.images[:1])
        except (LayerError, ModelError) as error:
            return f"The network's stages can't be told: {error}"
        return None

    def _stays(self, exam: Examination) -> dict[str, Tensor]:
        """By part, (images,): the share that stays of the class that loses most.

        NaN in images that were not looked at, because the others had decided that the part counts.
        """
        assert isinstance(exam.model, LoadedModel)
        names = exam.model.table.parts
        kept = {name: exam.remembered(f"{self.name} {name}") for name in names}
        if not any(one is not None for one in kept.values()):
            images = exam.mixed_sample_extended
            image = torch.tensor(images, device=exam.images.device, dtype=torch.long)
            points = parts_of(exam.model, exam.images[:1])
            few = exam.images[image[:_AVERAGED]]
            for name, mean in part_means(exam.model, points, exam.predictor, few).items():
                stays = self._part_stays(exam, image, name, points[name], mean)
                kept[name] = exam.remember(f"{self.name} {name}", stays)
        return {name: one for name, one in kept.items() if one is not None}

    def _part_stays(
        self, exam: Examination, image: Tensor, name: str, point: TapPoint, mean: Tensor
    ) -> Tensor:
        stays = torch.full((len(image),), torch.nan, dtype=torch.float64)
        for at in torch.split(torch.arange(len(image)), _AT_ONCE):
            if float((1 - stays).nansum()) > (1 - self.limit) * len(image):
                break  # the mean over all can't reach the limit any more
            flips = part_flips(exam.predictor, exam.baseline, image[at], name, point, mean).cpu()
            most = torch.nan_to_num(flips[:, list(exam.present)], nan=0.0).amax(dim=1)
            stays[at] = 1 - most
        return stays

    def _unused(self, stays: dict[str, Tensor]) -> list[str]:
        # Where not all images were looked at the mean is NaN, which reaches no limit.
        return [name for name, one in stays.items() if float(one.mean()) >= self.limit]

    def test(self, exam: Examination, suspect: Screened) -> Tested:
        stays = self._stays(exam)
        unused = self._unused(stays)
        used = [one for name, one in stays.items() if name not in unused]
        effects = min((stays[name] for name in unused), key=lambda one: float(one.mean()))
        # The others were looked at on images of their own number, so by image they don't compare.
        usual = sum(float(one.nanmean()) for one in used) / len(used) if used else torch.nan
        controls = torch.full_like(effects, usual)
        names = listed([f"'{name}'" for name in unused])
        count = min(_AVERAGED, len(exam.mixed_sample_extended))

        several = len(unused) > 1
        # Taken out together they were not tried.
        use = "can be done without, one at a time" if several else "is not used"
        at_least = "at least " if several else ""

        def claim(effect: float, control: float) -> str:
            others = (
                f"; replacing one of the other {len(used)} leaves {percent(control)} on average"
                if used
                else ""
            )
            return (
                f"What enters the decoder by {names} {use}: replacing it by its mean over "
                f"{on_images(count)} leaves {at_least}{100 * effect:.1f} % of the right "
                f"pixels of the class that loses most as they were{others}."
            )

        return Tested(
            image=exam.mixed_sample_extended,
            effects=effects,
            controls=controls,
            claim=claim,
            evidence=lambda image: evidence_of(
                exam,
                image,
                f"Its prediction is the same without what enters by {names}.",
                class_index=None,
            ),
            details={f"stays_{name}": float(one.nanmean()) for name, one in stays.items()},
        )
