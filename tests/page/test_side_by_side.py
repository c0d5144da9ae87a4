"""Networks with attention and without, on the same images."""

from __future__ import annotations

import pytest
import torch

from tests.networks import GatedUNet, UNet, seeded
from unetcam import UNetCAM
from unetcam.errors import LayerError
from unetcam.methods.attention import find_gates
from unetcam.page import side_by_side
from unetcam.targets import ClassScore, PredictedRegion

IMAGES = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(5))
NETWORKS = {"with attention": seeded(GatedUNet(1, 3)), "without": seeded(UNet(1, 3))}


def test_what_is_shown_is_what_each_network_gives() -> None:
    found = side_by_side(NETWORKS, IMAGES, ClassScore(2), method="hirescam")
    for name, model in NETWORKS.items():
        result = UNetCAM(model, ["up4"], "hirescam")(IMAGES, ClassScore(2))
        torch.testing.assert_close(found.maps[name], result.scaled()["up4"][:, 0])
        assert torch.equal(found.predictions[name], result.logits.argmax(dim=1))
    assert set(found.gates) == {"with attention"}
    last = find_gates(NETWORKS["with attention"], IMAGES)[-1]
    torch.testing.assert_close(found.gates["with attention"], last.passed)


def test_another_layer_is_brought_to_the_images_size() -> None:
    layers = {"with attention": "up2", "without": "up1"}
    found = side_by_side(NETWORKS, IMAGES, layers=layers)
    assert found.layers == layers
    assert all(maps.shape == (2, 32, 32) for maps in found.maps.values())
    with pytest.raises(LayerError, match="no gate on the way to the layer 'down1'"):
        side_by_side(NETWORKS, IMAGES, layers={"with attention": "down1"})


def test_gates_are_there_where_the_target_is_not() -> None:
    model = NETWORKS["with attention"]
    predicted = model(IMAGES).argmax(dim=1).unique().tolist()
    absent = next(index for index in range(3) if index not in predicted)
    found = side_by_side({"one": model}, IMAGES, PredictedRegion(absent))
    assert found.maps["one"].isnan().all()
    assert torch.isfinite(found.gates["one"]).all()


def test_the_figure_has_a_row_for_each_network() -> None:
    figure = side_by_side(NETWORKS, IMAGES).figure(1)
    axes = figure.axes
    assert len(axes) == 8
    assert [axis.get_ylabel() for axis in axes[::4]] == list(NETWORKS)
    assert axes[3].images
    assert not axes[7].images
    assert axes[7].texts[0].get_text() == "no gates"
    assert axes[2].get_title() == "map at up4"
