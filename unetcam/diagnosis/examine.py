"""Ask a network one kind of question after the other, and judge the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from unetcam.diagnosis.examination import Examination, Progress
from unetcam.diagnosis.finding import Finding, TestRecord
from unetcam.diagnosis.registry import TURNS, Kind, Screened, Tested, get
from unetcam.diagnosis.verdict import Verdict, judge, unconfirmed

#: Images that are kept as evidence of a finding.
_SHOWN = 4
#: Is given the findings and the records so far whenever a kind is through.
Keep = Callable[[Sequence[Finding], Sequence[TestRecord]], None]


def examined(
    exam: Examination,
    kinds: Sequence[Kind],
    *,
    findings: Sequence[Finding] = (),
    tests: Sequence[TestRecord] = (),
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> tuple[list[Finding], list[TestRecord]]:
    """Ask every kind, in turn.

    Parameters
    ----------
    exam : Examination
    kinds : sequence of Kind
        In the order in which they are asked.
    findings, tests : sequence of Finding, TestRecord
        What came of kinds that were asked before; they are not asked again.
    keep : callable, optional
    progress : callable, optional
        Is told how many images were predicted, and how many will be if nothing is suspicious.
    """
    made, records = list(findings), list(tests)
    before = {one.kind for one in records}
    left = [one for turn in TURNS for one in kinds if one.turn == turn and one.name not in before]
    predictor = exam.predictor
    for number, kind in enumerate(left):
        rest = sum(one.expected_forwards(exam) for one in left[number:])
        expected = predictor.forwards + rest
        if progress is not None:
            predictor.told = partial(_tell, progress, max(1, expected))
            predictor.told(predictor.forwards)
        cause = next((one for one in made if _silences(one)), None)
        if cause is not None and kind.turn != "input":
            records.append(_quiet(kind, cause))
        elif kind.needs_truth and not exam.has_truth:
            records.append(_unasked(kind, "There are no masks that it could be tested against."))
        else:
            for screened in kind.screen(exam):
                record, finding = _judged(exam, kind, screened)
                records.append(record)
                made += [finding] if finding is not None else []
        if keep is not None:
            keep(made, records)
    if progress is not None:
        _tell(progress, max(1, predictor.forwards), predictor.forwards)
    return made, records


def _tell(progress: Progress, expected: int, done: int) -> None:
    progress(done, max(done, expected))


def _silences(finding: Finding) -> bool:
    """Whether everything else would describe a network that is fed wrongly.

    Another form of the images that makes a good network a little better says nothing against it.
    """
    return get(finding.kind).turn == "input" and finding.severity != "low"


def _quiet(kind: Kind, cause: Finding) -> TestRecord:
    return _unasked(
        kind, f"Not asked, because of '{cause.kind}': mend that first and diagnose again."
    )


def _unasked(kind: Kind, reason: str) -> TestRecord:
    return TestRecord(kind.name, None, "", 0, False, math.nan, math.nan, math.nan, reason)


def _judged(exam: Examination, kind: Kind, screened: Screened) -> tuple[TestRecord, Finding | None]:
    index = screened.class_index
    name = "" if index is None else exam.classes[index]
    if not screened.suspicious:
        values = screened.values[~torch.isnan(screened.values)]
        nothing = torch.full_like(values, torch.nan)
        limit = kind.limit if screened.limit is None else screened.limit
        verdict = judge(values, nothing, limit, kind.margin, exam.seed)
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
    margin = kind.margin if tested.margin is None else tested.margin
    verdict = judge(tested.effects, tested.controls, limit, margin, exam.seed)
    reason = tested.claim(verdict.effect, verdict.control)
    if not verdict.confirmed:
        reason = unconfirmed(verdict, limit)
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
