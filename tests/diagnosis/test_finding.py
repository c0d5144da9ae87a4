"""Findings are plain values that survive a file."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from unetcam.diagnosis import Diagnosis, Evidence, Finding, TestRecord
from unetcam.errors import DataError

FINDING = Finding(
    "leans-on-surroundings",
    2,
    "cell",
    "high",
    "Hiding it costs 'cell' 40 % of its pixels.",
    0.4,
    "share of the class's pixels that flip",
    math.nan,
    (0.3, 0.5),
    ("a.png", "b.png"),
    24,
    ("mean", "noise"),
    "Break the link in training.",
    None,
    (Evidence("a.png", "A window is hidden.", before=np.zeros((4, 4, 3), np.uint8)),),
    {"window": 12.0, "strongest place": "upper left", "unknown": math.nan},
)
RECORD = TestRecord("stage-unused", None, "", 8, False, 0.02, math.nan, 0.1, "No stage is idle.")
DIAGNOSIS = Diagnosis((FINDING,), (RECORD,), 2.5, 480)


def equal(one: Any, other: Any) -> bool:
    """As ==, with NaN equal to itself."""
    return repr(replace(one, evidence=()) if isinstance(one, Finding) else one) == repr(other)


def test_a_diagnosis_comes_back_from_json_without_its_pictures() -> None:
    text = json.dumps(DIAGNOSIS.to_dict(), allow_nan=False)
    again = Diagnosis.from_dict(json.loads(text))
    assert equal(FINDING, again.findings[0])
    assert equal(RECORD, again.tests[0])
    assert (again.seconds, again.forwards) == (2.5, 480)
    assert again.findings[0].evidence == ()


def test_what_a_later_version_adds_is_passed_over() -> None:
    values = DIAGNOSIS.to_dict()
    values["findings"][0]["colour"] = "red"
    assert equal(FINDING, Diagnosis.from_dict(values).findings[0])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.pop("findings"),
        lambda values: values.update(findings=3),
        lambda values: values.update(findings=["text"]),
        lambda values: values["findings"][0].pop("claim"),
        lambda values: values["findings"][0].update(severity="dreadful"),
        lambda values: values["findings"][0].update(interval=[1.0]),
        lambda values: values["findings"][0].update(details=[1]),
        lambda values: values["tests"][0].update(effect="much"),
        lambda values: values.update(seconds=None),
        lambda values: values.update(schema=0),
    ],
)
def test_spoilt_values_are_refused_with_one_sentence(spoil: Any) -> None:
    values = json.loads(json.dumps(DIAGNOSIS.to_dict()))
    spoil(values)
    with pytest.raises(DataError, match=r"diagnose the network again\.$"):
        Diagnosis.from_dict(values)


@pytest.mark.parametrize("values", [None, 3, [], "text"])
def test_what_is_no_mapping_is_refused(values: Any) -> None:
    with pytest.raises(DataError, match="no diagnosis that unetcam wrote"):
        Diagnosis.from_dict(values)


def test_a_diagnosis_reads_as_the_list_of_its_findings() -> None:
    assert list(DIAGNOSIS) == [FINDING]
    assert len(DIAGNOSIS) == 1
    assert DIAGNOSIS.of_kind("leans-on-surroundings") == (FINDING,)
    assert DIAGNOSIS.of_kind("stage-unused") == ()
    assert not Diagnosis((), (RECORD,), 1.0, 1)


def test_a_finding_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        FINDING.effect = 0.0  # type: ignore[misc]
