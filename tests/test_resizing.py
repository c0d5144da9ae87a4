"""Maps and masks at another size, as torch resizes them and without its rounding."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from unetcam.resizing import averaged, interpolated, nearest

SIZES = [
    ((4,), (9,)),
    ((6, 4), (3, 8)),
    ((5, 7), (11, 3)),
    ((2, 3, 4), (4, 6, 8)),
    ((4, 5, 3), (3, 2, 7)),
]
MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_maps_are_resized_as_torch_resizes_them(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    maps = torch.rand(2, 3, *before, generator=torch.manual_seed(0))
    mode = MODES[len(after)]
    assert torch.equal(
        interpolated(maps, after), F.interpolate(maps, after, mode=mode, align_corners=False)
    )
    assert interpolated(maps, before) is maps
    assert averaged(maps, before) is maps


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_labels_go_to_the_pixel_whose_centre_they_hold(
    before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    labels = torch.randint(-1, 9, (2, 3, *before), generator=torch.manual_seed(0))
    expected = F.interpolate(labels.double(), after, mode="nearest-exact").long()
    assert torch.equal(nearest(labels, after), expected)
    assert nearest(labels, before) is labels


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int64, torch.half])
def test_labels_keep_their_type_and_any_leading_axes(dtype: torch.dtype) -> None:
    labels = torch.randint(0, 2, (3, 4), generator=torch.manual_seed(0)).to(dtype)
    for lead in ((), (2,), (2, 1, 5)):
        made = nearest(labels.expand(*lead, 3, 4), (6, 2))
        assert made.dtype == dtype
        assert made.shape == (*lead, 6, 2)
        assert torch.equal(made, nearest(labels, (6, 2)).expand(*lead, 6, 2))


def test_labels_beyond_floating_point_are_kept_to_the_bit() -> None:
    labels = torch.tensor([2**62 + 1, -(2**62) - 1])
    assert nearest(labels, (4,)).tolist() == [2**62 + 1] * 2 + [-(2**62) - 1] * 2
