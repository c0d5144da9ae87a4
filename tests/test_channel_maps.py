"""The most active channels of a layer are shown as they are, and are no method any more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import unetcam
from tests.methods.harness import IMAGES, VOLUMES, network, network_3d
from unetcam import UNetCAM
from unetcam.channel_maps import active_channels
from unetcam.errors import LayerError, MemoryBudgetError, ModelError, UnetcamError
from unetcam.models.loaded_model import LoadedModel


def test_channels_are_ranked_by_their_mean_activity_in_each_image() -> None:
    model, _ = network("channels")
    maps, channels = active_channels(model, IMAGES, ["up4", "up2"], count=6)
    kept: list[Tensor] = []
    model.up2.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
    logits = model(IMAGES)
    activity = kept[0].relu().mean(dim=(2, 3))
    assert [one.name for one in maps.targets][:2] == ["channel of rank 1", "channel of rank 2"]
    torch.testing.assert_close(maps.logits, logits.detach())
    for image in range(2):
        order = activity[image].argsort(descending=True)[:6]
        assert torch.equal(channels["up2"][image], order)
        torch.testing.assert_close(maps["up2"][image], kept[0][image, order].relu())


def test_a_layer_with_fewer_channels_has_no_map_beyond() -> None:
    model, _ = network("channels")
    maps, channels = active_channels(model, IMAGES, ["up4"])
    maps = maps.resized().scaled(by="layer")
    assert maps["up4"].shape == (2, 8, 32, 32)
    assert maps["up4"][:, 4:].isnan().all()
    assert torch.isfinite(maps["up4"][:, :4]).all()
    assert (channels["up4"][:, 4:] == -1).all()
    assert sorted(channels["up4"][0, :4].tolist()) == [0, 1, 2, 3]


def test_channels_of_a_volume_of_half_precision_and_of_a_loaded_model() -> None:
    model, layers = network_3d("channels")
    maps, _ = active_channels(model, VOLUMES, layers, count=2)
    assert maps["dec2"].shape == (2, 2, 4, 4, 4)
    model, layers = network("channels")
    loaded = LoadedModel.of(model.bfloat16(), IMAGES.bfloat16())
    maps, channels = active_channels(loaded, IMAGES.bfloat16(), count=2)
    assert maps.layers == loaded.table.decoder == tuple(channels)
    assert maps["up4"].dtype == torch.float32


def test_the_network_is_left_as_it_was_found() -> None:
    model, layers = network("channels")
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    active_channels(model, IMAGES, layers)
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_can_not_be_shown_is_refused() -> None:
    model, layers = network("channels")
    for count in (0, -1, 2.0, True):
        with pytest.raises(UnetcamError, match=r"count=.* shows no channel"):
            active_channels(model, IMAGES, layers, count=count)  # type: ignore[arg-type]
    with pytest.raises(LayerError, match="did you mean 'up4'"):
        active_channels(model, IMAGES, ["up44"])
    with pytest.raises(ModelError):
        active_channels(model, IMAGES[0], layers)
    with pytest.raises(MemoryBudgetError):
        active_channels(model, IMAGES, layers, memory_budget=100)


@pytest.mark.parametrize("name", ["channels", "smooth-channels"])
def test_the_old_name_is_refused_with_the_name_of_the_function(name: str) -> None:
    assert "channels" not in unetcam.methods.names()
    with pytest.raises(UnetcamError, match=r"unetcam\.channel_maps\.active_channels\(model, im"):
        UNetCAM(network("channels")[0], method=name)
