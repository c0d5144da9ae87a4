"""A sound network that is fed wrongly is told how it wants to be fed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unetcam.diagnosis import Diagnosis, diagnose
from unetcam.diagnosis.wrong_input import forms

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
CLASSES = ("ground", "roof", "tree")


def scenes(count: int = 12) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 40, 40) in [0, 1]: red roofs in the upper half, green trees in the lower."""
    generator = torch.Generator().manual_seed(0)
    images = 0.35 + 0.02 * torch.rand(count, 3, 40, 40, generator=generator)
    truth = torch.zeros(count, 40, 40, dtype=torch.long)
    for number in range(count):
        left = 4 + number
        images[number, 0, 4:14, left : left + 14] += 0.5
        truth[number, 4:14, left : left + 14] = 1
        images[number, 1, 24:36, left : left + 10] += 0.5
        truth[number, 24:36, left : left + 10] = 2
    return images, truth


def network(images: Tensor) -> Tensor:
    """Made for ImageNet's normalisation, RGB, roofs above trees."""
    values = images * STD + MEAN
    upper = (torch.arange(40) < 20).view(-1, 1).float()
    roof = 8 * (0.1 - (values[:, 0] - 0.86).abs()) - 4 * (1 - upper)
    tree = 8 * (0.1 - (values[:, 1] - 0.86).abs()) - 4 * upper
    return torch.stack((0 * roof, roof, tree), dim=1)


def fed(change: Callable[[Tensor], Tensor]) -> Diagnosis:
    images, truth = scenes()
    return diagnose(network, change((images - MEAN) / STD), truth, classes=CLASSES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * STD + MEAN, "ImageNet's mean and standard deviation and not in 0 to 1"),
        (lambda x: 255 * (x * STD + MEAN), "and not in 0 to 255"),
        (lambda x: 2 * (x * STD + MEAN) - 1, "and not in -1 to 1"),
        (lambda x: ((x * STD + MEAN) / 255 - MEAN) / STD, "not after another 1/255"),
        (lambda x: (((x * STD + MEAN).flip(1)) - MEAN) / STD, "red and blue exchanged"),
        (lambda x: x.flip(2), "upside down, with the masks as they are"),
        (lambda x: x.transpose(2, 3), "axes 0 and 1 exchanged, with the masks as they are"),
    ],
)
def test_the_form_that_fits_is_named(change: Callable[[Tensor], Tensor], words: str) -> None:
    diagnosis = fed(change)
    (finding,) = diagnosis.findings
    assert finding.kind == "input-scaling"
    assert words in finding.claim
    assert finding.gain is not None
    assert finding.gain > 0.2
    assert finding.effect > finding.control
    quiet = [one for one in diagnosis.tests if one.kind == "leans-on-surroundings"]
    assert [one.tested for one in quiet] == [0]
    assert "mend that first" in quiet[0].reason


def test_what_is_fed_rightly_is_left_alone() -> None:
    kinds = {one.kind for one in fed(lambda x: x)}
    assert not kinds & {"input-scaling", "classes-permuted"}


@pytest.mark.parametrize("order", [(0, 2, 1), (1, 0, 2), (2, 0, 1)])
def test_another_order_of_the_classes_is_named(order: tuple[int, ...]) -> None:
    images, truth = scenes()
    truth = torch.tensor(order)[truth]
    diagnosis = diagnose(network, (images - MEAN) / STD, truth, classes=CLASSES)
    (finding,) = diagnosis.of_kind("classes-permuted")
    assert finding.gain == pytest.approx(1.0, abs=0.05)
    for before, after in enumerate(order):
        if before != after:
            assert finding.details[CLASSES[after]] == CLASSES[before]
            sentence = f"predicts as '{CLASSES[before]}' is '{CLASSES[after]}' in the masks"
            assert sentence in finding.claim


def test_a_bad_network_is_not_called_permuted() -> None:
    def untrained(images: Tensor) -> Tensor:
        noise = torch.linspace(-1, 1, 40).expand(len(images), 40, 40)
        return torch.stack((0 * noise, noise, -noise), dim=1)

    images, truth = scenes()
    diagnosis = diagnose(untrained, images, truth, classes=CLASSES)
    assert not diagnosis.of_kind("classes-permuted")
    assert diagnosis.of_kind("poorly-learned")


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 8, 8), (2, 2, 6, 8), (1, 1, 4, 4, 8)])
def test_every_form_of_any_image_can_be_made_and_undone(shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    for form in forms(images):
        given = form.apply(images)
        assert form.undo(given > 0).shape == images.shape
        assert torch.isfinite(given).all()
