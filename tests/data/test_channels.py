"""Bands are bridged where there is one way, and refused where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unetcam.data import for_display, to_channels
from unetcam.errors import DataError

RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)


def test_grey_is_the_luma_that_pillow_computes() -> None:
    reference = np.asarray(Image.fromarray(RGB).convert("L")).astype(int)
    assert np.abs(to_channels(RGB, 1)[..., 0].astype(int) - reference).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int16, np.int64])
def test_luma_has_the_weights_of_bt601_in_every_type(dtype: type) -> None:
    pixels = RGB.astype(dtype)
    reference = RGB @ np.array([0.299, 0.587, 0.114])
    tolerance = 0.51 if dtype in (np.uint8, np.uint16) else 1e-4 * 255
    assert np.abs(to_channels(pixels, 1)[..., 0] - reference).max() <= tolerance


def test_alpha_is_dropped_only_where_it_is_alpha() -> None:
    pixels = RNG.integers(0, 256, (6, 5, 4), dtype=np.uint8)
    np.testing.assert_array_equal(to_channels(pixels, 3, alpha=True), pixels[..., :3])
    np.testing.assert_array_equal(to_channels(pixels, 4, alpha=True), pixels)
    np.testing.assert_array_equal(
        to_channels(pixels, 1, alpha=True), to_channels(pixels[..., :3], 1)
    )
    with pytest.raises(DataError, match="has 4 bands and the network takes 3"):
        to_channels(pixels, 3)


@pytest.mark.parametrize(("bands", "channels"), [(1, 2), (1, 4), (2, 1), (2, 3), (3, 4), (5, 3)])
def test_what_has_no_one_way_is_refused(bands: int, channels: int) -> None:
    with pytest.raises(DataError, match=f"the network takes {channels}"):
        to_channels(np.zeros((4, 4, bands)), channels)


def test_8_bits_are_shown_as_they_are() -> None:
    np.testing.assert_array_equal(for_display(RGB), RGB)
    grey = RGB[..., :1]
    np.testing.assert_array_equal(for_display(grey), np.repeat(grey, 3, axis=2))


def test_deep_colour_is_stretched_as_one_so_that_grey_stays_grey() -> None:
    grey = np.linspace(0, 65535, 300).astype(np.uint16).reshape(10, 30, 1)
    shown = for_display(np.repeat(grey, 3, axis=2))
    assert (shown == shown[..., :1]).all()
    assert (shown.min(), shown.max()) == (0, 255)


def test_nan_is_black_and_leaves_the_rest_alone() -> None:
    pixels = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20, 1).copy()
    clean = for_display(pixels)
    pixels[3, 4] = np.nan
    shown = for_display(pixels)
    assert shown[3, 4].tolist() == [0, 0, 0]
    assert np.abs(shown.astype(int) - clean)[np.arange(10) != 3].max() <= 2


@given(
    st.integers(1, 6),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]),
    st.sampled_from([0.0, 1.0, 7.0]),
)
def test_anything_can_be_shown(bands: int, dtype: type, value: float) -> None:
    shown = for_display(np.full((3, 4, bands), value, dtype))
    assert shown.shape == (3, 4, 3)
    assert shown.dtype == np.uint8


def test_an_image_of_nothing_but_nan_is_black() -> None:
    assert not for_display(np.full((3, 4, 5), np.nan, np.float32)).any()
