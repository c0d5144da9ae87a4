"""A spot that a class's map shows away from it is told only where the class needs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unetcam.diagnosis import Diagnosis, diagnose

KIND = "background-evidence"


class Gated(nn.Module):
    """Squares (channel 0) are seen only while a lamp far away (channel 1) is bright.

    The lamp spreads over the image in the decoder, where its pixels light up in the class's map.
    Without `needs`, the lamp is in the map as well and changes nothing.
    """

    def __init__(self, *, needs: bool = True) -> None:
        super().__init__()
        self.enc = nn.AvgPool2d(4)
        self.up = nn.Conv2d(2, 2, 1, bias=False)
        self.head = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.up.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        self.needs = needs

    def forward(self, images: Tensor) -> Tensor:
        low = self.up(F.interpolate(self.enc(images), scale_factor=2, mode="nearest"))
        low = F.interpolate(low, scale_factor=2, mode="nearest")
        lamp = low[:, 1:].mean(dim=(2, 3), keepdim=True) * 85.0
        light = lamp if self.needs else 1.0 + 1e-3 * lamp
        square = images[:, :1] - 1.4 + 0.9 * light + 0.0 * self.head(low)[:, :1]
        return torch.cat((-square, square), dim=1)


def scenes(count: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = 0.002 * torch.rand(count, 2, 32, 32, generator=generator)
    truth = torch.zeros(count, 32, 32, dtype=torch.long)
    for number in range(count):
        left = 4 + number
        images[number, 0, 16:28, left : left + 10] += 1.0
        truth[number, 16:28, left : left + 10] = 1
        images[number, 1, 4:7, 20:23] += 1.0
    return images, truth


def asked(network: nn.Module) -> Diagnosis:
    images, truth = scenes()
    return diagnose(network, images, truth, classes=("ground", "square"), kinds=[KIND])


def test_a_spot_that_the_class_needs_is_told_with_its_control() -> None:
    (finding,) = asked(Gated()).findings
    assert (finding.kind, finding.class_name) == (KIND, "square")
    assert finding.effect == 1.0
    assert finding.control == 0.0
    assert finding.tested == 8
    assert "Grad-CAM map" in finding.claim
    assert finding.fills == ("mean", "noise", "other")
    for evidence in finding.evidence:
        assert evidence.region is not None
        assert evidence.region[4:7, 20:23].all()
        assert not evidence.region[16:].any()
        assert evidence.mask_after is not None
        assert evidence.mask_after.sum() == 0


def test_a_spot_that_changes_nothing_is_no_finding() -> None:
    diagnosis = asked(Gated(needs=False))
    assert diagnosis.findings == ()
    (record,) = (one for one in diagnosis.tests if one.class_index == 1)
    assert record.tested >= 5
    assert record.effect == 0.0
    assert record.smallest_effect == 0.2


def test_a_function_has_no_maps() -> None:
    images, truth = scenes()
    network = Gated()
    function = diagnose(
        lambda given: network(given), images, truth, classes=("ground", "square"), kinds=[KIND]
    )
    (record,) = function.tests
    assert record.tested == 0
    assert "function" in record.reason
