"""A class that is taken for another comes with a picture of why, which says that it is one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unetcam.diagnosis import Evidence, diagnose

CLASSES = ("ground", "a", "b")


class Stained(nn.Module):
    """Class 1 and 2 by channels 0 and 1; what is stained (channel 2) is class 2 as well."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(3, 3, 1, bias=False)
        self.down, self.mid = nn.AvgPool2d(2), nn.Conv2d(3, 3, 1)
        self.up = nn.Upsample(scale_factor=2)
        self.dec = nn.Conv2d(6, 3, 1, bias=False)
        self.head = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.enc.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.dec.weight.zero_()
            self.dec.weight[:, 3:] = torch.eye(3).view(3, 3, 1, 1)
            weight = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 2]])
            self.head.weight.copy_(weight.view(3, 3, 1, 1))
            self.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        full = self.enc(images)
        joined = torch.cat([self.up(self.mid(self.down(full))), full], dim=1)
        logits: Tensor = self.head(self.dec(joined))
        return logits


def scenes(count: int = 6) -> tuple[Tensor, Tensor]:
    """Squares of class 1, of which the upper half is stained, and squares of class 2."""
    images = torch.zeros(count, 3, 32, 32)
    truth = torch.zeros(count, 32, 32, dtype=torch.long)
    for number in range(count):
        left = 2 + number
        images[number, 0, 4:12, left : left + 8] = 1.0
        images[number, 2, 4:8, left : left + 8] = 1.0
        truth[number, 4:12, left : left + 8] = 1
        images[number, 1, 20:28, left : left + 8] = 1.0
        truth[number, 20:28, left : left + 8] = 2
    return images, truth


def evidence(network: object) -> Evidence:
    images, truth = scenes()
    diagnosis = diagnose(network, images, truth, classes=CLASSES, kinds=["confused-with"])
    (finding,) = (one for one in diagnosis.findings if one.class_name == "a")
    assert finding.effect == 0.5
    assert finding.details["other_class"] == "b"
    first: Evidence = finding.evidence[0]
    return first


def test_the_outlined_pixels_are_in_the_stain_and_called_a_picture() -> None:
    shown = evidence(Stained())
    assert "HiResCAM at 'enc'" in shown.caption
    assert shown.caption.endswith("This is a picture, not a test.")
    assert shown.region is not None
    assert shown.truth is not None
    stain = shown.truth.copy()
    stain[8:] = False
    # Half of the map's mass lies in half of the 32 stained pixels, which all speak alike.
    assert shown.region.sum() == 16
    assert not (shown.region & ~stain).any()


def test_of_a_function_the_confused_pixels_are_shown() -> None:
    network = Stained()
    shown = evidence(lambda images: network(images))
    assert "HiResCAM" not in shown.caption
    assert shown.region is not None
    assert shown.region.sum() == 32
