"""The right layers, found without help."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.zoo import SMP
from tests.networks import Nameless, UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError, ModelError
from unetcam.models.layers import LayerTable

UNSUPPORTED = {("UnetPlusPlus", "mit_b0"), ("Linknet", "mit_b0")}  # by the library itself


def decoder(table: LayerTable) -> tuple[list[str], list[int]]:
    return list(table.decoder), [table.strides[name] for name in table.decoder]


@pytest.mark.parametrize("encoder", ["resnet18", "efficientnet-b0", "mit_b0"])
@pytest.mark.parametrize("architecture", SMP)
def test_finds_the_decoder_of_every_smp_network(architecture: str, encoder: str) -> None:
    if (architecture, encoder) in UNSUPPORTED:
        with pytest.raises(ValueError, match="support"):
            getattr(smp, architecture)(encoder, encoder_weights=None)
        return
    model = getattr(smp, architecture)(encoder, encoder_weights=None, classes=3)
    assert decoder(find_layers(model, torch.rand(1, 3, 128, 128))) == SMP[architecture]


@pytest.mark.parametrize("architecture", SMP)
@pytest.mark.parametrize("side", [64, 96, 256])
def test_the_examples_size_does_not_matter(architecture: str, side: int) -> None:
    if architecture == "PAN" and side < 128:
        pytest.skip("its pyramid pools a map of this size to nothing")
    model = getattr(smp, architecture)("resnet18", encoder_weights=None)
    assert decoder(find_layers(model, torch.rand(1, 3, side, side))) == SMP[architecture]


@pytest.mark.parametrize("architecture", SMP)
def test_what_was_found_can_be_explained(architecture: str) -> None:
    model = seeded(getattr(smp, architecture)("resnet18", encoder_weights=None, classes=3))
    side = 128 if architecture == "PAN" else 64
    with UNetCAM(model) as cam:
        result = cam(torch.rand(2, 3, side, side)).resized()
    assert list(cam.layers) == SMP[architecture][0]
    for layer in cam.layers:
        assert result[layer].shape == (2, 3, side, side)
        assert not result.empty[layer].all()


def test_an_encoder_that_upsamples_within_itself_stays_an_encoder() -> None:
    model = smp.Unet("tu-hrnet_w18", encoder_weights=None)
    assert decoder(find_layers(model, torch.rand(1, 3, 64, 64))) == SMP["Unet"]


@pytest.mark.parametrize("bilinear", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (75, 97)])
def test_a_hand_written_unet(bilinear: bool, size: tuple[int, int]) -> None:
    table = find_layers(UNet(bilinear=bilinear), torch.rand(1, 1, *size))
    assert [(layer.name, layer.stage, layer.stride) for layer in table] == [
        ("inc", "encoder", 1),
        ("down1", "encoder", 2),
        ("down2", "encoder", 4),
        ("down3", "encoder", 8),
        ("down4", "bottleneck", 16),
        ("up1", "decoder", 8),
        ("up2", "decoder", 4),
        ("up3", "decoder", 2),
        ("up4", "decoder", 1),
        ("outc", "head", 1),
    ]
    assert [layer.skips for layer in table if layer.stage == "decoder"] == [
        ("down3",),
        ("down2",),
        ("down1",),
        ("inc",),
    ]
    assert [layer.channels for layer in table][-1] == 3


def test_names_that_say_nothing() -> None:
    table = find_layers(Nameless(), torch.rand(1, 1, 32, 32))
    assert decoder(table) == (["k.aa", "k.r"], [2, 1])
    assert table[-1].name == "z9"
    assert [layer.skips for layer in table[-3:-1]] == [("k.b",), ("k.p",)]


def test_convolutions_without_padding_do_not_bend_the_strides() -> None:
    table = find_layers(ValidUNet(), torch.rand(1, 1, 132, 148))
    assert decoder(table) == (["up.0", "up.1", "up.2"], [4, 2, 1])


def test_three_dimensions() -> None:
    table = find_layers(UNet3d(), torch.rand(1, 1, 16, 16, 16))
    assert decoder(table) == (["dec2", "dec1"], [2, 1])
    assert [layer.skips for layer in table if layer.stage == "decoder"] == [("enc2",), ("enc1",)]


class Wrapped(nn.Module):
    def __init__(self, answer: str) -> None:
        super().__init__()
        self.net, self.answer = UNet(), answer
        self.side = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> object:
        logits = self.net(x)
        small = self.side(F.avg_pool2d(logits, 2))
        return {
            "tuple": (logits, small),
            "list": [small, logits],
            "dict": {"out": logits, "aux": small},
            "odd": SimpleOutput(logits),
        }[self.answer]


class SimpleOutput:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.parametrize("answer", ["tuple", "list", "dict"])
def test_understands_what_networks_return(answer: str) -> None:
    expected = ["net.up1", "net.up2", "net.up3", "net.up4"]
    model = Wrapped(answer)
    assert list(find_layers(model, torch.rand(1, 1, 32, 32)).decoder) == expected
    result = UNetCAM(model)(torch.rand(1, 1, 32, 32))
    assert result.logits.shape == (1, 3, 32, 32)


def test_anything_else_takes_a_callable() -> None:
    model, image = Wrapped("odd"), torch.rand(1, 1, 32, 32)
    with pytest.raises(ModelError, match=r"SimpleOutput .* pass output=callable"):
        find_layers(model, image)
    with pytest.raises(ModelError, match="pass output=callable"):
        UNetCAM(model, ["net.up4"])(image)
    table = find_layers(model, image, output=lambda out: out.logits)
    assert table.decoder[-1] == "net.up4"
    result = UNetCAM(model, output=lambda out: out.logits)(image)
    assert result.layers == table.decoder
    with pytest.raises(ModelError, match="output= gave SimpleOutput"):
        UNetCAM(model, ["net.up4"], output=lambda out: out)(image)


def test_a_plain_stack_of_convolutions_is_explained_at_its_last_map() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    assert find_layers(model, torch.rand(1, 1, 8, 8)).decoder == ("1",)


def test_a_network_without_a_feature_map_asks_for_help() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1))
    with pytest.raises(LayerError, match="No decoder layer was found"):
        UNetCAM(model)(torch.rand(1, 1, 8, 8))


def test_torchscript_and_quantised_models_are_refused_with_the_remedy() -> None:
    script = torch.jit.trace(UNet().eval(), torch.rand(1, 1, 16, 16))
    quantised = nn.Sequential(torch.ao.nn.quantized.ReLU6())
    for model, word in ((script, "TorchScript"), (quantised, "quantised")):
        for call in (lambda m: UNetCAM(m), lambda m: find_layers(m, torch.rand(1, 1, 16, 16))):
            with pytest.raises(ModelError, match=word):
                call(model)
    with pytest.raises(ModelError, match=r"torch\.nn\.Module"):
        UNetCAM("unet.pt")  # type: ignore[arg-type]


def test_the_table_prints_and_turns_into_rows() -> None:
    table = find_layers(UNet3d(), torch.rand(1, 1, 8, 8, 8))
    assert "dec2   decoder          2         8  4x4x4  enc2" in str(table)
    row = table.to_rows()[-2]
    assert (row["name"], row["stride"], row["size"]) == ("dec1", 1, (8, 8, 8))


class Block(nn.Module):
    """U²-Net's: a small U-Net of its own, with a residual past it."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(inputs, width, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.bottom = nn.Conv2d(width, width, 3, padding=2, dilation=2)
        self.up = nn.ModuleList(nn.Conv2d(2 * width, width, 3, padding=1) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        whole = x = torch.relu(self.enter(x))
        skips = []
        for conv in self.down:
            skips.append(torch.relu(conv(x)))
            x = F.max_pool2d(skips[-1], 2)
        x = torch.relu(self.bottom(x))
        for conv in self.up:
            skip = skips.pop()
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear")
            x = torch.relu(conv(torch.cat([x, skip], dim=1)))
        return x + whole


class Nested(nn.Module):
    """U²-Net: a U-Net whose stages are U-Nets, and side outputs that are fused."""

    def __init__(self, *, deep: bool = True) -> None:
        super().__init__()
        self.e1, self.e2, self.e3 = Block(1, 8, 3), Block(8, 8, 2), Block(8, 8, 1)
        self.d2, self.d1 = Block(16, 8, 2), Block(16, 8, 3)
        self.side = nn.ModuleList(nn.Conv2d(8, 1, 3, padding=1) for _ in range(3))
        self.fuse, self.deep = nn.Conv2d(3, 1, 1), deep

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        a = self.e1(x)
        b = self.e2(F.max_pool2d(a, 2))
        c = self.e3(F.max_pool2d(b, 2))
        b = self.d2(torch.cat([F.interpolate(c, scale_factor=2), b], dim=1))
        a = self.d1(torch.cat([F.interpolate(b, scale_factor=2), a], dim=1))
        sides = [
            F.interpolate(side(y), size=x.shape[2:])
            for side, y in zip(self.side, (a, b, c), strict=True)
        ]
        if not self.deep:
            return (sides[0],)
        return (self.fuse(torch.cat(sides, dim=1)), *sides)


@pytest.mark.parametrize("deep", [False, True])
def test_blocks_that_are_unets_themselves_are_steps_of_the_outer_one(deep: bool) -> None:
    table = find_layers(Nested(deep=deep), torch.rand(1, 1, 64, 64))
    assert decoder(table) == (["d2", "d1"], [2, 1])
    assert [(layer.name, layer.stride) for layer in table if layer.stage == "encoder"] == [
        ("e1", 1),
        ("e2", 2),
    ]
    assert [layer.skips for layer in table if layer.stage == "decoder"] == [("e2",), ("e1",)]


def test_of_unets_one_behind_the_other_the_last_is_explained() -> None:
    model = nn.Sequential(UNet(1, 2), UNet(2, 3))
    found = decoder(find_layers(model, torch.rand(1, 1, 32, 32)))
    assert found == (["1.up1", "1.up2", "1.up3", "1.up4"], [8, 4, 2, 1])


class Gated(nn.Module):
    """An attention gate weighs the skip; what gates is upsampled itself, and no way."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.gate, self.psi = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
        self.weigh, self.dec = nn.Identity(), nn.Conv2d(8, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc(x)
        up = F.interpolate(self.mid(F.max_pool2d(skip, 2)), scale_factor=2)
        weight = torch.sigmoid(self.psi(torch.relu(self.gate(up) + skip)))
        return self.out(self.dec(torch.cat([skip * weight, up], dim=1)))


def test_what_gates_a_skip_is_not_the_way() -> None:
    table = find_layers(Gated(), torch.rand(1, 1, 16, 16))
    assert [(layer.name, layer.skips, layer.parts) for layer in table[1:]] == [
        ("mid", (), ()),
        ("dec", ("enc",), ("skip", "path")),
        ("out", (), ()),
    ]
