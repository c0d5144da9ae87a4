"""What enters a decoder stage, replaced by its mean: what each class loses, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unetcam.interventions import Baseline, Predictor, predictor_of
from unetcam.interventions.stages import part_flips, part_means, parts_of, replaced, stage_effects
from unetcam.models import LoadedModel


class Joined(nn.Module):
    """Class 1 where the skip is bright, class 2 where the path is (a quarter of the resolution)."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Conv2d(2, 2, 1, bias=False)
        self.down = nn.AvgPool2d(4)
        self.mid = nn.Conv2d(2, 2, 1, bias=False)
        self.up = nn.Upsample(scale_factor=4)
        self.dec = nn.Conv2d(4, 2, 1, bias=False)
        self.head = nn.Conv2d(2, 3, 1)
        with torch.no_grad():
            for layer in (self.enc, self.mid):
                layer.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
            # The path's channels come first: channel 1 of it, and channel 0 of the skip.
            weight = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0]])
            self.dec.weight.copy_(weight.view(2, 4, 1, 1))
            self.head.weight.copy_(torch.tensor([[0.0, 0], [1, 0], [0, 1]]).view(3, 2, 1, 1))
            self.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        full = self.enc(images)
        logits: Tensor = self.head(
            self.dec(torch.cat([self.up(self.mid(self.down(full))), full], dim=1))
        )
        return logits


def scenes() -> tuple[Tensor, Tensor]:
    images = torch.zeros(2, 2, 16, 16)
    truth = torch.zeros(2, 16, 16, dtype=torch.long)
    images[:, 0, 2:7, 3:9] = 1.0
    truth[:, 2:7, 3:9] = 1
    images[:, 1, 8:12, 4:12] = 1.0
    truth[:, 8:12, 4:12] = 2
    return images, truth


def loaded() -> tuple[LoadedModel, Predictor, Baseline]:
    images, truth = scenes()
    model = LoadedModel.of(Joined(), images[:1])
    predictor = predictor_of(model)
    return model, predictor, Baseline.of(predictor, images, truth)


def test_each_class_is_lost_with_what_carries_it_and_with_nothing_else() -> None:
    model, predictor, baseline = loaded()
    before = predictor.forwards
    effects = stage_effects(model, predictor, baseline, torch.arange(2))
    assert set(effects) == {"dec:skip", "dec:path"}
    assert effects["dec:skip"].tolist() == [[0.0, 1.0, 0.0]] * 2
    assert effects["dec:path"].tolist() == [[0.0, 0.0, 1.0]] * 2
    assert predictor.forwards - before == 2 + 2 * 2


def test_the_mean_is_that_of_each_channel_over_images_and_pixels() -> None:
    model, predictor, baseline = loaded()
    points = parts_of(model, baseline.images)
    means = part_means(model, points, predictor, baseline.images)
    expected = torch.tensor([30 / 256, 32 / 256])
    for mean in means.values():
        torch.testing.assert_close(mean.flatten(), expected)
    flips = part_flips(
        predictor, baseline, torch.tensor([1]), "dec:skip", points["dec:skip"], means["dec:skip"]
    )
    assert flips.tolist() == [[0.0, 1.0, 0.0]]


def test_the_hooks_are_gone_also_after_an_exception() -> None:
    model, _, baseline = loaded()
    points = parts_of(model, baseline.images)

    def fail(name: str, tensor: Tensor) -> Tensor:
        raise RuntimeError(name)

    def run() -> None:
        with replaced(points, fail):
            model.module(baseline.images)

    with pytest.raises(RuntimeError, match="dec:"):
        run()
    assert torch.equal(model.module(baseline.images).argmax(1), baseline.predicted.int().argmax(1))
    for module in model.module.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
