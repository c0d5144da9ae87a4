"""Ask a network everything that the registered kinds of findings ask, and judge the answers."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unetcam.diagnosis.examination import Examination, Progress
from unetcam.diagnosis.finding import Diagnosis, Finding, TestRecord
from unetcam.diagnosis.registry import TURNS, Kind, Screened, Tested, get, kinds
from unetcam.errors import DataError
from unetcam.interventions.effects import Baseline, bootstrap_interval
from unetcam.interventions.fills import two_kinds
from unetcam.interventions.prediction import Head, predictor_of
from unetcam.models.loaded_model import LoadedModel

#: Images that are kept as evidence of a finding.
_SHOWN = 4
#: The stride that is taken where the model does not say.
_STRIDE = 16
_FILLS = ("mean", "noise", "other")
_SEVERITIES = ("high", "medium", "low")


def diagnose(
    model: Any,
    images: Any,
    truth: Any,
    *,
    classes: Sequence[str],
    names: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    fills: Sequence[str] | None = None,
    head: Head = "softmax",
    seed: int = 0,
    memory_budget: int | float | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Test a network on images of one's own, and say what is wrong with it.

    First whether it is fed what it was made for; then what it gets wrong; then, by changing the
    images and predicting again, what it leans on. Forwards only.

    Parameters
    ----------
    model : nn.Module, LoadedModel, or callable from images to logits
        Left as it was found.
    images : Tensor, array_like or sequence of them
        (N, C, *spatial), as the model takes them (normalised), 2-D or 3-D; all of one size.
    truth : Tensor, array_like or sequence of them
        (N, *spatial) class indices, -1 where a pixel is ignored; with ``head="sigmoid"`` also
        (N, classes, *spatial) of 1 and 0.
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
    progress : callable, optional
        Is told how many kinds of how many were asked, as two integers.

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
    asked = _kinds(kinds)
    if isinstance(model, nn.Module):
        model = LoadedModel.of(model)
    predictor = predictor_of(model, head=head, memory_budget=memory_budget)
    forwards = predictor.forwards
    stacked = _stacked(images, "images", getattr(model, "device", None))
    masks = _stacked(truth, "ground truth", stacked.device)
    if not stacked.is_floating_point():
        raise DataError(
            f"The images must be floating point, as the model takes them, and these are "
            f"{stacked.dtype}: convert and normalise them."
        )
    if fills is None:
        fills = _FILLS if len(stacked) > 1 else _FILLS[:2]
    two_kinds(fills)
    baseline = Baseline.of(predictor, stacked, masks.long(), predictor.head)
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
    findings, tests = _examined(exam, asked, progress)
    order = {kind.name: number for number, kind in enumerate(asked)}
    findings.sort(key=lambda one: (_SEVERITIES.index(one.severity), order[one.kind], -one.effect))
    return Diagnosis(
        tuple(findings),
        tuple(tests),
        time.perf_counter() - start,
        predictor.forwards - forwards,
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


def _examined(
    exam: Examination, asked: Sequence[Kind], progress: Progress | None
) -> tuple[list[Finding], list[TestRecord]]:
    findings: list[Finding] = []
    tests: list[TestRecord] = []
    done = 0
    for turn in TURNS:
        wrong_input = [one for one in findings if get(one.kind).turn == "input"]
        for kind in (one for one in asked if one.turn == turn):
            if wrong_input:
                tests.append(_quiet(kind, wrong_input[0]))
            else:
                for screened in kind.screen(exam):
                    record, finding = _answered(exam, kind, screened)
                    tests.append(record)
                    findings += [finding] if finding is not None else []
            done += 1
            if progress is not None:
                progress(done, len(asked))
    return findings, tests


def _quiet(kind: Kind, cause: Finding) -> TestRecord:
    reason = f"Not asked, because of '{cause.kind}': mend that first and diagnose again."
    return TestRecord(kind.name, None, "", 0, False, math.nan, math.nan, math.nan, reason)


@dataclass(frozen=True)
class Verdict:
    """What a test came to.

    Attributes
    ----------
    effect, control : float
        Means over images.
    interval : tuple of float
        The effect's 95 % interval.
    smallest : float
        The effect from which on so many images would have made a finding.
    confirmed : bool
    tested : int
        Images with an effect that could be measured.
    """

    effect: float
    control: float
    interval: tuple[float, float]
    smallest: float
    confirmed: bool
    tested: int


def judge(effects: Tensor, controls: Tensor, limit: float, margin: float, seed: int = 0) -> Verdict:
    """Whether effects are a finding: large enough, and above their controls for certain.

    Parameters
    ----------
    effects, controls : Tensor
        (n,) one per image; NaN where not measured. A control that could not be measured in an
        image is taken to be the mean of the others', and 0 without any.
    limit : float
        The least mean effect.
    margin : float
        By how much the lower end of the 95 % interval of effect less control must exceed zero.
    seed : int

    Returns
    -------
    Verdict

    Examples
    --------
    >>> import torch
    >>> effects, controls = torch.tensor([0.5, 0.6, 0.4]), torch.tensor([0.0, 0.1, 0.0])
    >>> verdict = judge(effects, controls, limit=0.2, margin=0.05)
    >>> verdict.confirmed, round(verdict.effect, 2)
    (True, 0.5)
    """
    kept = ~torch.isnan(effects)
    values, against = effects[kept].double(), controls[kept].double()
    count = len(values)
    if not count:
        return Verdict(math.nan, math.nan, (math.nan, math.nan), math.nan, False, 0)
    measured = against[~torch.isnan(against)]
    control = float(measured.mean()) if len(measured) else math.nan
    usual = control if len(measured) else 0.0
    difference = values - torch.nan_to_num(against, nan=usual)
    low, _ = bootstrap_interval(difference, seed)
    effect = float(values.mean())
    spread = float(difference.std(correction=1)) if count > 1 else 0.0
    least = usual + margin + 1.96 * spread / math.sqrt(count)
    return Verdict(
        effect,
        control,
        bootstrap_interval(values, seed),
        max(limit, least),
        effect >= limit and low >= margin,
        count,
    )


def _answered(
    exam: Examination, kind: Kind, screened: Screened
) -> tuple[TestRecord, Finding | None]:
    index = screened.class_index
    name = "" if index is None else exam.classes[index]
    if not screened.suspicious:
        values = screened.values[~torch.isnan(screened.values)]
        nothing = torch.full_like(values, torch.nan)
        verdict = judge(values, nothing, kind.limit, kind.margin, exam.seed)
        record = TestRecord(
            kind.name,
            index,
            name,
            verdict.tested,
            False,
            verdict.effect,
            math.nan,
            verdict.smallest,
            screened.reason,
        )
        return record, None
    tested = kind.test(exam, screened)
    limit = kind.limit if tested.limit is None else tested.limit
    verdict = judge(tested.effects, tested.controls, limit, kind.margin, exam.seed)
    reason = tested.claim(verdict.effect, verdict.control)
    if not verdict.confirmed:
        reason = _unconfirmed(verdict, limit)
    record = TestRecord(
        kind.name,
        index,
        name,
        verdict.tested,
        verdict.confirmed,
        verdict.effect,
        verdict.control,
        verdict.smallest,
        reason,
    )
    return record, _finding(exam, kind, screened, tested, verdict) if verdict.confirmed else None


def _unconfirmed(verdict: Verdict, limit: float) -> str:
    if not verdict.tested:
        return "The suspicion could not be tested on any image."
    if verdict.effect < limit:
        return (
            f"The effect of {verdict.effect:.2g} on {verdict.tested} images is below "
            f"{limit:.2g}, from which on it is called a finding."
        )
    return (
        f"The effect of {verdict.effect:.2g} on {verdict.tested} images is not above its control "
        f"of {verdict.control:.2g} for certain."
    )


def _finding(
    exam: Examination, kind: Kind, screened: Screened, tested: Tested, verdict: Verdict
) -> Finding:
    index = screened.class_index
    values = torch.nan_to_num(tested.effects, nan=-1.0)
    floor = 0.0 if math.isnan(verdict.control) else verdict.control
    order = [
        number for number in values.argsort(descending=True).tolist() if values[number] > floor
    ]
    numbers = [tested.image[number] for number in order]
    return Finding(
        kind=kind.name,
        class_index=index,
        class_name="" if index is None else exam.classes[index],
        severity=kind.severity(verdict.effect),
        claim=tested.claim(verdict.effect, verdict.control),
        effect=verdict.effect,
        effect_unit=tested.unit or kind.unit,
        control=verdict.control,
        interval=verdict.interval,
        images=tuple(exam.names[number] for number in numbers),
        tested=verdict.tested,
        fills=tested.fills,
        remedy=tested.remedy or kind.remedy,
        gain=tested.gain,
        evidence=tuple(tested.evidence(number) for number in numbers[:_SHOWN]),
        details=dict(tested.details),
    )


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
