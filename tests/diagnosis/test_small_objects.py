"""Small objects that are missed while large ones are found, and what enlarging shows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from unetcam.diagnosis import Diagnosis, Finding, diagnose

KIND = "small-objects-missed"


def scenes(count: int = 6) -> tuple[Tensor, Tensor]:
    """In each image of 48 x 48 two squares of 3, one of 5 and two of 10 pixels a side."""
    images = torch.zeros(count, 1, 48, 48)
    truth = torch.zeros(count, 48, 48, dtype=torch.long)
    for number in range(count):
        left = 2 + number
        for top, side in ((2, 3), (10, 3), (16, 5), (24, 10), (36, 10)):
            truth[number, top : top + side, left : left + side] = 1
    images[:, 0] = truth.float()
    return images, truth


def opened(by: int) -> object:
    """A network that sees only what a window of `2 * by + 1` pixels fits into."""

    def network(images: Tensor) -> Tensor:
        side = 2 * by + 1
        eroded = -F.max_pool2d(-images, side, 1, by)
        inside = F.max_pool2d(eroded, side, 1, by) - 0.5
        return torch.cat((-inside, inside), dim=1)

    return network


def asked(network: object, images: Tensor, truth: Tensor) -> Diagnosis:
    return diagnose(network, images, truth, classes=("ground", "cell"), kinds=[KIND])


def finding_of(by: int) -> Finding:
    (finding,) = asked(opened(by), *scenes()).findings
    return finding


def test_small_objects_that_are_missed_are_told_with_the_large_ones_as_control() -> None:
    finding = finding_of(2)
    assert (finding.kind, finding.class_name) == (KIND, "cell")
    assert finding.effect == 1.0
    assert finding.control == 0.0
    assert finding.details["objects"] == 30.0
    assert finding.details["median_pixels_small"] == 9.0
    assert finding.details["median_pixels_large"] == 100.0
    # They are 18 of 243 pixels of the class: however many are missed, it costs little.
    assert finding.severity == "low"
    assert finding.evidence[0].region is not None
    assert finding.evidence[0].region.sum() == 18


@pytest.mark.parametrize(("by", "missed"), [(2, 0.0), (4, 1.0)])
def test_enlarging_is_advised_where_it_finds_them_and_nowhere_else(by: int, missed: float) -> None:
    finding = finding_of(by)
    assert finding.details["missed_when_enlarged"] == missed
    assert ("higher resolution" in finding.remedy) == (missed == 0.0)
    assert f"and {100 * missed:.0f} % where the image is given at twice its size" in finding.claim
    assert "in 4 of these images 100 % of the small ones are not found" in finding.claim


def test_enlarging_is_not_advised_where_it_only_makes_the_network_claim_more() -> None:
    images, truth = scenes()

    def network(given: Tensor) -> Tensor:
        opened_logits = opened(2)(given)  # type: ignore[operator]
        if given.shape[-1] == images.shape[-1]:
            return torch.as_tensor(opened_logits)
        wide = F.max_pool2d(given, 13, 1, 6) - 0.5
        return torch.cat((-wide, wide), dim=1)

    (finding,) = asked(network, images, truth).findings
    assert finding.details["missed_when_enlarged"] == 0.0
    assert float(finding.details["iou_change_when_enlarged"]) < -0.2
    assert "higher resolution" not in finding.remedy


def test_where_small_objects_are_found_there_is_no_finding() -> None:
    diagnosis = asked(opened(1), *scenes())
    assert diagnosis.findings == ()
    (record,) = (one for one in diagnosis.tests if one.class_index == 1)
    assert record.tested == 5  # the smallest ten of thirty lie in five images
    assert record.effect == 0.0


@pytest.mark.parametrize(("keep", "said"), [(2, "15 are needed"), (6, "much the same size")])
def test_too_few_objects_and_objects_of_one_size_are_not_asked_about(keep: int, said: str) -> None:
    images, truth = scenes()
    if keep == 6:
        images = torch.zeros_like(images)
        truth = torch.zeros_like(truth)
        for top in (2, 10, 18, 26):
            truth[:, top : top + 4, 4:8] = 1
        images[:, 0] = truth.float()
    diagnosis = asked(opened(2), images[:keep], truth[:keep])
    (record,) = (one for one in diagnosis.tests if one.class_index == 1)
    assert record.tested == 0
    assert said in record.reason
