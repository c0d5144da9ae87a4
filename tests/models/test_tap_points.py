"""What a layer's name can stand for: tokens, one of several runs, a skip or an upsampling path."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from tests.engine.test_state import assert_same, state_of
from tests.models.zoo import ZOO
from tests.networks import UNet, seeded
from unetcam import UNetCAM, find_layers
from unetcam.errors import LayerError
from unetcam.models import LoadedModel
from unetcam.targets import ClassScore

IMAGES = torch.rand(2, 1, 16, 24, generator=torch.manual_seed(2), dtype=torch.float64)


def explain(model: nn.Module, layers: list[str], method: str, *, shortcuts: bool = True) -> Any:
    before = state_of(model)
    result = UNetCAM(model, layers, method, shortcuts=shortcuts)(IMAGES, ClassScore(1))
    assert_same(before, state_of(model))
    assert result.layers == tuple(layers)
    return result


def by_hand(activation: Tensor, gradient: Tensor, method: str) -> Tensor:
    if method == "gradcam":
        gradient = gradient.mean(dim=(2, 3), keepdim=True)
    return (activation * gradient).sum(dim=1).relu()


def gradient_of(logits: Tensor, tensor: Tensor) -> Tensor:
    score = logits[:, 1].flatten(1).mean(dim=1).sum()
    return torch.autograd.grad(score, tensor, retain_graph=True)[0]


EVERY_WAY = pytest.mark.parametrize(
    ("method", "shortcuts"), [("gradcam", True), ("gradcam", False), ("hirescam", True)]
)

# -- tokens ----------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Four by six patches, a class token before them, then a head on their map."""

    def __init__(self, *, class_token: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.token = nn.Parameter(torch.rand(1, 1, 8)) if class_token else None
        self.norm, self.mix = nn.LayerNorm(8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.head = nn.Conv2d(8, 3, 1)

    def stem(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.mix(self.norm(x))
        if self.token is not None:
            x = (x + x[:, :1])[:, 1:]
        x = self.last(x.view(len(x), 4, 6, 8))
        return F.interpolate(self.head(x.permute(0, 3, 1, 2)), scale_factor=4)


@EVERY_WAY
@pytest.mark.parametrize("class_token", [False, True])
def test_tokens_are_explained_on_the_grid_that_they_came_from(
    class_token: bool, method: str, shortcuts: bool
) -> None:
    model = seeded(Tokens(class_token=class_token)).double()
    tokens = model.stem(IMAGES)
    mixed = model.mix(model.norm(tokens))
    x = tokens + mixed
    x = (x + x[:, :1])[:, 1:] if class_token else x
    last = model.last(x.view(2, 4, 6, 8))
    logits = F.interpolate(model.head(last.permute(0, 3, 1, 2)), scale_factor=4)
    result = explain(model, ["mix", "last"], method, shortcuts=shortcuts)

    def as_map(tensor: Tensor) -> Tensor:
        return tensor[:, -24:].reshape(2, 4, 6, 8).permute(0, 3, 1, 2)

    expected = by_hand(as_map(mixed), as_map(gradient_of(logits, mixed)), method)
    torch.testing.assert_close(result["mix"][:, 0], expected, rtol=1e-9, atol=1e-12)
    last_gradient = gradient_of(logits, last).permute(0, 3, 1, 2)
    expected = by_hand(last.permute(0, 3, 1, 2), last_gradient, method)
    torch.testing.assert_close(result["last"][:, 0], expected, rtol=1e-9, atol=1e-12)


def test_the_grid_follows_the_images_size() -> None:
    model = seeded(ZOO["transformers Segformer"].build())
    with UNetCAM(model, ["decode_head.linear_projections.0"]) as cam:
        sizes = [
            tuple(cam(torch.rand(1, 3, *size))[cam.layers[0]].shape[2:])
            for size in ((64, 64), (32, 96), (64, 64))
        ]
    assert sizes == [(16, 16), (8, 24), (16, 16)]


class Windows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(1, 4, 1), nn.Linear(4, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w = len(x), x.shape[2] // 8, x.shape[3] // 8
        x = self.conv(x).view(b, 4, h, 8, w, 8).permute(0, 2, 4, 3, 5, 1)
        x = self.mix(x.reshape(b, h * w * 64, 4))
        x = x.view(b, h, w, 8, 8, 4).permute(0, 5, 1, 3, 2, 4)
        return self.head(x.reshape(b, 4, 8 * h, 8 * w))


def test_tokens_out_of_order_are_refused() -> None:
    model = seeded(Windows()).double()
    with pytest.raises(LayerError, match=r"'mix' .* not in the order of a map"):
        UNetCAM(model, ["mix"])(IMAGES)
    assert find_layers(model, IMAGES).decoder == ("conv",)


# -- runs ------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.conv = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.out = nn.Conv2d(4, 2, 1)

    def runs(self, x: Tensor) -> list[Tensor]:
        found = [self.first(x)]
        for _ in range(3):
            found.append(torch.tanh(found[-1]))
            found.append(self.conv(found[-1]))
        return [*found[2::2], self.out(found[-1])]

    def forward(self, x: Tensor) -> Tensor:
        return self.runs(x)[-1]


@EVERY_WAY
def test_each_run_of_a_module_can_be_named(method: str, shortcuts: bool) -> None:
    model = seeded(Recurrent()).double()
    *runs, logits = model.runs(IMAGES)
    names = [f"conv#{place}" for place in (2, 1, 3)]
    together = explain(model, names, method, shortcuts=shortcuts)
    for name in names:
        run = runs[int(name[-1]) - 1]
        expected = by_hand(run, gradient_of(logits, run), method)
        torch.testing.assert_close(together[name][:, 0], expected, rtol=1e-9, atol=1e-12)
        alone = explain(model, [name], method, shortcuts=shortcuts)
        torch.testing.assert_close(alone[name], together[name], rtol=1e-9, atol=1e-12)


class Tied(nn.Module):
    """One decoder block and one activation for all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4))
        self.dec, self.act = nn.Conv2d(8, 4, 3, padding=1), nn.LeakyReLU()
        self.out = nn.Conv2d(4, 2, 1)

    def maps(self, x: Tensor) -> list[Tensor]:
        a = self.act(self.enc[0](x))
        b = self.act(self.enc[1](F.max_pool2d(a, 2)))
        c = self.act(self.enc[2](F.max_pool2d(b, 2)))
        d = self.act(self.dec(torch.cat([b, F.interpolate(c, scale_factor=2)], dim=1)))
        e = self.act(self.dec(torch.cat([a, F.interpolate(d, scale_factor=2)], dim=1)))
        return [d, e, self.out(e)]

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]


@EVERY_WAY
def test_stages_of_one_module_are_its_runs(method: str, shortcuts: bool) -> None:
    model = seeded(Tied()).double()
    table = find_layers(model, IMAGES)
    assert table.decoder == ("act#4", "act#5")
    assert [layer.skips for layer in table if layer.stage == "decoder"] == [("act#2",), ("act#1",)]
    *maps, logits = model.maps(IMAGES)
    result = UNetCAM(model, method=method, shortcuts=shortcuts)(IMAGES, ClassScore(1))
    for layer, activation in zip(table.decoder, maps, strict=True):
        expected = by_hand(activation, gradient_of(logits, activation), method)
        torch.testing.assert_close(result[layer][:, 0], expected, rtol=1e-9, atol=1e-12)
    part = explain(model, ["act#5:path"], method, shortcuts=shortcuts)
    assert part["act#5:path"].shape == (2, 1, 16, 24)
    with pytest.raises(LayerError, match="'act#3' has no part 'skip'"):
        UNetCAM(model, ["act#3:skip"])(IMAGES)


def test_a_module_that_runs_several_times_asks_for_one_run() -> None:
    model = Recurrent().double()
    with pytest.raises(LayerError, match=r"more than once .* as 'conv#1' or 'conv#2'"):
        UNetCAM(model, ["conv"])(IMAGES)
    with pytest.raises(LayerError, match=r"ran 3 times .* no 'conv#4'"):
        UNetCAM(model, ["conv#4"])(IMAGES)
    with pytest.raises(LayerError, match="no layer 'conf#1': did you mean 'conv'"):
        UNetCAM(model, ["conf#1"])


# -- parts -----------------------------------------------------------------------------------


class Concatenated(nn.Module):
    """All weights positive, so that no ReLU of a map hides anything."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.mid = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 5, 3, padding=1)
        self.dec, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 1)

    def entering(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = torch.relu(self.enc(x))
        return skip, F.interpolate(self.mid(F.max_pool2d(skip, 2)), scale_factor=2)

    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        return self.dec(torch.cat([path, skip], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        x, y = self.entering(x)
        return self.out(F.softplus(self.join(x, y)))


class Added(Concatenated):
    def __init__(self) -> None:
        super().__init__()
        self.mid, self.dec = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)

    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        return self.dec(skip + path)


class AddedInPlace(Added):
    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        path += skip
        return self.dec(path)


class AddedUnseen(Added):
    """The sum is used under the name that its first operand had."""

    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        path.add_(skip)
        return self.dec(path)


@EVERY_WAY
@pytest.mark.parametrize("kind", [Concatenated, Added, AddedInPlace, AddedUnseen])
def test_skip_and_upsampling_path_agree_with_plain_autograd(
    kind: type[Concatenated], method: str, shortcuts: bool
) -> None:
    torch.manual_seed(3)
    model = kind().double()
    assert find_layers(model, IMAGES)[-2].parts == ("skip", "path")
    skip, path = (tensor.detach().requires_grad_() for tensor in model.entering(IMAGES))
    logits = model.out(F.softplus(model.join(skip.clone(), path.clone())))
    expected = {
        "dec:skip": by_hand(skip, gradient_of(logits, skip), method),
        "dec:path": by_hand(path, gradient_of(logits, path), method),
    }
    together = explain(model, ["dec:skip", "dec:path", "dec"], method, shortcuts=shortcuts)
    for name, maps in expected.items():
        assert maps.any()
        torch.testing.assert_close(together[name][:, 0], maps, rtol=1e-9, atol=1e-12)
        alone = explain(model, [name], method, shortcuts=shortcuts)
        torch.testing.assert_close(alone[name], together[name], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(together["dec"], explain(model, ["dec"], method)["dec"])


def test_the_parts_sum_to_what_enters_the_convolution() -> None:
    torch.manual_seed(3)
    model = Concatenated().double()
    parts = explain(model, ["dec:skip", "dec:path"], "hirescam")
    kept: list[Tensor] = []
    handle = model.dec.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(IMAGES)
    handle.remove()
    whole = by_hand(kept[0], gradient_of(logits, kept[0]), "hirescam")
    torch.testing.assert_close(parts["dec:skip"][:, 0] + parts["dec:path"][:, 0], whole)


@EVERY_WAY
@pytest.mark.parametrize("bilinear", [False, True])
def test_parts_of_a_hand_written_unet(bilinear: bool, method: str, shortcuts: bool) -> None:
    """What enters up4's convolutions is the concatenation: its gradient, cut in two."""
    model = seeded(UNet(1, 3, bilinear=bilinear)).double()
    kept: list[Tensor] = []
    handle = model.up4.conv.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    logits = model(IMAGES)
    handle.remove()
    gradient = gradient_of(logits, kept[0])
    cuts = [kept[0].shape[1] // 2] * 2
    result = explain(model, ["up4:path", "up2", "up4:skip"], method, shortcuts=shortcuts)
    for name, a, g in zip(
        ("up4:skip", "up4:path"), kept[0].split(cuts, 1), gradient.split(cuts, 1), strict=True
    ):
        expected = by_hand(a, g, method)
        torch.testing.assert_close(result[name][:, 0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("3-D")])
def test_parts_of_other_peoples_networks(name: str) -> None:
    model, images = ZOO[name].build().eval(), torch.rand(1, *ZOO[name].image)
    table = find_layers(model, images)
    skipped = {layer.name for layer in table if layer.skips}
    assert {part.partition(":")[0] for part in table.parts} == skipped
    if skipped:
        maps = UNetCAM(model, list(table.parts))(images).maps
        sizes = {layer.name: layer.size for layer in table}
        for part, found in maps.items():
            # Convolutions without padding, behind the joint, make a stage's layer smaller.
            own = sizes[part.partition(":")[0]]
            unpadded = name == "Without padding"
            assert found.shape[2:] == own or (unpadded and found.shape[2] > own[0])


def test_a_part_that_is_not_there_names_those_that_are() -> None:
    model = seeded(UNet()).double()
    with pytest.raises(LayerError, match="has no part 'skip2': it has 'up4:skip' or 'up4:path'"):
        UNetCAM(model, ["up4:skip2"])(IMAGES)
    with pytest.raises(LayerError, match="'inc' has no part 'path': no skip was seen"):
        UNetCAM(model, ["inc:path"])(IMAGES)


class Checkpointed(nn.Module):
    """Its upsampling steps are run again in the backward."""

    def __init__(self) -> None:
        super().__init__()
        self.net = UNet(1, 3)
        self.checkpoints = True

    def up(self, name: str, deep: Tensor, skip: Tensor) -> Tensor:
        module = self.net.get_submodule(name)
        if not self.checkpoints:
            return module(deep, skip)
        return checkpoint(module, deep, skip, use_reentrant=False)

    def forward(self, x: Tensor) -> Tensor:
        a, n = self.net.inc(x), self.net
        b = n.down1(a)
        c = n.down2(b)
        d = n.down3(c)
        x = self.up("up1", n.down4(d), d)
        for name, skip in (("up2", c), ("up3", b), ("up4", a)):
            x = self.up(name, x, skip)
        return n.outc(x)


@EVERY_WAY
def test_parts_in_a_gradient_checkpoint(method: str, shortcuts: bool) -> None:
    model = seeded(Checkpointed()).double()
    for names in (["net.up2:skip", "net.up4:path"], ["net.up4:skip", "net.up3"]):
        model.checkpoints = False
        expected = explain(model, names, method, shortcuts=shortcuts)
        model.checkpoints = True
        found = explain(model, names, method, shortcuts=shortcuts)
        for name in names:
            assert expected[name].any()
            torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12)


class CheckpointedRuns(Recurrent):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = checkpoint(self.conv, torch.tanh(x), use_reentrant=False)
        return self.out(x)


def test_runs_in_a_checkpoint_are_told_apart_or_refused() -> None:
    model = seeded(CheckpointedRuns()).double()
    plain = seeded(Recurrent()).double()
    for name in ("conv#2", "conv#3"):
        expected = explain(plain, [name], "hirescam")[name]
        torch.testing.assert_close(explain(model, [name], "hirescam")[name], expected)
    with (
        set_checkpoint_early_stop(False),
        pytest.raises(LayerError, match="turn the checkpointing off"),
    ):
        UNetCAM(model, ["conv#2"])(IMAGES)


class Fickle(Concatenated):
    """What it joins with first depends on a switch."""

    turned = False

    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        both = (skip, path) if self.turned else (path, skip)
        return self.dec(torch.cat(both, dim=1))


def test_a_forward_that_takes_another_course_is_noticed() -> None:
    model = Fickle().double()
    cam = UNetCAM(model, ["dec:skip"], example=IMAGES)
    model.turned = True
    with pytest.raises(LayerError, match=r"took another course .* 'dec:skip' can't be told"):
        cam(IMAGES)


class Attentive(nn.Module):
    """torch's own attention, which it runs in one piece while nothing requires a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.enc, self.up = nn.Conv2d(1, 8, 2, stride=2), nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.deep, self.mix = (
            nn.Conv2d(8, 8, 2, stride=2),
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        )
        self.dec, self.out = nn.Conv2d(8, 4, 1), nn.ConvTranspose2d(4, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.enc(x)
        deep = self.deep(skip)
        tokens = self.mix(deep.flatten(2).mT)
        return self.out(self.dec(skip + self.up(tokens.mT.view(deep.shape))))


def test_parts_behind_torchs_own_attention_and_layers_in_it() -> None:
    model = seeded(Attentive()).double()
    kept: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: kept.update({name: out})
        )
        for name in ("enc", "up", "mix", "mix.linear1")
    ]
    logits = model(IMAGES)
    for handle in handles:
        handle.remove()
    names = ["dec:skip", "dec:path", "mix", "mix.linear1"]
    assert find_layers(model, IMAGES).decoder == ("dec",)
    result = explain(model, names, "hirescam")

    def as_map(tensor: Tensor) -> Tensor:
        return tensor if tensor.ndim == 4 else tensor.mT.unflatten(2, (4, 6))

    up = gradient_of(logits, kept["up"])
    for name, source in zip(names, ("enc", "up", "mix", "mix.linear1"), strict=True):
        gradient = up if name == "dec:skip" else gradient_of(logits, kept[source])
        expected = by_hand(as_map(kept[source]), as_map(gradient), "hirescam")
        alone = explain(model, [name], "hirescam", shortcuts=False)
        for found in (result, alone):
            torch.testing.assert_close(found[name][:, 0], expected, rtol=1e-9, atol=1e-12)


class Stumbling(Concatenated):
    stumbles = False

    def join(self, skip: Tensor, path: Tensor) -> Tensor:
        joined = super().join(skip, path)
        if self.stumbles:
            raise RuntimeError("forward")
        return joined


def test_nothing_is_left_behind_when_an_exception_flies() -> None:
    model = Stumbling().double()
    cam = UNetCAM(model, ["dec:skip"], example=IMAGES)
    model.stumbles = True
    before = state_of(model)
    with pytest.raises(RuntimeError, match="forward"):
        cam(IMAGES)
    assert_same(before, state_of(model))
    assert len(torch.overrides._get_current_function_mode_stack()) == 0


class Cube(nn.Module):
    """Its layer gives as many channels as rows, so that its shape does not tell what it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 3, 1)
        self.runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.runs += 1
        return self.head(self.layer(x).relu())


def test_a_loaded_model_is_traced_once_whoever_explains_it() -> None:
    model, images = seeded(Cube()).double(), IMAGES[:, :, :16, :16]
    loaded = LoadedModel.of(model)
    first = UNetCAM(loaded, ["layer"])(images)["layer"]
    assert model.runs == 2  # the traced one, and the explained one
    second = UNetCAM(loaded, ["layer"])(images)["layer"]
    find_layers(loaded, images)
    assert model.runs == 3
    assert loaded.logits(images).shape == (2, 3, 16, 16)
    assert model.runs == 4
    assert torch.equal(first, second)


class Last(nn.Module):
    """Works on channels last."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.lift, self.act, self.head = nn.Linear(1, 8), act, nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.lift(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))


def test_what_one_network_shows_of_a_module_is_not_said_of_another() -> None:
    act, images = nn.GELU(), IMAGES[:, :, :16, :16]
    first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), act, nn.Conv2d(8, 3, 1)).double()
    UNetCAM(first, ["1"])(images)
    assert UNetCAM(Last(act).double(), ["act"])(images)["act"].shape == (2, 3, 16, 16)


class Uneven(nn.Module):
    """Channels last, with a stride along one axis that makes its shape look like a map's."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(1, 8, (8, 1), stride=(8, 1))
        self.layer, self.head = nn.Linear(8, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(self.shrink(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return F.interpolate(self.head(y), size=x.shape[2:])


def test_uneven_strides_tell_nothing() -> None:
    images = IMAGES[:, :, :16, :16]
    assert UNetCAM(Uneven().double(), ["layer"])(images)["layer"].shape == (2, 3, 2, 16)


def test_a_field_is_of_a_map_alone() -> None:
    model = Last(nn.GELU()).double()
    with pytest.raises(LayerError, match=r"'act'.*holds tokens"):
        UNetCAM(model).field(IMAGES[:1], "act")
