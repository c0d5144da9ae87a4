"""Connected components against SciPy's and scikit-image's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.measure import label, regionprops

from unetcam.morphology import connected_components, label_components


def check(masks: np.ndarray) -> None:
    found = connected_components(torch.from_numpy(masks))
    for r, mask in enumerate(masks):
        regions = regionprops(label(mask, connectivity=mask.ndim))
        assert found.count[r] == len(regions)
        assert found.area[r] == mask.sum()
        assert found.largest[r] == max((region.area for region in regions), default=0)
        if regions:
            largest = max(regions, key=lambda region: region.area)
            np.testing.assert_allclose(found.centroid[r], largest.centroid, rtol=1e-12)
        else:
            assert found.centroid[r].isnan().all()


@settings(max_examples=120, deadline=None)
@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=9)),
)
def test_agrees_with_scikit_image_on_any_masks(masks: np.ndarray) -> None:
    check(masks)


@pytest.mark.parametrize("density", [0.2, 0.4, 0.41, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(4, 90, 83), (2, 13, 21, 17)])
def test_agrees_with_scikit_image_around_the_percolation_threshold(
    density: float, shape: tuple[int, ...]
) -> None:
    check(np.random.default_rng(0).random(shape) < density)


def spiral(size: int) -> np.ndarray:
    """One path of width 1 that winds inward with gaps of 1."""
    mask = np.zeros((size, size), bool)
    y, x, dy, dx = 0, 0, 0, 1
    mask[0, 0] = True
    turns = 0
    while turns < 2:
        ny, nx = y + dy, x + dx
        ahead_y, ahead_x = ny + dy, nx + dx
        inside = 0 <= ny < size and 0 <= nx < size
        blocked = 0 <= ahead_y < size and 0 <= ahead_x < size and mask[ahead_y, ahead_x]
        if not inside or blocked:
            dy, dx = dx, -dy
            turns += 1
            continue
        turns = 0
        y, x = ny, nx
        mask[y, x] = True
    return mask


def test_long_winding_shapes_are_one_component() -> None:
    comb = np.zeros((65, 65), bool)
    comb[:, ::2] = True
    comb[-1] = True
    checkerboard = np.indices((65, 65)).sum(0) % 2 == 0
    masks = np.stack([spiral(65), spiral(65).T[::-1], comb, checkerboard])
    check(masks)
    assert connected_components(torch.from_numpy(masks)).count.tolist() == [1, 1, 1, 1]


def test_masks_of_a_batch_never_touch_and_rows_never_wrap() -> None:
    masks = np.zeros((2, 3, 5), bool)
    masks[0, -1] = masks[1, 0] = True  # the last line of one, the first of the next
    masks[1, 1, 0] = False
    masks[1, 2, 0] = True
    check(masks)
    wrapping = np.zeros((1, 3, 5), bool)
    wrapping[0, 0, -1] = wrapping[0, 2, 0] = wrapping[0, 1, 2] = True
    check(wrapping)
    assert connected_components(torch.from_numpy(wrapping)).count.item() == 3


def test_no_component_at_all() -> None:
    found = connected_components(torch.zeros(2, 4, 4, dtype=torch.bool))
    assert found.count.tolist() == found.area.tolist() == found.largest.tolist() == [0, 0]
    assert found.centroid.shape == (2, 2)
    assert found.centroid.isnan().all()


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(4)))
def test_the_order_of_the_masks_is_the_order_of_the_answers(order: list[int]) -> None:
    masks = torch.rand(4, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.6
    whole = connected_components(masks)
    shuffled = connected_components(masks[order])
    assert torch.equal(shuffled.count, whole.count[order])
    assert torch.equal(shuffled.centroid, whole.centroid[order])


@settings(max_examples=120, deadline=None)
@given(
    hnp.arrays(bool, hnp.array_shapes(min_dims=3, max_dims=4, min_side=1, max_side=9)),
)
def test_labels_partition_as_scipy_does_and_count_in_raster_order(masks: np.ndarray) -> None:
    found = label_components(torch.from_numpy(masks)).numpy()
    for labels, mask in zip(found, masks, strict=True):
        wanted, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
        assert labels.max() == count
        assert np.array_equal(labels > 0, mask)
        pairs = {*zip(labels.ravel().tolist(), wanted.ravel().tolist(), strict=True)} - {(0, 0)}
        assert len(pairs) == count
        firsts = [np.flatnonzero(labels == label + 1)[0] for label in range(count)]
        assert firsts == sorted(firsts)


def test_labels_of_long_winding_shapes_are_one() -> None:
    mask = torch.from_numpy(np.stack([spiral(65), np.zeros((65, 65), bool), spiral(65).T[::-1]]))
    assert torch.equal(label_components(mask), mask.long())
