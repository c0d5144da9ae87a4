"""Tiles cover an image, and their shares add up to one at every resolution."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unetcam.data.tiles import Axis, Tiling
from unetcam.errors import DataError


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int]:
    tile = draw(st.integers(1, 24))
    return draw(st.integers(1, 90)), tile, draw(st.integers(0, tile - 1))


@given(cuts())
def test_shares_add_up_to_one_and_are_never_negative(cut: tuple[int, int, int]) -> None:
    size, tile, overlap = cut
    axis = Axis.cut(size, tile, overlap)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.tile == size
    total = torch.zeros(size, dtype=torch.float64)
    for start, share in zip(axis.starts, axis.shares, strict=True):
        total[start : start + axis.tile] += share
    assert (axis.shares >= 0).all()
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


@given(cuts())
def test_a_tile_has_no_share_in_the_last_quarter_of_an_overlap(cut: tuple[int, int, int]) -> None:
    size, tile, overlap = cut
    axis = Axis.cut(size, tile, overlap)
    for start, share in zip(axis.starts, axis.shares, strict=True):
        if start > 0:
            assert (share[: overlap // 4] == 0).all()
        if start + axis.tile < size:
            assert (share[axis.tile - overlap // 4 :] == 0).all()


@given(
    st.integers(1, 8), st.integers(1, 8), st.integers(0, 7), st.integers(0, 9), st.integers(1, 4)
)
def test_coarser_shares_add_up_to_one_as_well(
    tiles: int, cells: int, common: int, more: int, stride: int
) -> None:
    cells, common = max(cells, common + 1), common
    size = stride * (cells + (cells - common) * tiles + more)
    fine = Axis.cut(size, cells * stride, common * stride)
    coarse = fine.at(cells)
    assert coarse is not None
    assert coarse.size * stride == size
    total = torch.zeros(coarse.size, dtype=torch.float64)
    for start, share in zip(coarse.starts, coarse.shares, strict=True):
        total[start : start + coarse.tile] += share
    torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-12, atol=0)


def test_the_last_tile_is_moved_back_and_none_is_larger_than_the_image() -> None:
    tiling = Tiling.cut((10, 5), tile=(4, 8), overlap=(1, 2))
    assert tiling.tile == (4, 5)
    assert [window[0].start for window in tiling.windows] == [0, 3, 6]
    assert tiling.windows[-1] == (slice(6, 10), slice(0, 5))
    assert (tiling.share(0, torch.zeros(0))[0] == 1).all()


def test_maps_of_a_tile_line_up_only_on_whole_pixels() -> None:
    tiling = Tiling.cut((24, 24), tile=8, overlap=4)
    finer, coarser = tiling.at((16, 16)), tiling.at((4, 4))
    assert finer is not None
    assert coarser is not None
    assert (finer.size, coarser.size) == ((48, 48), (12, 12))
    assert tiling.at((6, 6)) is None  # unpadded convolutions
    assert tiling.at((1, 1)) is None  # a tile begins at 4, in the middle of the map's pixel
    assert Tiling.cut((8, 8), tile=8, overlap=4).at((6, 6)) is not None  # one tile: nothing to join


def test_a_share_is_the_product_of_the_axes_and_of_the_type_that_is_asked_for() -> None:
    tiling = Tiling.cut((12, 20, 8), tile=8, overlap=4)
    share = tiling.share(5, torch.zeros(0, dtype=torch.float32))
    second, third, only = (
        axis.shares[place] for axis, place in zip(tiling.axes, (1, 1, 0), strict=True)
    )
    expected = torch.einsum("i,j,k->ijk", second, third, only).float()
    assert share.dtype == torch.float32
    torch.testing.assert_close(share, expected)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (8, 8, r"Tiles of 8 pixels can't overlap by 8"),
        (8, -1, r"can't overlap by -1"),
        (0, 0, r"Tiles of 0 pixels"),
        ((8, 8, 8), 2, r"does not fit 2 spatial dimensions"),
        (8.0, 2, r"tile=8.0"),
    ],
)
def test_tiles_that_cannot_be_cut_are_refused(tile: object, overlap: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Tiling.cut((32, 32), tile, overlap)  # type: ignore[arg-type]
