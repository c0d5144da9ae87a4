"""A sound network that is fed wrongly is told how it wants to be fed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unetcam.diagnosis import Diagnosis, diagnose, names
from unetcam.diagnosis.input_forms import forms

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


class Norm(nn.Module):
    """A network whose batch norm saw images that were normalised by ImageNet's statistics."""

    def __init__(self, layer: type[nn.Module] = nn.BatchNorm2d, batches: int = 500) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.GroupNorm(2, 6) if layer is nn.GroupNorm else layer(6)
        self.head = nn.Conv2d(6, 2, 1)
        if layer is nn.BatchNorm2d:
            with torch.no_grad():
                seen = self.conv((scenes(24)[0] - MEAN) / STD).transpose(0, 1).flatten(1)
            self.norm.running_mean.copy_(seen.mean(dim=1))
            self.norm.running_var.copy_(seen.var(dim=1))
            self.norm.num_batches_tracked.fill_(batches)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(images)).relu())
        return logits


def without_masks(network: nn.Module, images: Tensor) -> Diagnosis:
    return diagnose(network, images, classes=("ground", "roof"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (lambda images: images, "with ImageNet's mean and standard deviation and not in 0 to 1"),
        (lambda images: 255 * images, "ImageNet's mean and standard deviation and not in 0 to 255"),
        (lambda images: (images / 255 - MEAN) / STD, "not after another 1/255"),
    ],
)
def test_without_any_mask_another_range_is_seen_at_the_first_batch_norm(
    given: Callable[[Tensor], Tensor], said: str
) -> None:
    diagnosis = without_masks(Norm(), given(scenes(16)[0]))
    (finding,) = diagnosis.findings
    assert finding.kind == "input-scaling"
    assert said in finding.claim
    assert "'norm'" in finding.claim
    assert finding.effect > 1.25
    assert finding.control < 0.8
    assert finding.tested == 8
    assert all(one.reason.endswith(".") for one in diagnosis.tests)
    assert {one.kind for one in diagnosis.tests} == set(names())


def test_without_any_mask_images_as_in_training_are_none() -> None:
    diagnosis = without_masks(Norm(), (scenes(16)[0] - MEAN) / STD)
    assert diagnosis.findings == ()
    tested = {one.kind: one.tested for one in diagnosis.tests}
    assert tested["input-scaling"] == 8
    assert sum(tested.values()) == 8
    assert "no masks" in next(one.reason for one in diagnosis.tests if one.kind == "confused-with")


@pytest.mark.parametrize("network", [Norm(nn.GroupNorm), Norm(batches=20), Norm(nn.Identity)])
def test_a_network_without_settled_statistics_cannot_be_asked(network: nn.Module) -> None:
    (record,) = (
        one
        for one in without_masks(network, 255 * scenes(16)[0]).tests
        if one.kind == "input-scaling"
    )
    assert record.tested == 0
    assert "no batch norm" in record.reason


def test_looking_at_the_statistics_leaves_the_network_as_it_was() -> None:
    network = Norm().train()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    without_masks(network, scenes(16)[0])
    assert network.training
    assert not network.norm._forward_pre_hooks
    for name, one in network.state_dict().items():
        assert torch.equal(one, before[name])
