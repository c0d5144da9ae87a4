"""Sizes and scales of maps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from unetcam.errors import LayerError
from unetcam.result import CAMResult
from unetcam.targets import ClassScore


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
