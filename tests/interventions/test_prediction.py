"""What a network predicts, class by class: the same as argmax, whatever the logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.interventions.networks import by_corner, scenes
from unetcam.interventions import Predictor, Regions, fills, read_classes
from unetcam.interventions.effects import Baseline
from unetcam.interventions.fills import Fill, Filling, agreeing
from unetcam.interventions.regions import agreed

INF, NAN = float("inf"), float("nan")


def _by_argmax(logits: Tensor) -> Tensor:
    index = logits.argmax(dim=1, keepdim=True)
    return torch.zeros_like(logits, dtype=torch.bool).scatter_(1, index, True)


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 3, 4, 5, 6), (2, 2, 8, 8)])
@pytest.mark.parametrize("kind", ["plain", "ties", "equal", "infinite", "nan", "nan and ties"])
def test_each_pixel_is_of_the_class_that_argmax_gives(shape: tuple[int, ...], kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator)
    if "ties" in kind:
        logits = logits.round()
    if kind == "equal":
        logits = torch.zeros(shape)
    draw = torch.rand(shape, generator=generator)
    if kind == "infinite":
        logits = logits.masked_fill(draw < 0.2, INF).masked_fill(draw > 0.7, -INF)
    if "nan" in kind:
        logits = logits.masked_fill(draw < 0.2, NAN)
    prediction = read_classes(logits)
    assert torch.equal(prediction.masks, _by_argmax(logits))
    if kind in ("plain", "ties", "equal"):
        best, second = logits.topk(2, dim=1).values.split(1, dim=1)
        expected = logits - torch.where(prediction.masks, second, best)
        assert torch.equal(prediction.margins, expected)


def test_one_nan_and_one_tie_do_not_make_up_for_each_other() -> None:
    logits = torch.tensor([[1.0, NAN], [1.0, 0.0]]).view(1, 2, 1, 2)
    assert torch.equal(read_classes(logits).masks, _by_argmax(logits))


def test_one_channel_and_several_labels_are_read_by_their_sign() -> None:
    logits = torch.tensor([-1.0, 0.0, 2.0, NAN]).view(1, 1, 1, 4)
    assert read_classes(logits).masks[0, :, 0].int().tolist() == [[1, 1, 0, 1], [0, 0, 1, 0]]
    several = torch.tensor([[-1.0, 3.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    assert read_classes(several, "sigmoid").masks[0, :, 0].int().tolist() == [[0, 1], [0, 1]]


def test_fills_that_cannot_change_the_answer_are_not_tried() -> None:
    """A fill without effect, then one with: the third is asked only where it matters."""
    images, truth = scenes(4)
    predictor = Predictor(by_corner)
    baseline = Baseline.of(predictor, images, truth)
    regions = Regions.of_classes(baseline, [(0, 1), (1, 2), (2, 1), (3, 2)])
    hidden = regions.surroundings.all
    names = ("mean", "noise", "other")
    fillings: dict[Fill, Filling] = {
        fill: fill.prepared(images, 0) for fill in map(fills.get, names)
    }
    every = [regions.hiding(predictor, baseline, hidden, one).flips for one in fillings.values()]
    expected = agreeing(every, [fill.look for fill in fillings])
    predictor.forwards = 0
    assert torch.equal(agreed(regions, predictor, baseline, hidden, fillings), expected)
    # Images 1 and 3 flip under the mean and under noise, 0 and 2 under no flat fill.
    assert expected.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert predictor.forwards == 4 + 2
    predictor.forwards = 0
    assert torch.equal(agreed(regions, predictor, baseline, hidden, fillings, every[0]), expected)
    assert predictor.forwards == 2


def test_nothing_hidden_is_no_effect_and_costs_no_forward() -> None:
    images, truth = scenes(2)
    predictor = Predictor(by_corner)
    baseline = Baseline.of(predictor, images, truth)
    regions = Regions.of_classes(baseline, [(0, 1), (1, 2)])
    hidden = regions.surroundings.all
    hidden[0] = False
    predictor.forwards = 0
    filling = fills.get("mean").prepared(images, 0)
    flips = regions.hiding(predictor, baseline, hidden, filling).flips
    assert flips.isnan().tolist() == [True, False]
    assert flips[1] == 1.0
    assert predictor.forwards == 1
