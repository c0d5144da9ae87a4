"""The region field agrees with the backward, for any region and class."""

from __future__ import annotations

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.engine.test_state import assert_same, state_of, training_network
from tests.networks import Nameless, UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.engine.perturb import Recording
from unetcam.errors import (
    DataError,
    LayerError,
    ModelError,
    NumericalError,
    TargetError,
    UnetcamError,
)
from unetcam.region_field import RegionField
from unetcam.targets import (
    ClassScore,
    Pixel,
    PredictedRegion,
    Region,
    Target,
    TruthRegion,
)

IMAGE = torch.rand(1, 1, 32, 32, generator=torch.manual_seed(5))
MASK = torch.zeros(32, 32, dtype=torch.bool)
MASK[4:20, 8:30] = True


def smp_unet() -> nn.Module:
    return seeded(smp.Unet("resnet18", encoder_weights=None, classes=3), norms=False)


NETWORKS = {
    "unet": (lambda: seeded(UNet(1, 3)), IMAGE, ["up1", "up2", "up4"]),
    "one channel": (lambda: seeded(UNet(1, 1)), IMAGE, ["up3"]),
    "nameless": (lambda: seeded(Nameless()), IMAGE, ["k.aa", "k.r"]),
    "smp": (smp_unet, torch.rand(1, 3, 32, 32), ["decoder.blocks.2", "decoder.blocks.4"]),
    "3-D": (lambda: seeded(UNet3d()), torch.rand(1, 1, 8, 8, 8), ["dec2", "dec1"]),
}


def targets_for(image: Tensor) -> list[Target]:
    size = image.shape[2:]
    mask = torch.zeros(size, dtype=torch.bool)
    mask[tuple(slice(1, n // 2) for n in size)] = True
    pixel = dict(zip(("y", "x", "z"), (3, 5, 2)[: len(size)], strict=False))
    return [
        ClassScore(0),
        ClassScore(1),
        ClassScore(1, on="probability"),
        ClassScore(0, on="log_probability"),
        Region(1, mask),
        TruthRegion(1, mask.long()),
        TruthRegion(0, torch.ones(size)),  # absent
        PredictedRegion(0),
        PredictedRegion(1),
        Pixel(1, **pixel),
    ]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_the_backward(name: str, dtype: torch.dtype, tolerance: float) -> None:
    """Relative to each map's own scale: its weights times its activation, before cancellation."""
    make, image, layers = NETWORKS[name]
    model, image = make().to(dtype), image.to(dtype)
    wanted = targets_for(image)
    result = UNetCAM(model, layers)(image, wanted)
    for layer in layers:
        field = UNetCAM(model).field(image, layer)
        assert field.layer == layer
        torch.testing.assert_close(field.logits, result.logits[0])
        scale = (field.weights(wanted).abs() @ field.activation.flatten(1).abs()).amax(1)
        ours = field.map(wanted)
        for index, expected in enumerate(result[layer][0]):
            if expected.isnan().all():
                assert ours[index].isnan().all()
            else:
                assert (ours[index] - expected).abs().max() <= tolerance * scale[index]
        one = field.map(wanted[1])
        assert one.shape == result[layer].shape[2:]
        assert (one - ours[1]).abs().max() <= tolerance * scale[1]


def test_many_regions_at_once_agree_with_one_by_one() -> None:
    generator = torch.manual_seed(9)
    for classes in (3, 1):
        model = seeded(UNet(1, classes)).double()
        field = UNetCAM(model, ["up3"]).field(IMAGE.double())
        masks = torch.rand(7, 32, 32, generator=generator) > 0.7
        masks[3] = False
        of_class = torch.randint(0, max(2, classes), (7,), generator=generator)
        maps, weights = field.region_maps(masks, of_class), field.region_weights(masks, of_class)
        assert maps[3].isnan().all()
        for index in (0, 1, 2, 4, 5, 6):
            region = Region(int(of_class[index]), masks[index])
            torch.testing.assert_close(maps[index], field.map(region), rtol=1e-10, atol=1e-14)
            expected = field.weights(region)
            torch.testing.assert_close(weights[index], expected, rtol=1e-10, atol=1e-14)


def test_many_targets_are_differentiated_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    field = UNetCAM(seeded(UNet(1, 3)).double(), ["up3"]).field(IMAGE.double())
    wanted = targets_for(IMAGE)
    whole = field.weights(wanted)
    each = 4 * field.logits.numel() * field.logits.element_size()
    monkeypatch.setattr("unetcam.region_field.memory_bytes", lambda budget, device: 2 * each)
    parts = field.weights(wanted)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-14, equal_nan=True)


def test_a_pooled_field_is_exact_for_unions_of_cells() -> None:
    model = seeded(UNet(1, 3)).double()
    field = UNetCAM(model, ["up3"]).field(IMAGE.double())
    pooled = field.pool((8, 4))
    assert pooled.derivative.shape == (8, 3, 8, 4)
    cells = torch.rand(5, 8, 4, generator=torch.manual_seed(2)) > 0.5
    full = cells.repeat_interleave(4, 1).repeat_interleave(8, 2)
    expected = field.region_maps(full, [0, 1, 2, 0, 1])
    for masks in (cells, full):
        torch.testing.assert_close(pooled.region_maps(masks, [0, 1, 2, 0, 1]), expected)
    torch.testing.assert_close(pooled.map(ClassScore(2)), field.map(ClassScore(2)))
    torch.testing.assert_close(pooled.map(Region(1, full[1])), expected[1])
    torch.testing.assert_close(pooled.pool((2, 2)).map(ClassScore(0)), field.map(ClassScore(0)))


def test_a_pooled_field_refuses_what_cuts_through_a_cell() -> None:
    pooled = UNetCAM(seeded(UNet(1, 3)), ["up3"]).field(IMAGE).pool((8, 8))
    cut = torch.zeros(32, 32)
    cut[:, :3] = 1
    for target in (Region(0, cut), Pixel(0, y=0, x=0), ClassScore(1, on="probability")):
        with pytest.raises(TargetError, match="not constant on the cells of a field pooled to"):
            pooled.map(target)
    with pytest.raises(TargetError, match="cuts through cells"):
        pooled.region_maps(cut[None], [0])
    with pytest.raises(ValueError, match="does not divide"):
        pooled.pool((3, 8))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_the_mean_over_two_disjoint_regions_is_their_weighted_mean(
    seed: int, class_index: int
) -> None:
    """Weights are linear in the region (float64, 1e-10)."""
    field = cached_field()
    label = torch.randint(0, 3, (32, 32), generator=torch.manual_seed(seed))
    a, b = label == 0, label == 1
    both = field.weights(Region(class_index, a | b)) * (a | b).sum()
    parts = sum(field.weights(Region(class_index, m)) * m.sum() for m in (a, b))
    torch.testing.assert_close(both, parts, rtol=1e-10, atol=1e-14)


_FIELDS: list[RegionField] = []


def cached_field() -> RegionField:
    if not _FIELDS:
        _FIELDS.append(UNetCAM(seeded(UNet(1, 3)).double(), ["up2"]).field(IMAGE.double()))
    return _FIELDS[0]


def test_a_saved_field_comes_back_in_half_precision(tmp_path: Path) -> None:
    field = UNetCAM(seeded(UNet(1, 3)), ["up3"]).field(IMAGE[0]).pool((8, 8))
    path = tmp_path / "field.safetensors"
    field.save(path)
    loaded = RegionField.load(path)
    assert loaded.layer == "up3"
    for name in ("activation", "derivative", "logits"):
        ours, theirs = getattr(field, name), getattr(loaded, name)
        assert theirs.dtype == torch.float32
        peak = ours.flatten(1).abs().amax(1).view(-1, *[1] * (ours.ndim - 1))
        assert ((ours - theirs).abs() <= 5e-4 * peak).all()
    ours, theirs = (f.map(ClassScore(1)) for f in (field, loaded))
    assert (ours - theirs).abs().max() <= 5e-3 * ours.max()


def test_a_file_that_is_no_field_says_so(tmp_path: Path) -> None:
    path = tmp_path / "not.safetensors"
    path.write_bytes(b"nothing")
    for wrong in (path, tmp_path / "missing.safetensors"):
        with pytest.raises(DataError, match="is no field that unetcam wrote"):
            RegionField.load(wrong)


def test_leaves_the_model_as_found_also_when_an_exception_flies() -> None:
    model = training_network()
    before = state_of(model)
    attributes = [dict.fromkeys(vars(module)) for module in model.modules()]
    UNetCAM(model, ["up2"]).field(IMAGE)
    with pytest.raises(ModelError, match="can't pick the logits"):
        UNetCAM(model, ["up2"], output=_explode()).field(IMAGE)
    assert_same(before, state_of(model))
    assert attributes == [dict.fromkeys(vars(module)) for module in model.modules()]


def _explode() -> object:
    calls = []

    def output(returned: Tensor) -> Tensor:
        calls.append(returned)
        if len(calls) > 2:  # behind the traced run and the plain one
            raise KeyError("target")
        return returned

    return output


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 1.0


@pytest.mark.parametrize(("budget", "passes"), [(1, 6), (300_000, 2), (None, 1)])
def test_what_lies_before_the_layer_runs_once_whatever_the_chunks(
    budget: int | None, passes: int
) -> None:
    before, behind = Counter(), Counter()
    conv = [nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, 6), (6, 6), (6, 2))]
    model = nn.Sequential(
        nn.Sequential(conv[0], before), conv[1], nn.ReLU(inplace=True), behind, conv[2]
    )
    cam = UNetCAM(model, ["1"])
    expected = cam.field(IMAGE).derivative
    before.calls = behind.calls = 0
    field = cam.field(IMAGE, memory_budget=budget)
    assert before.calls == 1
    assert behind.calls == 1 + passes
    torch.testing.assert_close(field.derivative, expected)


def test_a_users_hook_before_the_layer_counts_once() -> None:
    model = seeded(UNet(1, 3))
    model.down1.register_forward_hook(lambda module, args, out: out * 2)
    field = UNetCAM(model, ["up2"]).field(IMAGE)
    expected = UNetCAM(model, ["up2"])(IMAGE, [ClassScore(1)])["up2"][0, 0]
    torch.testing.assert_close(field.map(ClassScore(1)), expected, rtol=1e-4, atol=1e-8)


class SharedTwice(nn.Module):
    """A module that runs before the layer and again behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.layer = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1)
        self.out = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.shared(torch.tanh(self.layer(self.shared(self.first(x))))))


def test_a_module_that_runs_before_and_behind_the_layer_is_not_replayed() -> None:
    model = seeded(SharedTwice()).double()
    image = IMAGE.double()
    field = UNetCAM(model, ["layer"]).field(image)
    expected = UNetCAM(model, ["layer"])(image, [ClassScore(1)])["layer"][0, 0]
    torch.testing.assert_close(field.map(ClassScore(1)), expected, rtol=1e-10, atol=1e-14)
    recording = Recording(model, model.layer, image)
    assert set(recording.outputs) == {model.first}


def test_running_out_of_memory_halves_the_chunk_and_says_so_once() -> None:
    from unetcam.engine.memory import chunked

    sizes: list[int] = []

    def greedy(rows: Tensor) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return rows * 2

    rows = torch.arange(7)
    with pytest.warns(RuntimeWarning, match="out of memory") as caught:
        parts = chunked(greedy, rows, each=1, memory=100)
    assert torch.equal(torch.cat(parts), rows * 2)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert len(caught) == 1
    with pytest.raises(torch.OutOfMemoryError):
        chunked(lambda row: greedy(torch.zeros(3)), rows, each=1, memory=1)


@pytest.mark.parametrize("budget", [0, -5, 1.5])
def test_a_budget_that_is_none_is_refused(budget: float) -> None:
    with pytest.raises(ValueError, match="memory_budget="):
        UNetCAM(UNet(1, 3), ["up4"]).field(IMAGE, memory_budget=budget)


def test_mistakes_are_one_sentence() -> None:
    model = seeded(UNet(1, 3))
    with pytest.raises(UnetcamError, match="this UNetCAM is set to 'hirescam'"):
        UNetCAM(model, ["up4"], "hirescam").field(IMAGE)
    with pytest.raises(ModelError, match="belongs to one image, and 2 were given"):
        UNetCAM(model, ["up4"]).field(IMAGE.expand(2, -1, -1, -1))
    with pytest.raises(LayerError, match=r"did you mean .*'up4'"):
        UNetCAM(model).field(IMAGE, "up5")
    with pytest.raises(NumericalError, match="NaN or infinity in the field of layer 'up4'"):
        UNetCAM(model).field(IMAGE * torch.nan, "up4")
    field = UNetCAM(model).field(IMAGE, "up4")
    with pytest.raises(TargetError, match=r"masks have the shape \(8, 8\)"):
        field.region_maps(torch.ones(1, 8, 8), [0])
    with pytest.raises(TargetError, match="2 masks need as many classes, each from 0 to 2"):
        field.region_maps(torch.ones(2, 32, 32), [0, 3])


def test_a_halved_networks_field_counts_large_regions() -> None:
    """Half precision holds no more than 65,504 pixels."""
    model = seeded(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    image = torch.rand(1, 1, 288, 288, generator=torch.manual_seed(8))
    field = UNetCAM(model.half(), ["1"]).field(image.half())
    assert field.map(ClassScore(1)).dtype == torch.float32
    whole = field.region_weights(torch.ones(1, 288, 288), [1])[0]
    torch.testing.assert_close(whole, field.weights(ClassScore(1)), rtol=1e-3, atol=1e-9)
    assert (whole != 0).any()
