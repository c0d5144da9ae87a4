"""An image explained tile by tile is the same image explained as one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.networks import UNet, UNet3d, ValidUNet, seeded
from unetcam import UNetCAM, methods
from unetcam.data.tiles import Tiling
from unetcam.engine import Collected, Request
from unetcam.errors import DataError, LayerError, ModelError, NumericalError, UnetcamError
from unetcam.methods import GradientMethod, Method
from unetcam.targets import (
    Band,
    Box,
    ClassScore,
    Component,
    Contrast,
    FalseNegatives,
    FalsePositives,
    Function,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
    predict,
)


def network(dims: int = 2, classes: int = 3) -> nn.Module:
    conv, up = (nn.Conv2d if dims == 2 else nn.Conv3d), nn.Upsample
    return seeded(
        nn.Sequential(
            conv(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            up(scale_factor=2),
            conv(4, 5, 3, padding=1),
            nn.ReLU(),
            conv(5, classes, 1),
        )
    )


#: One weight a channel, products, and methods that are not linear in the gradient.
METHODS = [name for name in methods.names() if isinstance(methods.get(name), GradientMethod)]
#: No logit and no layer's pixel depends on more than four pixels to each side.
REACH = 4
IMAGE = torch.rand(1, 1, 72, 96, generator=torch.manual_seed(8))


def targets() -> list[Target]:
    size = (72, 96)
    generator = torch.Generator().manual_seed(2)
    mask = torch.zeros(size, dtype=torch.bool)
    mask[5:45, 5:45] = True  # larger than a tile
    truth = torch.randint(0, 3, size, generator=generator)
    return [
        ClassScore(0),
        ClassScore(1, on="probability"),
        ClassScore(2, on="log_probability"),
        Region(1, mask),
        PredictedRegion(2),
        TruthRegion(1, truth),
        Pixel(1, y=33, x=21),
    ]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tiles_agree_with_the_whole_up_to_rounding(method: str, dtype: torch.dtype) -> None:
    """Also at the image's edge: a tile that ends there sees the same as the whole."""
    cam = UNetCAM(network().to(dtype), ["1", "4"], method)
    wanted = targets()
    whole = cam(IMAGE.to(dtype), wanted)
    tiled = cam.tiled(IMAGE.to(dtype), 32, 4 * REACH, batch=3, targets=wanted)
    rtol = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(tiled.logits, whole.logits, rtol=rtol, atol=rtol)
    for layer in ("1", "4"):
        peak = whole[layer].amax(dim=(2, 3), keepdim=True)
        assert tiled[layer].shape == whole[layer].shape
        assert (peak > 0)[:, :6].all()  # so that there is something to compare
        assert ((tiled[layer] - whole[layer]).abs() <= rtol * peak).all()


@pytest.mark.parametrize("method", METHODS)
def test_every_kind_of_target_is_one_of_the_whole_image(method: str) -> None:
    """Also where its region, its contour or its opponent is found in the blended logits."""
    truth = torch.randint(0, 3, (9, 12), generator=torch.manual_seed(1))
    truth = truth.repeat_interleave(8, dim=0).repeat_interleave(8, dim=1)
    wanted: list[Target] = [
        Box(1, y=(10, 50), x=(20, 70)),
        FalsePositives(2, truth),
        FalseNegatives(1, truth, on="probability"),
        Contrast(1),
        Contrast(2, truth, within=FalsePositives(2, truth)),
        Band(0, of=TruthRegion(0, truth)),
        Component(2),
        ClassScore(1, head="sigmoid", on="probability"),
        Function(lambda logits: logits[:, 2].flatten(1).amax(dim=1)),
    ]
    cam = UNetCAM(network().double(), ["1", "4"], method)
    whole = cam(IMAGE.double(), wanted)
    tiled = cam.tiled(IMAGE.double(), 32, 4 * REACH, targets=wanted)
    for layer in ("1", "4"):
        assert not whole[layer].isnan().any()
        peak = whole[layer].amax(dim=(2, 3), keepdim=True)
        assert ((tiled[layer] - whole[layer]).abs() <= 1e-10 * peak + 1e-14).all()


@pytest.mark.parametrize("method", METHODS)
def test_volumes_agree_with_the_whole(method: str) -> None:
    volume = torch.rand(1, 1, 48, 64, 24, generator=torch.manual_seed(1))
    cam = UNetCAM(network(3), ["1", "4"], method)
    wanted = [
        ClassScore(1),
        Pixel(0, z=20, y=31, x=10),
        PredictedRegion(int(predict(cam(volume).logits)[0, 3, 3, 3])),
    ]
    whole = cam(volume, wanted)
    tiled = cam.tiled(volume, (32, 32, 64), 4 * REACH, batch=2, targets=wanted)
    for layer in ("1", "4"):
        peak = whole[layer].amax(dim=(2, 3, 4), keepdim=True)
        assert ((tiled[layer] - whole[layer]).abs() <= 1e-5 * peak).all()


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_cut_agrees_with_the_whole(data: st.DataObject) -> None:
    """Whatever the sizes, as long as the overlap is four times the reach (float64, 1e-10)."""
    sides = [2 * data.draw(st.integers(6, 40)) for _ in range(2)]
    overlap = 4 * REACH
    tile = [overlap + 2 * data.draw(st.integers(1, 12)) for _ in range(2)]
    image = torch.rand(1, 1, *sides, dtype=torch.float64)
    method = data.draw(st.sampled_from(METHODS))
    y, x = (data.draw(st.integers(0, side - 1)) for side in sides)
    wanted = [ClassScore(1, on="probability"), Pixel(2, y=y, x=x)]
    cam = UNetCAM(network().double(), ["1", "4"], method)
    whole = cam(image, wanted)
    tiled = cam.tiled(image, tile, overlap, batch=data.draw(st.integers(1, 5)), targets=wanted)
    for layer in ("1", "4"):
        assert ((tiled[layer] - whole[layer]).abs() <= 1e-10 * whole[layer].max()).all()


def test_without_that_overlap_the_seams_show() -> None:
    """The margin is what makes it exact, so without one it is not."""
    cam = UNetCAM(network(), ["4"])
    whole, tiled = cam(IMAGE).logits, cam.tiled(IMAGE, 32, 0).logits
    assert (tiled - whole).abs().max() > 1e-3 * whole.abs().max()


class Blended(nn.Module):
    """The same as one network: cut, run, blend; what tiled() is said to explain."""

    def __init__(self, model: nn.Module, tiling: Tiling) -> None:
        super().__init__()
        self.model, self.tiling = model, tiling

    def forward(self, image: Tensor) -> Tensor:
        tiles = torch.cat([image[(..., *window)] for window in self.tiling.windows])
        whole = None
        for number, logits in enumerate(self.model(tiles)):
            window = self.tiling.windows[number]
            pads = [
                side
                for cut, size in zip(reversed(window), reversed(self.tiling.size), strict=True)
                for side in (cut.start, size - cut.stop)
            ]
            placed = F.pad(logits * self.tiling.share(number, logits), pads)
            whole = placed if whole is None else whole + placed
        return whole[None]


@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_a_network_that_sees_too_far_is_explained_as_its_tiles_are_blended(method: str) -> None:
    """Against one autograd graph of all tiles, float64, also where tiles disagree."""
    model, tiling = seeded(UNet(1, 3)).double(), Tiling.cut((72, 96), 32, 8)
    image = IMAGE.double()
    kept: list[Tensor] = []
    hook = model.up3.register_forward_hook(lambda module, args, out: kept.append(out))
    logits = Blended(model, tiling)(image)
    hook.remove()
    grid = tiling.at((16, 16))
    assert grid is not None
    wanted = targets()[:5]
    tiled = UNetCAM(model, ["up3"], method).tiled(image, 32, 8, batch=4, targets=wanted)
    torch.testing.assert_close(tiled.logits, logits.detach(), rtol=1e-12, atol=1e-12)
    for row, target in enumerate(wanted):
        (gradient,) = torch.autograd.grad(target.score(logits).value, kept[0], retain_graph=True)
        expected = torch.zeros(grid.size, dtype=torch.float64)
        weights = gradient.sum(dim=(0, 2, 3)) / expected.numel()
        for number, window in enumerate(grid.windows):
            if method == "gradcam":
                part = torch.einsum("k,khw->hw", weights, kept[0][number].detach())
                expected[window] += part * grid.share(number, part)
            else:
                expected[window] += (gradient[number] * kept[0][number].detach()).sum(dim=0)
        expected = expected.relu()
        torch.testing.assert_close(
            tiled["up3"][0, row], expected, rtol=1e-9, atol=1e-11 * float(expected.max())
        )


def test_the_size_of_the_batch_makes_no_difference() -> None:
    cam, wanted = UNetCAM(seeded(UNet(1, 3))), targets()
    one, many = (
        cam.tiled(IMAGE, 32, 8, batch=batch, targets=wanted).scaled() for batch in (1, 100)
    )
    for layer in one.layers:
        torch.testing.assert_close(one[layer], many[layer], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "layercam"])
@pytest.mark.parametrize("sign", ["negative", "signed"])
def test_evidence_of_either_sign(sign: str, method: str) -> None:
    cam = UNetCAM(network().double(), ["1", "4"], method, sign=sign)
    whole = cam(IMAGE.double(), targets())
    tiled = cam.tiled(IMAGE.double(), 32, 4 * REACH, targets=targets())
    for layer in ("1", "4"):
        assert (whole[layer] < 0).any() == (sign == "signed")
        torch.testing.assert_close(tiled[layer], whole[layer], rtol=1e-9, atol=1e-12)


class Tokens(nn.Module):
    """Patches as tokens (B, N, K), each seen alone, and one module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 8, 4, stride=4)
        self.mix = nn.Linear(8, 8)
        self.out = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch(x)
        tokens = self.mix(patches.flatten(2).transpose(1, 2)).relu()
        tokens = self.mix(tokens)
        grid = tokens.transpose(1, 2).view_as(patches)
        return self.out(F.interpolate(grid, scale_factor=4))


@pytest.mark.parametrize("method", METHODS)
def test_tokens_and_single_runs_are_put_together_as_maps_are(method: str) -> None:
    cam = UNetCAM(seeded(Tokens()).double(), ["mix#1", "mix#2"], method)
    wanted = [ClassScore(1), Box(0, y=(30, 60), x=(4, 50))]
    whole = cam(IMAGE.double(), wanted)
    tiled = cam.tiled(IMAGE.double(), 32, 8, batch=3, targets=wanted)
    for layer in cam.layers:
        assert tiled[layer].shape == (1, 2, 18, 24)
        torch.testing.assert_close(tiled[layer], whole[layer], rtol=1e-9, atol=1e-14)


def test_layers_are_found_and_the_model_is_left_as_found() -> None:
    model = seeded(UNet(1, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = UNetCAM(model).tiled(IMAGE[0], 32, 8)
    assert result.layers == ("up1", "up2", "up3", "up4")
    assert [tuple(maps.shape) for maps in result.maps.values()] == [
        (1, 3, 9, 12),
        (1, 3, 18, 24),
        (1, 3, 36, 48),
        (1, 3, 72, 96),
    ]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_tile_as_large_as_the_image_is_the_plain_call() -> None:
    cam = UNetCAM(seeded(UNet3d()), method="hirescam")
    volume = torch.rand(1, 1, 8, 16, 8, generator=torch.manual_seed(1))
    whole, tiled = cam(volume), cam.tiled(volume, 64, 8)
    for layer in whole.layers:
        torch.testing.assert_close(tiled[layer], whole[layer])


class Counted(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        return self.model(x)


def test_tiles_that_a_target_does_not_touch_are_left_out_and_progress_is_told() -> None:
    model = Counted(network())
    steps: list[tuple[int, int]] = []
    UNetCAM(model, ["model.4"], "hirescam").tiled(
        IMAGE, 24, 8, targets=Pixel(1, y=2, x=3), progress=lambda *step: steps.append(step)
    )
    tiles = len(Tiling.cut((72, 96), 24, 8))
    assert tiles == 24
    assert model.forwards == tiles + 2  # a look at one, the logits of all, the gradient of one
    assert steps[-1] == (2 * tiles, 2 * tiles)
    assert steps[0] == (1, 3 * tiles)  # how many walks a method needs is known after the first
    assert [done for done, _ in steps] == sorted({done for done, _ in steps})


def test_an_absent_region_has_no_map_and_no_gradient_is_asked_for() -> None:
    model = Counted(network())
    absent = TruthRegion(1, torch.zeros(72, 96))
    result = UNetCAM(model, ["model.4"]).tiled(IMAGE, 24, 8, targets=[absent, ClassScore(1)])
    assert result["model.4"][0, 0].isnan().all()
    assert not result["model.4"][0, 1].isnan().any()
    alone = UNetCAM(model, ["model.1"]).tiled(IMAGE, 24, 8, targets=absent)
    assert alone["model.1"].shape == (1, 1, 36, 48)
    assert alone["model.1"].isnan().all()


@pytest.mark.parametrize("classes", [1, 3])
def test_a_one_channel_output_has_two_classes(classes: int) -> None:
    cam = UNetCAM(network(classes=classes), ["4"])
    whole, tiled = cam(IMAGE), cam.tiled(IMAGE, 32, 16)
    assert tiled.targets == whole.targets
    torch.testing.assert_close(tiled["4"], whole["4"], rtol=1e-4, atol=1e-6)


def test_half_precision_is_blended_in_single() -> None:
    model = network().to(torch.bfloat16)
    result = UNetCAM(model, ["4"]).tiled(IMAGE.to(torch.bfloat16), 32, 16)
    assert result.logits.dtype == result["4"].dtype == torch.float32
    exact = UNetCAM(network(), ["4"])(IMAGE)
    torch.testing.assert_close(
        result.scaled(by="image")["4"], exact.scaled(by="image")["4"], rtol=0, atol=0.05
    )


def test_inside_inference_mode() -> None:
    cam = UNetCAM(network(), ["4"])
    with torch.inference_mode():
        result = cam.tiled(IMAGE.clone(), 32, 16)
    torch.testing.assert_close(result["4"], cam.tiled(IMAGE, 32, 16)["4"])


class ForwardOnly(Method):
    name = "forward-only"

    def explain(self, request: Request) -> Collected:
        raise AssertionError


def test_what_cannot_be_tiled_says_why() -> None:
    cam = UNetCAM(network(), ["1"])
    with pytest.raises(ModelError, match=r"Tiles of 92 x 92 give logits of 4 x 4: .* padded"):
        UNetCAM(seeded(ValidUNet()), ["out"]).tiled(torch.rand(1, 1, 92, 140), 92, 16)
    with pytest.raises(LayerError, match=r"maps of 16 x 16 at layer '1'.*multiples of the network"):
        cam.tiled(torch.rand(1, 1, 73, 96), 32, 16)
    with pytest.raises(UnetcamError, match=r"'forward-only' is not made of one gradient"):
        UNetCAM(network(), ["1"], ForwardOnly()).tiled(IMAGE, 32, 16)
    with pytest.raises(DataError, match=r"One image .* this is \(2, 1, 32, 32\)"):
        cam.tiled(torch.rand(2, 1, 32, 32), 16, 4)
    with pytest.raises(DataError, match="this is list"):
        cam.tiled([[1.0]], 16, 4)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="A batch of 0 tiles"):
        cam.tiled(IMAGE, 16, 4, batch=0)
    with pytest.raises(ModelError, match=r"convert them with images.to\(torch.float32\)"):
        cam.tiled(IMAGE.double(), 16, 4)


def test_what_is_not_finite_is_named() -> None:
    image = IMAGE.clone()
    image[0, 0, 50, 50] = torch.nan
    with pytest.raises(NumericalError, match="NaN or infinity in the logits"):
        UNetCAM(network(), ["1"]).tiled(image, 32, 16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["gradcam", "hirescam"])
def test_the_whole_stays_where_the_image_is(method: str) -> None:
    cam = UNetCAM(network().double().cuda(), ["1", "4"], method)
    image, wanted = IMAGE.double(), targets()
    beside = cam.tiled(image, 32, 16, targets=wanted)
    on_device = cam.tiled(image.cuda(), 32, 16, targets=wanted)
    assert not beside.logits.is_cuda
    assert on_device.logits.is_cuda
    for layer in ("1", "4"):
        assert not beside[layer].is_cuda
        torch.testing.assert_close(beside[layer], on_device[layer].cpu(), rtol=1e-9, atol=1e-14)
