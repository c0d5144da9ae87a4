"""Each kind of finding, on networks that have its fault by construction and on ones that don't."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.interventions.networks import SIZE, by_itself, scenes
from unetcam.diagnosis import Diagnosis, diagnose

CLASSES = ("background", "square")


def squares(count: int = 8) -> tuple[Tensor, Tensor]:
    images, truth = scenes(count, cue=False)
    return images, (truth > 0).long()


def of(network: Callable[[Tensor], Tensor], *kinds: str) -> Diagnosis:
    images, truth = squares()
    return diagnose(network, images, truth, classes=CLASSES, kinds=kinds or None)


def grown(by: int) -> Callable[[Tensor], Tensor]:
    """The square's logits, grown or shrunk by some pixels."""

    def network(images: Tensor) -> Tensor:
        inside = images[:, :1]
        side = 2 * abs(by) + 1
        if by > 0:
            inside = F.max_pool2d(inside, side, 1, by)
        elif by < 0:
            inside = -F.max_pool2d(-inside, side, 1, -by)
        return torch.cat((0.5 - inside, inside - 0.5), dim=1)

    return network


@pytest.mark.parametrize(("by", "kind"), [(-2, "outline-too-tight"), (2, "outline-too-wide")])
def test_an_outline_that_is_off_is_found_with_what_moving_it_gains(by: int, kind: str) -> None:
    diagnosis = of(grown(by))
    (finding,) = diagnosis.of_kind(kind)
    assert {one.kind for one in diagnosis} <= {kind, "poorly-learned"}
    assert finding.class_name == "square"
    assert finding.effect > 0.9
    assert finding.control < 0.5  # two pixels are eroded, and the band is 1.6 wide
    assert finding.details["shift_pixels"] == -by
    area, side = 120, (10 + 2 * by) * (12 + 2 * by)
    before = min(area, side) / max(area, side)
    assert finding.gain == pytest.approx(1 - before, abs=0.15)
    (evidence, *_) = finding.evidence
    assert evidence.mask_after is not None
    assert evidence.mask_before is not None
    assert (evidence.mask_after.sum() > evidence.mask_before.sum()) == (by < 0)


@pytest.mark.parametrize("by", [0, -1, 1])
def test_an_outline_that_is_off_by_a_pixel_at_most_is_not_too_wide_and_too_tight(by: int) -> None:
    kinds = {one.kind for one in of(grown(by), "outline-too-tight", "outline-too-wide")}
    assert len(kinds) <= abs(by)


def test_a_class_of_lines_has_no_outline_to_ask_about() -> None:
    images, truth = squares()
    truth = torch.zeros_like(truth)
    truth[:, 20] = 1
    diagnosis = diagnose(by_itself, images, truth, classes=CLASSES, kinds=["outline-too-tight"])
    (record,) = (one for one in diagnosis.tests if one.class_index == 1)
    assert record.tested == 0
    assert "nearly all outline" in record.reason


def test_a_class_that_hangs_on_the_contrast_of_the_whole_image() -> None:
    images, truth = squares()
    images = images * torch.linspace(0.8, 1.3, 8).view(-1, 1, 1, 1)

    def network(given: Tensor) -> Tensor:
        inside = given[:, 0] - 0.4 - 5 * (given[:, 1].std(dim=(1, 2)).view(-1, 1, 1) < 0.0145)
        return torch.stack((-inside, inside), dim=1)

    found = diagnose(network, images, truth, classes=CLASSES, kinds=["leans-on-appearance"])
    (finding,) = found.findings
    assert finding.details["change"] in ("blurred", "less contrast")
    assert finding.effect > 0.5
    assert finding.evidence[0].after is not None


def test_a_class_that_needs_another_one() -> None:
    images = torch.zeros(8, 2, *SIZE)
    truth = torch.zeros(8, *SIZE, dtype=torch.long)
    for number in range(8):
        top = 4 + number
        images[number, 0, top : top + 10, 8:18] = 1.0  # the shadow
        truth[number, top : top + 10, 8:18] = 1
        images[number, 1, top + 22 : top + 32, 40:52] = 1.0  # the cloud, far away
        truth[number, top + 22 : top + 32, 40:52] = 2

    def network(given: Tensor) -> Tensor:
        cloud = given[:, 1]
        area = (cloud - 0.5).relu().sum(dim=(1, 2)).view(-1, 1, 1) / 60
        shadow = given[:, 0] + area.clamp(max=1) - 1.5
        return torch.stack((torch.zeros_like(shadow), shadow, cloud - 0.5), dim=1)

    diagnosis = diagnose(network, images, truth, classes=("ground", "shadow", "cloud"))
    (finding,) = diagnosis.of_kind("leans-on-class")
    assert finding.class_name == "shadow"
    assert finding.details["other_class"] == "cloud"
    assert finding.effect == 1.0
    assert finding.control == 0.0
    assert "leans on 'cloud'" in finding.claim


def test_the_kind_of_surroundings_a_class_stands_in() -> None:
    """Stripes or none behind the square: no fill looks like either, other images do."""
    images, truth = squares()
    stripes = (torch.arange(SIZE[1]) % 2).float() * 2 - 1
    images[:, 1] = 0.0
    images[::2, 1] += stripes
    truth[::2] *= 2

    def network(given: Tensor) -> Tensor:
        striped = (given[:, 1] * stripes).mean(dim=(1, 2)).view(-1, 1, 1) - 0.4
        inside = given[:, 0] - 0.5
        sign = striped.sign() * 0.2
        return torch.stack((-inside, inside - sign, inside + sign), dim=1)

    diagnosis = diagnose(network, images, truth, classes=("ground", "plain", "striped"))
    found = {one.class_name: one for one in diagnosis.of_kind("leans-on-surroundings")}
    assert found["plain"].fills == ("other", "second-other")
    assert found["plain"].effect == 1.0
    assert found["plain"].control == 0.0
    assert "kind of surroundings" in found["plain"].claim
