"""The distance transform against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from unetcam.errors import MeasureError
from unetcam.morphology import distance_transform
from unetcam.morphology.distance import largest_square, squared_distance


def scipy_distance(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return ndimage.distance_transform_edt(~mask)


masks = hnp.arrays(
    bool,
    hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=12),
    elements=st.sampled_from([True, False, False, False]),
)


@settings(max_examples=80, deadline=None)
@given(masks)
def test_agrees_with_scipy_in_two_and_three_dimensions(mask: np.ndarray) -> None:
    found = distance_transform(torch.from_numpy(mask), spatial_dims=mask.ndim)
    np.testing.assert_allclose(found.numpy(), scipy_distance(mask), rtol=1e-6)


@settings(max_examples=80, deadline=None)
@given(masks, st.floats(0.0, 14.0))
def test_a_reach_only_turns_what_is_farther_into_infinity(mask: np.ndarray, reach: float) -> None:
    found = distance_transform(torch.from_numpy(mask), spatial_dims=mask.ndim, reach=reach)
    wanted = scipy_distance(mask)
    np.testing.assert_allclose(found.numpy(), np.where(wanted > reach, np.inf, wanted), rtol=1e-6)


@pytest.mark.parametrize("size", [100, 200])
def test_is_exact_where_squares_outgrow_sixteen_bits(size: int) -> None:
    mask = np.zeros((size, size), bool)
    mask[0, 0] = mask[size // 3, size - 1] = True
    found = squared_distance(torch.from_numpy(mask), 300, spatial_dims=2)
    wanted = np.rint(scipy_distance(mask) ** 2).astype(int)
    assert np.array_equal(found.numpy(), wanted)


def test_every_mask_of_a_batch_is_transformed_alone() -> None:
    masks = torch.rand(2, 3, 20, 17, generator=torch.Generator().manual_seed(0)) > 0.97
    masks[1, 1] = False
    found = distance_transform(masks)
    for index in np.ndindex(2, 3):
        np.testing.assert_allclose(found[index], scipy_distance(masks[index].numpy()), rtol=1e-6)


def test_a_mask_that_is_not_bool_is_refused() -> None:
    with pytest.raises(MeasureError, match="bool mask"):
        distance_transform(torch.zeros(4, 4))


@settings(deadline=None)
@given(st.integers(0, 10**6))
def test_the_largest_square_of_a_root_is_the_number_itself(number: int) -> None:
    assert largest_square(number**0.5) == number


@pytest.mark.parametrize("shape", [(3, 11, 13), (2, 6, 7, 9)])
@pytest.mark.parametrize("block", [1, 30, 200])
def test_working_in_blocks_changes_nothing(
    shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(2)) > 0.95
    whole = squared_distance(masks, 9, spatial_dims=len(shape) - 1)
    monkeypatch.setattr("unetcam.morphology.distance._BLOCK_CPU", block)
    assert torch.equal(squared_distance(masks, 9, spatial_dims=len(shape) - 1), whole)
