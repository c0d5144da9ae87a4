"""Sizes and scales of maps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.networks import UNet, UNet3d, seeded
from unetcam import UNetCAM
from unetcam.errors import DataError, LayerError, TargetError, UnetcamError
from unetcam.result import CAMResult
from unetcam.targets import (
    Band,
    Box,
    ClassScore,
    Component,
    Contrast,
    FalseNegatives,
    Head,
    PerImage,
    Pixel,
    PredictedRegion,
    Target,
)


def made(seed: int = 0, dims: int = 2) -> CAMResult:
    generator = torch.manual_seed(seed)
    size = [8] * dims
    maps = {
        "deep": torch.rand(2, 3, *[n // 4 for n in size], generator=generator) * 5,
        "fine": torch.rand(2, 3, *size, generator=generator),
    }
    maps["fine"][0, 1] = 0
    maps["deep"][1, 2] = torch.nan
    return CAMResult(torch.zeros(2, 3, *size), tuple(map(ClassScore, range(3))), maps, "gradcam")


def test_resizing_is_linear_and_keeps_nan_where_it_was() -> None:
    for dims, mode in ((2, "bilinear"), (3, "trilinear")):
        result = made(dims=dims)
        resized = result.resized()
        expected = F.interpolate(result["deep"][:1], scale_factor=4, mode=mode, align_corners=False)
        torch.testing.assert_close(resized["deep"][:1], expected)
        assert resized["deep"][1, 2].isnan().all()
        assert resized["fine"] is result["fine"]
        assert result.resized([4] * dims)["fine"].shape == (2, 3, *[4] * dims)


@pytest.mark.parametrize("by", ["map", "layer", "image"])
def test_scaling_divides_by_one_exact_maximum(by: str) -> None:
    result, scaled = made(), made().scaled(by)
    for image in range(2):
        for layer in result.layers:
            for target in range(3):
                if result[layer][image, target].isnan().any():
                    continue
                groups = {
                    "map": [result[layer][image, target]],
                    "layer": [result[layer][image]],
                    "image": [result[name][image] for name in result.layers],
                }[by]
                peak = max(float(torch.nan_to_num(group).max()) for group in groups)
                expected = result[layer][image, target] / (peak or 1)
                assert torch.equal(scaled[layer][image, target], expected)


@given(
    st.integers(0, 2**32 - 1), st.floats(1e-30, 1e30), st.sampled_from(["map", "layer", "image"])
)
def test_scaled_maps_lie_in_the_unit_interval_and_touch_one(
    seed: int, factor: float, by: str
) -> None:
    result = made(seed)
    result = CAMResult(
        result.logits, result.targets, {k: v * factor for k, v in result.maps.items()}, "gradcam"
    )
    scaled = result.scaled(by)
    values = torch.cat([maps.flatten() for maps in scaled.maps.values()]).nan_to_num()
    assert values.min() >= 0
    assert values.max() == 1


def test_a_map_without_evidence_stays_zero_and_is_counted() -> None:
    result = made()
    assert result.empty["fine"].tolist() == [[False, True, False], [False, False, False]]
    assert not result.empty["deep"].any()  # NaN is absent, not empty
    for by in ("map", "layer", "image"):
        assert (result.scaled(by)["fine"][0, 1] == 0).all()


def test_an_unknown_layer_or_scale_is_named() -> None:
    with pytest.raises(LayerError, match="no maps of a layer 'up': this result holds deep, fine"):
        made()["up"]
    with pytest.raises(ValueError, match="by='batch' is no scale"):
        made().scaled("batch")  # type: ignore[arg-type]


def test_a_classifiers_maps_need_a_size() -> None:
    result = CAMResult(torch.zeros(1, 2, 1, 1), (), {"conv": torch.ones(1, 2, 4, 4)}, "gradcam")
    with pytest.raises(ValueError, match="one pixel"):
        result.resized()
    assert result.resized((8, 8))["conv"].shape == (1, 2, 8, 8)


PREDICTIONS = {
    "softmax": (3, "softmax", lambda logits: logits.argmax(1)),
    "foreground": (1, "softmax", lambda logits: (logits[:, 0] > 0).long()),
    "foreground by a sigmoid": (1, "sigmoid", lambda logits: (logits[:, 0] > 0).long()),
    "several labels": (3, "sigmoid", lambda logits: logits > 0),
}


@pytest.mark.parametrize(("classes", "head", "right"), PREDICTIONS.values(), ids=list(PREDICTIONS))
@pytest.mark.parametrize("dims", [2, 3])
def test_a_result_knows_what_the_network_predicts(
    classes: int, head: Head, right: Callable[[Tensor], Tensor], dims: int
) -> None:
    model = seeded(UNet(1, classes) if dims == 2 else UNet3d(classes))
    images = torch.rand(2, 1, *([16] * dims), generator=torch.manual_seed(3))
    with torch.no_grad():  # predict each class somewhere
        model.get_submodule("outc" if dims == 2 else "head").bias -= model(images).mean(
            dim=(0, *range(2, 2 + dims))
        )
    result = UNetCAM(model, head=head)(images)
    assert result.head == head
    expected = right(result.logits)
    assert expected.unique().numel() == (classes if head == "softmax" and classes > 1 else 2)
    assert result.prediction.dtype == expected.dtype
    assert torch.equal(result.prediction, expected)
    for changed in (result.resized([8] * dims), result.scaled()):
        assert torch.equal(changed.prediction, expected)


def test_what_the_network_is_told_of_holds_for_every_target_that_says_nothing_else() -> None:
    model = seeded(UNet(1, 3))
    images = torch.rand(2, 1, 16, 16, generator=torch.manual_seed(3))
    with torch.no_grad():
        model.outc.bias -= model(images).mean(dim=(0, 2, 3))
    truth = (model(images).detach() > 0.1).long()
    kinds: list[Callable[..., Target]] = [
        lambda **o: PredictedRegion(1, **o),
        lambda **o: ClassScore(2, on="probability", **o),
        lambda **o: Contrast(2, 0, on="log_probability", **o),
        lambda **o: FalseNegatives(1, truth, **o),
        lambda **o: Component(1, **o),
        lambda **o: Band(1, **o),
        lambda **o: ClassScore(0, within=PredictedRegion(1, **o), **o),
        lambda **o: PerImage([PredictedRegion(1, **o), PredictedRegion(2, **o)]),
    ]
    told = UNetCAM(model, ["up4"], "hirescam", head="sigmoid")
    plain = UNetCAM(model, ["up4"], "hirescam")
    for kind in kinds:
        expected = plain(images, kind(head="sigmoid"))["up4"]
        assert torch.equal(told(images, kind())["up4"].nan_to_num(-1), expected.nan_to_num(-1))
        if kind not in (kinds[3],):  # whose truth is one of several labels
            softmax = plain(images, kind())["up4"]
            assert not torch.equal(softmax.nan_to_num(-1), expected.nan_to_num(-1))
            own = told(images, kind(head="softmax"))["up4"]
            assert torch.equal(own.nan_to_num(-1), softmax.nan_to_num(-1))
    ours = told.explain_errors(images, truth)
    right = plain.explain_errors(images, truth, head="sigmoid")
    assert torch.equal(ours.missed_pixels, right.missed_pixels)
    with pytest.raises(UnetcamError, match="head='relu' is no kind of head"):
        UNetCAM(model, head="relu")  # type: ignore[arg-type]


def test_targets_of_the_result_are_those_that_were_given() -> None:
    model = seeded(UNet(1, 3))
    images = torch.rand(1, 1, 16, 16)
    wanted = [ClassScore(2), PredictedRegion(0)]
    for made in (list, tuple, iter):
        for sign in ("positive", "signed"):
            result = UNetCAM(model, ["up4"], sign=sign)(images, made(wanted))
            assert result.targets == tuple(wanted)
    for wrong in (torch.tensor(1), "class", 3, [torch.tensor(1)]):
        with pytest.raises(TargetError, match="is no target"):
            UNetCAM(model, ["up4"])(images, wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [64, (64,), (8, 8, 8), (8.5, 8), (0, 8), "88", None])
def test_what_is_no_size_is_refused(size: object) -> None:
    result = made()
    if size is None:
        assert result.resized(size)["deep"].shape[2:] == (8, 8)
        return
    with pytest.raises(DataError, match="is no size of these maps: give whole numbers"):
        result.resized(size)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pixel(1, y=3.5, x=0), "y=3.5 is no index"),
        (lambda: Pixel(1, y=0, x="1"), "x='1' is no index"),
        (lambda: Pixel(1, z=1.0, y=0, x=1), "z=1.0 is no index"),
        (lambda: Box(1, y=(0.5, 3), x=(0, 2)), r"y=\(0.5, 3\) is no range"),
    ],
)
def test_a_place_between_pixels_is_refused(make: Callable[[], Target], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        make()
