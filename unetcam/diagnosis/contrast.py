"""Why one class is taken for another, as a picture: the contrast map of the confused pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from unetcam.cam import UNetCAM
from unetcam.diagnosis.examination import Examination
from unetcam.diagnosis.finding import Evidence
from unetcam.diagnosis.pictures import evidence_of
from unetcam.errors import LayerError, ModelError
from unetcam.models.loaded_model import LoadedModel
from unetcam.resizing import interpolated
from unetcam.targets import Contrast

#: The outlined pixels hold this share of the map.
_HELD = 0.5


def contrast_evidence(exam: Examination, image: int, index: int, other: int) -> Evidence:
    """One image in which pixels of a class are taken for another, and what speaks for that.

    The map is HiResCAM of the other class's logit less the class's own, over the confused pixels,
    at the encoder layer of the finest resolution. Of a function, and of a network whose layers
    can't be told, only the confused pixels are shown.
    """
    confused = exam.baseline.truth[image, index] & exam.baseline.predicted[image, other]
    where = f"Where {exam.quoted(index)} is taken for {exam.quoted(other)}"
    held, layer = _held(exam, image, confused, index, other)
    if held is None:
        return evidence_of(exam, image, f"{where}.", class_index=index, region=confused)
    caption = (
        f"{where}: the outlined pixels hold half of what speaks for {exam.quoted(other)} and "
        f"against {exam.quoted(index)} there (HiResCAM at '{layer}'). This is a picture, not a "
        "test."
    )
    return evidence_of(exam, image, caption, class_index=index, region=held, focus=confused)


def _held(
    exam: Examination, image: int, confused: Tensor, index: int, other: int
) -> tuple[Tensor | None, str]:
    """The fewest pixels that hold half of the map, (*spatial) bool, and the map's layer."""
    if not isinstance(exam.model, LoadedModel) or not bool(confused.any()):
        return None, ""
    given = exam.images[image][None]
    try:
        exam.model.look(given)
        layer = _finest_encoder_layer(exam.model)
        if layer is None:
            return None, ""
        target = Contrast(other, against=index, within=confused[None])
        with UNetCAM(exam.model, [layer], "hirescam", head=exam.predictor.head) as cam:
            exam.predictor.forwards += 1
            maps = cam(given, targets=[target]).maps[layer]
    except (LayerError, ModelError):
        return None, ""
    values = interpolated(torch.nan_to_num(maps), exam.size)[0, 0].flatten()
    order = values.argsort(descending=True)
    total = values.sum()
    if not total > 0:
        return None, ""
    before = values[order].cumsum(0) - values[order]
    held = torch.zeros_like(values, dtype=torch.bool)
    held[order] = before < _HELD * total
    return held.view(confused.shape), layer


def _finest_encoder_layer(model: LoadedModel) -> str | None:
    encoder = [one for one in model.table if one.stage == "encoder"]
    return min(encoder, key=lambda one: one.stride).name if encoder else None
