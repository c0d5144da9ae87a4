"""A skip or path of the decoder without which nothing changes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.interventions.test_stages import Joined
from unetcam.diagnosis import Diagnosis, diagnose


def scenes(count: int = 8) -> tuple[Tensor, Tensor]:
    images = torch.zeros(count, 2, 16, 16)
    truth = torch.zeros(count, 16, 16, dtype=torch.long)
    for number in range(count):
        top = number % 4
        images[number, 0, top : top + 5, 3:9] = 1.0
        truth[number, top : top + 5, 3:9] = 1
        images[number, 1, 12:16, 4:12] = 1.0
        truth[number, 12:16, 4:12] = 2
    return images, truth


def asked(*, skip: bool = True, path: bool = True) -> Diagnosis:
    network = Joined()
    with torch.no_grad():
        if not skip:
            network.dec.weight[:, 2:] = 0
        if not path:
            network.dec.weight[:, :2] = 0
    images, truth = scenes()
    return diagnose(network, images, truth, classes=("ground", "a", "b"), kinds=["stage-unused"])


def test_a_skip_that_changes_nothing_is_named_beside_the_path_that_does() -> None:
    (finding,) = asked(skip=False).findings
    assert finding.kind == "stage-unused"
    assert finding.severity == "low"
    assert "'dec:skip'" in finding.claim
    assert "'dec:path'" not in finding.claim
    assert finding.effect == 1.0
    assert finding.control == 0.0
    assert finding.details["stays_dec:path"] == 0.0
    assert finding.tested == 8


def test_a_path_that_changes_nothing_is_named() -> None:
    (finding,) = asked(path=False).findings
    assert "'dec:path'" in finding.claim
    assert finding.control == 0.0


def test_parts_that_are_used_are_none_and_need_few_images() -> None:
    diagnosis = asked()
    assert diagnosis.findings == ()
    (record,) = diagnosis.tests
    assert record.tested == 2
    assert record.effect == 0.0
    assert record.smallest_effect == 0.998
    # 8 as they are, 4 for the mean, and two without each of two parts.
    assert diagnosis.forwards == 8 + 4 + 2 * 2


def test_a_function_has_no_stages() -> None:
    images, truth = scenes()
    network = Joined()
    diagnosis = diagnose(
        lambda given: network(given), images, truth, classes=("ground", "a", "b"),
        kinds=["stage-unused"],
    )  # fmt: skip
    (record,) = diagnosis.tests
    assert record.tested == 0
    assert math.isnan(record.effect)
    assert "function" in record.reason
