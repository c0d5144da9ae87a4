"""Gates are found by what they do, whatever they are called."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from monai.networks.nets import AttentionUnet
from torch import Tensor, nn

from tests.methods.harness import IMAGES, network
from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError
from unetcam.methods.attention import find_gates
from unetcam.targets import ClassScore


class Calls(nn.Module):
    """A convolution, then what the test wants, then a head."""

    def __init__(self, middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.body, self.squeeze = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.one, self.after = nn.Conv2d(4, 1, 1), nn.Identity()
        self.head, self.middle = nn.Conv2d(4, 2, 1), middle

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.after(self.middle(self, self.body(x))))


def pooled(net: nn.Module, x: Tensor) -> Tensor:
    return net.squeeze(x.mean(dim=(2, 3), keepdim=True))


def in_place(net: nn.Module, x: Tensor) -> Tensor:
    x *= torch.sigmoid(net.one(x))
    return x


def cbam(net: nn.Module, x: Tensor) -> Tensor:
    x = x * torch.sigmoid(pooled(net, x).flatten(1)).unsqueeze(2).unsqueeze(3).expand_as(x)
    return x * torch.sigmoid(x.amax(dim=1, keepdim=True))


CHANNEL: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "squeeze": lambda net, x: x * pooled(net, x).sigmoid(),
    "other way round": lambda net, x: torch.mul(torch.sigmoid(pooled(net, x)), x),
    "expanded": lambda net, x: x * torch.sigmoid(pooled(net, x)).expand_as(x),
    "hard": lambda net, x: F.hardsigmoid(pooled(net, x)) * x,
    "residual": lambda net, x: x + x * nn.Sigmoid()(pooled(net, x)),
}
SPATIAL: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "plain": lambda net, x: x * torch.sigmoid(net.one(x)),
    "in place": in_place,
    "enlarged": lambda net, x: x * F.interpolate(net.one(x[..., ::2, ::2]).sigmoid(), x.shape[2:]),
}


@pytest.mark.parametrize("how", CHANNEL)
def test_channel_gates(how: str) -> None:
    model = seeded(Calls(CHANNEL[how]))
    (gate,) = find_gates(model, IMAGES)
    with torch.no_grad():
        x = model.body(IMAGES)
        squeezed = pooled(model, x)
    expected = F.hardsigmoid(squeezed) if how == "hard" else squeezed.sigmoid()
    assert gate.kind == "channel"
    torch.testing.assert_close(gate.values, expected)
    passed = (expected * x.abs()).sum(dim=1) / x.abs().sum(dim=1)
    torch.testing.assert_close(gate.passed, passed)


@pytest.mark.parametrize("how", SPATIAL)
def test_the_map_of_a_spatial_gate_is_its_values(how: str) -> None:
    model = seeded(Calls(SPATIAL[how]))
    (gate,) = find_gates(model, IMAGES)
    with torch.no_grad():
        x = model.body(IMAGES)
        expected = model.one(x).sigmoid()
        if how == "enlarged":
            expected = F.interpolate(model.one(x[..., ::2, ::2]).sigmoid(), x.shape[2:])
    assert gate.kind == "spatial"
    torch.testing.assert_close(gate.values, expected)
    torch.testing.assert_close(gate.passed, expected[:, 0])
    maps = UNetCAM(model, ["after"], "attention")(IMAGES)["after"]
    torch.testing.assert_close(maps, expected.expand(-1, 2, -1, -1))


def test_where_nothing_flows_the_map_is_the_gates_mean() -> None:
    model = Calls(CHANNEL["squeeze"])
    with torch.no_grad():
        model.body.bias.zero_()
    (gate,) = find_gates(model, torch.zeros(1, 1, 4, 4))
    torch.testing.assert_close(gate.passed, gate.values.mean(dim=1).expand(1, 4, 4))


def test_the_last_gate_counts_and_all_are_found() -> None:
    model = seeded(Calls(cbam))
    channel, spatial = find_gates(model, IMAGES)
    assert (channel.kind, spatial.kind) == ("channel", "spatial")
    assert channel.values.shape == (2, 4, 1, 1)
    maps = UNetCAM(model, ["after"], "attention")(IMAGES, ClassScore(0))["after"]
    torch.testing.assert_close(maps[:, 0], spatial.passed)


def test_gates_beside_each_other_are_averaged() -> None:
    def scse(net: nn.Module, x: Tensor) -> Tensor:
        return x * pooled(net, x).sigmoid() + x * net.one(x).sigmoid()

    model = seeded(Calls(scse))
    channel, spatial = find_gates(model, IMAGES)
    maps = UNetCAM(model, ["after"], "attention")(IMAGES, ClassScore(0))["after"]
    torch.testing.assert_close(maps[:, 0], (channel.passed + spatial.passed) / 2)


@pytest.mark.parametrize(
    "middle",
    [
        lambda net, x: x * torch.sigmoid(x),  # SiLU
        lambda net, x: F.silu(x),
        lambda net, x: torch.sigmoid(x),
        lambda net, x: torch.sigmoid(x) * 2.0,
        lambda net, x: x * x.softmax(dim=1),
    ],
)
def test_what_is_no_gate_is_none(middle: Callable[[nn.Module, Tensor], Tensor]) -> None:
    model = Calls(middle)
    assert find_gates(model, IMAGES) == ()
    with pytest.raises(LayerError, match="no gate on the way to the layer 'after'"):
        UNetCAM(model, ["after"], "attention")(IMAGES)


def test_a_layer_before_the_gates_has_none() -> None:
    model, _ = network("attention")
    with pytest.raises(LayerError, match="no gate on the way to the layer 'down1'"):
        UNetCAM(model, ["down1"], "attention")(IMAGES)


def test_a_decoder_with_scse() -> None:
    """Each decoder block ends in two gates, for channels and for pixels."""
    model = smp.Unet(
        "resnet18", encoder_weights=None, classes=2, decoder_attention_type="scse"
    ).eval()
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gates = [
        g for g in find_gates(model, images) if g.module == "decoder.blocks.4.attention2.attention"
    ]
    assert [gate.kind for gate in gates] == ["channel", "spatial"]
    attention = model.decoder.blocks[4].attention2.attention
    kept: list[Tensor] = []
    attention.sSE.register_forward_hook(lambda module, args, out: kept.append(out.detach()))
    result = UNetCAM(model, method="attention")(images, ClassScore(0))
    torch.testing.assert_close(gates[1].values, kept[-1])
    expected = (gates[0].passed + gates[1].passed) / 2
    torch.testing.assert_close(result["decoder.blocks.4"][:, 0], expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_attention_gates_of_an_attention_unet(dims: int) -> None:
    model = AttentionUnet(dims, 1, 2, channels=(4, 8, 16), strides=(2, 2)).eval()
    images = torch.rand(1, 1, *[16] * dims, generator=torch.Generator().manual_seed(0))
    deep, last = find_gates(model, images)
    assert (deep.kind, last.kind) == ("spatial", "spatial")
    result = UNetCAM(model, method="attention")(images, ClassScore(0))
    assert result.layers == find_layers(model, images).decoder
    torch.testing.assert_close(result[result.layers[-1]][:, 0], last.passed)
    torch.testing.assert_close(result[result.layers[0]][:, 0], deep.passed)


def test_of_some_layers_without_a_gate_the_others_are_named() -> None:
    model, _ = network("attention")
    with pytest.raises(LayerError, match=r"layer 'up1': of the layers .* only 'up2', 'up4' lie"):
        UNetCAM(model, ["up1", "up2", "up4"], "attention")(IMAGES)


def test_the_gates_of_a_network_without_any() -> None:
    assert find_gates(UNet(), IMAGES) == ()
