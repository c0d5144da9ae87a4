"""Evidence as pictures: an image before and after, and the class's masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unetcam.diagnosis.examination import Examination
from unetcam.diagnosis.finding import Evidence
from unetcam.interventions import fills
from unetcam.interventions.fills import Filling
from unetcam.interventions.regions import Regions


def evidence_of(
    exam: Examination,
    image: int,
    caption: str,
    *,
    class_index: int | None,
    after: Tensor | None = None,
    region: Tensor | None = None,
    mask_after: Tensor | None = None,
    focus: Tensor | None = None,
) -> Evidence:
    """What is to be seen in one image.

    Parameters
    ----------
    exam : Examination
    image : int
        Its number.
    caption : str
    class_index : int, optional
        Whose masks are shown; None for none.
    after : Tensor, optional
        (C, *spatial), the changed image; it is predicted unless `mask_after` is given.
    region : Tensor, optional
        (*spatial) bool, what was changed, or what is pointed at.
    mask_after : Tensor, optional
        (*spatial) bool.
    focus : Tensor, optional
        (*spatial) bool, by which the shown slice of a volume is chosen; the region by default.

    Returns
    -------
    Evidence
    """
    before = exam.images[image]
    truth = predicted = None
    if class_index is not None:
        truth = exam.baseline.truth[image, class_index]
        predicted = exam.baseline.predicted[image, class_index]
        if after is not None and mask_after is None:
            mask_after = exam.predictor(after[None]).masks[0, class_index]
    plane = _plane(next((one for one in (focus, region, truth) if one is not None), None))
    low, high = _range(before)
    return Evidence(
        image=exam.names[image],
        caption=caption,
        before=_picture(_cut(before, plane), low, high),
        after=None if after is None else _picture(_cut(after, plane), low, high),
        truth=_mask(truth, plane),
        mask_before=_mask(predicted, plane),
        mask_after=_mask(mask_after, plane),
        region=_mask(region, plane),
    )


def hidden_evidence(
    exam: Examination,
    index: int,
    regions: Regions,
    masks: Tensor,
    what: str,
    filling: Filling | None = None,
) -> Callable[[int], Evidence]:
    """Makes the evidence of an image with something hidden, by the first fill or another one.

    Parameters
    ----------
    exam : Examination
    index : int
        The class whose masks are shown.
    regions : Regions
        Of N images.
    masks : Tensor
        (N, *spatial) bool, what is hidden in each.
    what : str
        What is hidden, as the caption's beginning.
    filling : callable, optional
        The first of the examination's by default.
    """
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


def _plane(mask: Tensor | None) -> int | None:
    """Of a volume the slice along its first axis that holds most of a mask; None for an image."""
    if mask is None or mask.ndim < 3:
        return None
    return int(mask.flatten(1).sum(1).argmax())


def _cut(image: Tensor, plane: int | None) -> Tensor:
    if image.ndim < 4:
        return image
    return image[:, image.shape[1] // 2 if plane is None else plane]


def _mask(mask: Tensor | None, plane: int | None) -> NDArray[np.bool_] | None:
    if mask is None:
        return None
    shown = mask if mask.ndim < 3 else mask[mask.shape[0] // 2 if plane is None else plane]
    array: NDArray[np.bool_] = shown.cpu().numpy().astype(bool)
    return array


def _range(image: Tensor) -> tuple[Tensor, Tensor]:
    """Each channel's darkest and brightest, but for half a percent, (C,)."""
    order = image.detach().flatten(1).float().sort(dim=1).values
    last = order.shape[1] - 1
    low, high = order[:, round(0.005 * last)], order[:, round(0.995 * last)]
    return low, torch.where(high > low, high, low + 1)


def _picture(image: Tensor, low: Tensor, high: Tensor) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of (C, H, W): three channels as colours, otherwise the first as grey."""
    shape = [-1, 1, 1]
    scaled = ((image.detach().float() - low.view(shape)) / (high - low).view(shape)).clamp(0, 1)
    colours: Any = scaled if image.shape[0] == 3 else scaled[:1].expand(3, -1, -1)
    picture: NDArray[np.uint8] = (colours * 255).round().byte().movedim(0, -1).cpu().numpy()
    return np.ascontiguousarray(picture)
