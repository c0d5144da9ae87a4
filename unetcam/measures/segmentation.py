"""How good is the segmentation itself? The numbers that every map is read against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.map_stats import where_known
from unetcam.measures.regions import Geometry


def confusion(truth: Tensor, prediction: Tensor, num_classes: int) -> Tensor:
    """How many pixels of each true class are predicted as each class, ``(B, C, C)`` int64.

    Parameters
    ----------
    truth, prediction : Tensor
        ``(B, ...)`` class indices; -1 in the truth marks ignored pixels, which count nowhere. The
        prediction may be ``(B, C, ...)`` bool, of classes that don't exclude one another: then a
        pixel counts once for each class that is predicted.
    num_classes : int
        The number of classes C.

    Examples
    --------
    >>> import torch
    >>> confusion(torch.tensor([[0, 1, 1, -1]]), torch.tensor([[0, 0, 1, 1]]), 2)
    tensor([[[1, 0],
             [1, 1]]])
    """
    truth = truth.flatten(1).long()
    if prediction.dtype == torch.bool:
        kinds = torch.arange(num_classes, device=truth.device)[:, None]
        regions = (truth[:, None] == kinds).double()
        # Whole numbers: exact in double precision up to 2^53 pixels.
        return (regions @ prediction.flatten(2).double().mT).round().long()
    prediction = prediction.flatten(1).long()
    pairs = torch.where(truth < 0, num_classes, truth) * num_classes + prediction
    counts = pairs.new_zeros(len(pairs), (num_classes + 1) * num_classes)
    counts.scatter_add_(1, pairs, torch.ones_like(pairs))
    return counts.view(-1, num_classes + 1, num_classes)[:, :-1]


def quality_numbers(geometry: Geometry) -> dict[str, Tensor]:
    """The numbers of :func:`segmentation_quality` from a geometry that has the prediction."""
    if geometry.prediction is None:
        raise MeasureError("No prediction was given: hand it to Geometry or to the measure.")
    table = confusion(geometry.truth, geometry.prediction, geometry.num_classes)
    rows = table[:, list(geometry.classes)]
    truth, predicted = geometry.truth_pixels, geometry.predicted_pixels
    common = (geometry.inside & geometry.predicted_inside).sum(-1)
    both = truth + predicted
    return {
        "truth_pixels": truth,
        "predicted_pixels": predicted,
        "class_iou": where_known(geometry.present, common / (both - common).double()),
        "class_dice": where_known(geometry.present, 2 * common / both.double()),
        "present": geometry.present,
        "predicted": predicted > 0,
        **{f"predicted_as_{c}": rows[..., c] for c in range(geometry.num_classes)},
    }


@torch.no_grad()
def segmentation_quality(
    classes: Sequence[int], truth: Tensor, prediction: Tensor, *, num_classes: int
) -> dict[str, Tensor]:
    """How well each class is segmented in each image; no map is asked.

    Parameters
    ----------
    classes : sequence of int
        The T classes.
    truth, prediction : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices on the same device; -1 in the truth
        marks ignored pixels, which are left out of both.
    num_classes : int
        The number of classes C.

    Returns
    -------
    dict of str to Tensor
        Each ``(B, T)`` on the same device: ``truth_pixels`` and ``predicted_pixels`` (int64),
        ``class_iou`` (Jaccard index) and ``class_dice`` (Dice coefficient) of the prediction
        against the truth (float64; NaN where the truth lacks the class, 0 where only the
        prediction does), ``present`` and ``predicted`` (bool); and ``predicted_as_0`` ...
        ``predicted_as_{C-1}`` (int64), row i of the confusion matrix for class i: its pixels that
        are predicted as class j.

    Raises
    ------
    MeasureError
        If shapes or classes do not fit.

    Examples
    --------
    >>> import torch
    >>> truth, prediction = torch.tensor([[[0, 1, 1, -1]]]), torch.tensor([[[0, 0, 1, 1]]])
    >>> numbers = segmentation_quality([0, 1], truth, prediction, num_classes=2)
    >>> numbers["class_iou"]
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    >>> numbers["predicted_pixels"]
    tensor([[2, 1]])
    """
    return quality_numbers(Geometry(truth, classes, prediction, num_classes=num_classes))
