from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from PIL import Image

from unetcam.page.overlays import (
    COLORMAP,
    PREDICTION_COLOUR,
    TALLEST,
    TRUTH_COLOUR,
    encoded,
    outlined,
    overlay,
    picture_size,
    resized,
)

GREY = np.full((40, 60, 3), 90, np.uint8)


def disc(shape: tuple[int, int] = (40, 60), radius: float = 12) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (rows - shape[0] / 2) ** 2 + (columns - shape[1] / 2) ** 2 < radius**2


def test_an_empty_or_absent_map_leaves_the_image_as_it_is() -> None:
    np.testing.assert_array_equal(overlay(GREY, np.zeros((40, 60))), GREY)
    np.testing.assert_array_equal(overlay(GREY, np.full((40, 60), np.nan)), GREY)


def test_the_maximum_is_blended_with_the_brightest_colour() -> None:
    top = np.array(colormaps[COLORMAP](1.0)[:3]) * 255
    drawn = overlay(GREY, np.ones((40, 60)), strength=0.6)
    np.testing.assert_allclose(drawn[5, 5], 0.4 * 90 + 0.6 * top, atol=1)


def test_the_image_shows_through_at_the_maximum() -> None:
    noisy = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    drawn = overlay(noisy, np.ones((40, 60)))
    assert np.corrcoef(drawn[..., 0].ravel(), noisy[..., 0].ravel())[0, 1] > 0.99


@given(low=st.floats(0, 1), high=st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_opacity_grows_with_the_map(low: float, high: float) -> None:
    low, high = sorted((low, high))
    black, white = np.zeros((1, 2, 3), np.uint8), np.full((1, 2, 3), 255, np.uint8)
    heat = np.array([[low, high]])
    gap = overlay(white, heat).astype(int) - overlay(black, heat).astype(int)
    assert (gap[0, 0] >= gap[0, 1] - 1).all()


def test_the_given_arrays_are_not_changed() -> None:
    image, heat = GREY.copy(), np.ones((40, 60))
    overlay(image, heat, disc(), prediction=disc(radius=8))
    np.testing.assert_array_equal(image, GREY)
    assert (heat == 1).all()


def test_both_outlines_are_drawn_in_their_colours() -> None:
    drawn = outlined(np.repeat(np.repeat(GREY, 8, 0), 8, 1), disc(), disc(radius=6)).reshape(-1, 3)
    for colour in (TRUTH_COLOUR, PREDICTION_COLOUR):
        assert (drawn == colour).all(axis=1).sum() > 50


def test_an_outline_lies_on_the_edge_of_its_mask() -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    drawn = outlined(np.zeros((400, 600, 3), np.uint8), mask)
    white = np.argwhere((drawn == 255).all(axis=2))
    edge = np.array([[100, 200], [300, 400]])
    assert np.abs(white.min(axis=0) - edge[0]).max() <= 6
    assert np.abs(white.max(axis=0) - edge[1]).max() <= 6
    assert not (drawn[180:220, 280:320] == 255).any()


def test_the_border_of_the_image_is_no_edge_of_the_class() -> None:
    mask = np.zeros((40, 60), bool)
    mask[:, :30] = True
    drawn = outlined(np.full((400, 600, 3), 90, np.uint8), mask)
    assert (drawn[:, :250] == 90).all()
    assert (drawn[200, 280:320] == 255).any()


def test_holes_have_outlines() -> None:
    mask = disc(radius=18)
    mask[18:22, 28:32] = False
    drawn = outlined(np.zeros((400, 600, 3), np.uint8), mask)
    assert (drawn[170:230, 270:330] == 255).any()


def test_a_single_pixel_is_seen() -> None:
    mask = np.zeros((40, 60), bool)
    mask[20, 30] = True
    assert (outlined(GREY, mask) != GREY).any()


def test_an_empty_mask_draws_nothing() -> None:
    np.testing.assert_array_equal(outlined(GREY, np.zeros((40, 60), bool), None), GREY)


@pytest.mark.parametrize("width", [1, 20, 60, 240])
def test_width_sets_the_size_and_keeps_the_shape(width: int) -> None:
    drawn = overlay(GREY, disc().astype(float), disc(), width=width)
    assert drawn.shape == (max(1, round(40 * width / 60)), width, 3)
    assert drawn.dtype == np.uint8
    assert resized(GREY, width).shape == drawn.shape


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="The image has shape"):
        overlay(GREY[..., 0], np.zeros((40, 60)))
    with pytest.raises(ValueError, match="The map has shape"):
        overlay(GREY, np.zeros((10, 10)))
    with pytest.raises(ValueError, match="The prediction has shape"):
        overlay(GREY, np.zeros((40, 60)), prediction=np.zeros((3, 3), bool))


def test_an_encoded_image_is_a_webp_of_the_same_size() -> None:
    head, data = encoded(GREY).split(",")
    assert head == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("WEBP", (60, 40))
        assert abs(int(np.asarray(image.convert("RGB")).mean()) - 90) <= 2


@given(height=st.integers(1, 40_000), own=st.integers(1, 40_000), width=st.integers(1, 1600))
@settings(deadline=None, max_examples=200)
def test_a_picture_is_bounded_in_both_directions(height: int, own: int, width: int) -> None:
    wide, high = picture_size((height, own), width)
    assert 1 <= wide <= width
    assert 1 <= high <= TALLEST * width
    assert wide == width or abs(high - TALLEST * width) <= 1


@pytest.mark.parametrize("shape", [(1, 1), (300, 1), (1, 300), (2500, 8), (8, 2500), (7, 1200)])
@pytest.mark.parametrize("width", [None, 1, 100, 480])
def test_images_of_any_shape_are_drawn(shape: tuple[int, int], width: int | None) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    half = np.arange(shape[0] * shape[1]).reshape(shape) % max(shape) < max(shape) // 2
    drawn = overlay(image, half.astype(float), half, prediction=~half, width=width)
    size = shape if width is None else picture_size(shape, width)[::-1]
    assert drawn.shape == (*size, 3)


def test_an_outline_does_not_hide_a_thin_picture() -> None:
    image = np.full((600, 12, 3), 90, np.uint8)
    mask = np.zeros((600, 12), bool)
    mask[100:300] = True
    changed = (outlined(image, mask) != 90).any(axis=2)
    assert changed.any(axis=1)[98:103].any()
    assert changed.mean() < 0.05


def test_a_single_pixel_of_a_huge_mask_is_seen_in_a_small_picture() -> None:
    mask = np.zeros((2000, 3000), bool)
    mask[777, 1234] = True
    drawn = outlined(np.full((80, 120, 3), 90, np.uint8), mask)
    rows, columns = np.nonzero((drawn != 90).any(axis=2))
    assert abs(rows.mean() - 777 / 25) < 1.5
    assert abs(columns.mean() - 1234 / 25) < 1.5


def test_a_large_map_is_blended_as_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (50, 40, 3)).astype(np.uint8)
    heat = rng.random((50, 40))
    whole = overlay(image, heat)
    monkeypatch.setattr("unetcam.page.overlays._BLENDED_AT_ONCE", 130)
    np.testing.assert_array_equal(overlay(image, heat), whole)


@pytest.mark.parametrize("value", [0.04, 0.25, 0.81])
def test_opacity_is_the_strength_times_the_root_of_the_map(value: float) -> None:
    image = np.full((1, 1, 3), 200, np.uint8)
    colour = np.array(colormaps[COLORMAP](np.float32(value))[:3]) * 255
    alpha = 0.7 * value**0.5
    drawn = overlay(image, np.full((1, 1), value))
    np.testing.assert_allclose(drawn[0, 0], (1 - alpha) * 200 + alpha * colour, atol=1)
