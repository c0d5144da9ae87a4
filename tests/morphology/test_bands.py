"""Bands along contours against SciPy's distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from unetcam.morphology import contour_bands, default_width


def near(side: np.ndarray, other: np.ndarray, width: float) -> np.ndarray:
    if not other.any():
        return np.zeros_like(side)
    return side & (ndimage.distance_transform_edt(~other) <= width)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.int8,
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12),
        elements=st.sampled_from([-1, 0, 0, 0, 1]),
    ),
    st.floats(1, 9) | st.sampled_from([2**0.5, 5**0.5, 3.0]),
)
def test_bands_hold_the_pixels_within_the_width_of_the_other_side(
    truth: np.ndarray, width: float
) -> None:
    inside, outside = truth == 1, truth == 0
    found = contour_bands(
        torch.from_numpy(inside), torch.from_numpy(outside), width, spatial_dims=truth.ndim
    )
    assert np.array_equal(found[0].numpy(), near(inside, outside, width))
    assert np.array_equal(found[1].numpy(), near(outside, inside, width))


def test_each_mask_of_a_batch_has_bands_of_its_own() -> None:
    masks = torch.rand(4, 9, 8, generator=torch.manual_seed(0)) > 0.7
    masks[2] = False
    inner, outer = contour_bands(masks, ~masks, 1.5, spatial_dims=2)
    for row, mask in enumerate(masks):
        alone = contour_bands(mask, ~mask, 1.5, spatial_dims=2)
        assert torch.equal(inner[row], alone[0])
        assert torch.equal(outer[row], alone[1])
    assert not (inner[2] | outer[2]).any()


@pytest.mark.parametrize(
    ("spatial", "width"), [((300, 400), 10.0), ((10, 10), 1.0), ((100, 200, 200), 6.0)]
)
def test_the_default_width_is_two_percent_of_the_diagonal(
    spatial: tuple[int, ...], width: float
) -> None:
    assert default_width(spatial) == pytest.approx(width)
