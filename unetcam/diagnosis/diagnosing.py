"""Ask a network everything that the registered kinds of findings ask, and judge the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unetcam.diagnosis.examination import Examination, Progress
from unetcam.diagnosis.examine import examined
from unetcam.diagnosis.finding import Diagnosis, Finding, TestRecord
from unetcam.diagnosis.registry import Kind, get, kinds
from unetcam.errors import DataError
from unetcam.interventions.effects import Baseline
from unetcam.interventions.fills import two_kinds
from unetcam.interventions.prediction import Head, predictor_of
from unetcam.models.loaded_model import LoadedModel

#: The stride that is taken where the model does not say.
_STRIDE = 16
_FILLS = ("mean", "noise", "other")
_SEVERITIES = ("high", "medium", "low")


def diagnose(
    model: Any,
    images: Any,
    truth: Any = None,
    *,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    fills: Sequence[str] | None = None,
    head: Head = "softmax",
    seed: int = 0,
    memory_budget: int | float | None = None,
    earlier: Diagnosis | None = None,
    keep: Callable[[Diagnosis], None] | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Test a network on images of one's own, and say what is wrong with it.

    First whether it is fed what it was made for; then what it gets wrong; then, by changing the
    images and predicting again, what it leans on. Forwards only, but for the maps that
    ``background-evidence`` looks at.

    Parameters
    ----------
    model : nn.Module, LoadedModel, or callable from images to logits
        Left as it was found.
    images : Tensor, array_like or sequence of them
        (N, C, *spatial), as the model takes them (normalised), 2-D or 3-D; all of one size.
    truth : Tensor, array_like or sequence of them, optional
        (N, *spatial) class indices, -1 where a pixel is ignored; with ``head="sigmoid"`` also
        (N, classes, *spatial) of 1 and 0. Without, only what needs no mask is asked: whether the
        images reach the network as those of its training did (``input-scaling``).
    classes : sequence of str
        The classes' names; of a one-channel network two.
    names : sequence of str, optional
        The images' names; ``image 0``, ``image 1``, ... by default.
    kinds : sequence of str, optional
        What to ask, by the names of :func:`unetcam.diagnosis.names`; everything by default.
    fills : sequence of str, optional
        With what pixels are hidden, by the names of :func:`unetcam.interventions.fills.names`; two
        must be of different look, and only what flips under two of different look counts. By
        default the mean, noise, and the same place of a very different image.
    head : {"softmax", "sigmoid"}
        Whether the classes exclude one another.
    seed : int
        Seeds samples, fills and intervals.
    memory_budget : int or float, optional
        Bytes, or a share of what is free; see :class:`~unetcam.UNetCAM`.
    earlier : Diagnosis, optional
        What came of kinds that were asked before, of the same network and images: they are taken
        over and not asked again, so that a diagnosis that was stopped can go on.
    keep : callable, optional
        Is given the diagnosis so far whenever a kind is through.
    progress : callable, optional
        Is told how many images were predicted and how many about will be, as two integers.

    Returns
    -------
    Diagnosis

    Raises
    ------
    DataError
        For images, truth or names that do not fit one another or the network.
    UnetcamError
        For an unknown kind or fill.

    Examples
    --------
    A network that never gives the second class:

    >>> import torch
    >>> images = torch.rand(4, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    >>> truth = torch.zeros(4, 24, 24, dtype=torch.long)
    >>> truth[:, 8:16, 8:16] = 1
    >>> def network(images):
    ...     return torch.cat((0 * images + 1, 0 * images), dim=1)
    >>> diagnosis = diagnose(network, images, truth, classes=["background", "cell"])
    >>> [(finding.kind, finding.class_name) for finding in diagnosis.findings]
    [('never-predicted', 'cell')]
    """
    start = time.perf_counter()
    chosen = _kinds(kinds)
    if isinstance(model, nn.Module):
        model = LoadedModel.of(model)
    predictor = predictor_of(model, head=head, memory_budget=memory_budget)
    forwards = predictor.forwards
    stacked = _stacked(images, "images", getattr(model, "device", None))
    if not stacked.is_floating_point():
        raise DataError(
            f"The images must be floating point, as the model takes them, and these are "
            f"{stacked.dtype}: convert and normalise them."
        )
    if fills is None:
        fills = _FILLS if len(stacked) > 1 else _FILLS[:2]
    two_kinds(fills)
    if truth is None:
        masks = torch.full((len(stacked), *stacked.shape[2:]), -1, device=stacked.device)
    else:
        masks = _stacked(truth, "ground truth", stacked.device).long()
    told, predictor.told = predictor.told, None
    baseline = Baseline.of(predictor, stacked, masks, predictor.head)
    if len(classes) != baseline.classes:
        raise DataError(
            f"There are {len(classes)} names of classes, but the network has {baseline.classes} "
            "classes: give one name for each."
        )
    image_names = names or [f"image {number}" for number in range(len(stacked))]
    if len(image_names) != len(stacked):
        raise DataError(
            f"There are {len(image_names)} names for {len(stacked)} images: give one for each."
        )
    exam = Examination(
        model=model,
        predictor=predictor,
        baseline=baseline,
        classes=tuple(map(str, classes)),
        names=tuple(map(str, image_names)),
        stride=_stride_of(model),
        fills=tuple(fills),
        seed=seed,
    )
    order = {kind.name: number for number, kind in enumerate(chosen)}

    def so_far(findings: Sequence[Finding], tests: Sequence[TestRecord]) -> Diagnosis:
        graded = sorted(
            findings,
            key=lambda one: (_SEVERITIES.index(one.severity), order[one.kind], -one.effect),
        )
        spent = predictor.forwards - forwards
        seconds = time.perf_counter() - start
        if earlier is not None:
            spent, seconds = spent + earlier.forwards, seconds + earlier.seconds
        return Diagnosis(tuple(graded), tuple(tests), seconds, spent)

    before = _taken_over(earlier, order)
    try:
        findings, tests = examined(
            exam,
            chosen,
            findings=before[0],
            tests=before[1],
            keep=None if keep is None else lambda *made: keep(so_far(*made)),
            progress=progress,
        )
    finally:
        predictor.told = told
    return so_far(findings, tests)


def _taken_over(
    earlier: Diagnosis | None, names: Collection[str]
) -> tuple[list[Finding], list[TestRecord]]:
    """The findings and records of an earlier diagnosis, of kinds that are asked for."""
    if earlier is None:
        return [], []
    return (
        [one for one in earlier.findings if one.kind in names],
        [one for one in earlier.tests if one.kind in names],
    )


def _stride_of(model: Any) -> int:
    """The network's stride in pixels, where a traced run tells it."""
    if isinstance(model, LoadedModel) and model.is_traced:
        return max(1, model.stride)
    return _STRIDE


def _kinds(names: Sequence[str] | None) -> tuple[Kind, ...]:
    if names is None:
        return kinds()
    chosen = {get(name).name for name in names}
    return tuple(kind for kind in kinds() if kind.name in chosen)


def _stacked(values: Any, what: str, device: torch.device | None) -> Tensor:
    """One tensor of what may be a list of tensors or arrays of one shape."""
    if isinstance(values, Tensor):
        stacked = values
    elif isinstance(values, (list, tuple)):
        rows = [
            torch.as_tensor(np.asarray(one)) if not isinstance(one, Tensor) else one
            for one in values
        ]
        shapes = {tuple(row.shape) for row in rows}
        if len(shapes) > 1:
            raise DataError(
                f"The {what} are of {len(shapes)} sizes, and a diagnosis compares pixels of one "
                "size: crop or resize them alike."
            )
        stacked = torch.stack(rows) if rows else torch.zeros(0)
    else:
        stacked = torch.as_tensor(np.asarray(values))
    if not len(stacked):
        raise DataError(f"There are no {what} to diagnose on: give at least one.")
    return stacked if device is None else stacked.to(device)
