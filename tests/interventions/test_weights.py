"""Shuffled weights: where, in what order, and the network itself left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.runs.factory import TinyUNet
from unetcam.errors import ModelError
from unetcam.interventions.weights import WeightedModules, randomised, weighted_modules

IMAGES = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network() -> TinyUNet:
    torch.manual_seed(2)
    return TinyUNet()


def test_modules_come_in_the_order_in_which_they_run() -> None:
    found = weighted_modules(network(), IMAGES, "low")
    assert found.names == ("inc.0", "down.1", "low.1", "up1.0", "up2.0", "out")
    assert found.decoder == ("up1.0", "up2.0", "out")
    assert weighted_modules(network(), IMAGES).decoder == ()


def test_looking_leaves_nothing_behind() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    weighted_modules(model, IMAGES, "low")
    randomised(model, ["inc.0", "out"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_the_cascade_ends_with_every_module() -> None:
    modules = WeightedModules(("a", "b", "c", "d", "e", "f"), ())
    steps = modules.cascade(3)
    assert steps[0] == ("f",)
    assert steps[-1] == modules.names
    assert len(steps[0]) < len(steps[1]) < len(steps[2])
    assert WeightedModules(("a",), ()).cascade(4) == (("a",),)


def test_values_change_places_within_the_named_modules_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1))
    model[1].running_mean = torch.arange(8.0)
    twin = randomised(model, ["0", "1"], seed=1)
    assert not torch.equal(twin[0].weight, model[0].weight)
    assert torch.equal(twin[0].weight.flatten().sort()[0], model[0].weight.flatten().sort()[0])
    assert sorted(twin[1].running_mean.tolist()) == list(range(8))
    assert twin[1].running_mean.tolist() != list(range(8))
    assert torch.equal(twin[2].weight, model[2].weight)
    again = randomised(model, ["0", "1"], seed=1)
    assert torch.equal(again[0].weight, twin[0].weight)
    assert not torch.equal(randomised(model, ["0"], seed=2)[0].weight, twin[0].weight)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.other.weight = self.one.weight


def test_a_shared_tensor_is_shuffled_once_and_stays_shared() -> None:
    model = Tied()
    both, one = randomised(model, ["one", "other"]), randomised(model, ["one"])
    assert both.one.weight is both.other.weight
    assert torch.equal(both.one.weight, one.one.weight)


class NoWeights(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: object) -> Uncopyable:
        raise TypeError("has a handle")


def test_what_can_not_be_randomised_is_said() -> None:
    with pytest.raises(ModelError, match="No module with weights"):
        weighted_modules(NoWeights(), IMAGES)
    with pytest.raises(ModelError, match="Uncopyable can't be copied"):
        randomised(Uncopyable(), [])
