"""TIFF files of every kind come back as the values that were written, upright."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from unetcam.data import read_image, read_picture
from unetcam.errors import DataError

RNG = np.random.default_rng(6)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def expected(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("pixels", [RGB, RGB16[..., 0]], ids=["rgb8", "grey16"])
def test_tiff_orientation_is_applied_whichever_decoder_reads_it(
    tmp_path: Path, pixels: np.ndarray, compression: str, orientation: int
) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path, compression=compression, tiffinfo={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    with Image.open(stream) as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected(reference))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float16", "float32"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_of_any_type_is_read_as_written(
    tmp_path: Path, dtype: str, compression: str | None
) -> None:
    pixels = (RGB[..., 0] / 2).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tiff", pixels, compression=compression)
    read = read_image(tmp_path / "a.tiff")
    assert read.dtype == (np.float32 if dtype.startswith("float") else dtype)
    np.testing.assert_array_equal(read[..., 0], pixels)


def test_tiff_of_doubles_becomes_float32(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY / 7)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif")[..., 0], (GREY / 7).astype(np.float32)
    )


def test_lzw_colour_of_16_bits_is_read(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), RGB16[..., ::-1], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB16)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_palette_tiff_gives_colours_as_image_and_indices_as_mask(
    tmp_path: Path, compression: str
) -> None:
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.tif", compression=compression)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colours[GREY % 3])
    picture = read_picture(tmp_path / "a.tif", indices=True)
    np.testing.assert_array_equal(picture.pixels[..., 0], GREY % 3)
    np.testing.assert_array_equal(picture.palette[:3], colours)


@pytest.mark.parametrize("compression", [None, "group4", "tiff_lzw"])
def test_bilevel_tiff_is_0_1_as_indices(tmp_path: Path, compression: str | None) -> None:
    Image.fromarray(GREY > 127).save(tmp_path / "a.tif", compression=compression)
    picture = read_picture(tmp_path / "a.tif", indices=True)
    np.testing.assert_array_equal(picture.pixels[..., 0], GREY > 127)


def test_tiff_where_zero_is_white_is_shown_dark_on_light(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], 255 - GREY)
    indices = read_picture(tmp_path / "a.tif", indices=True)
    np.testing.assert_array_equal(indices.pixels[..., 0], GREY)


@pytest.mark.parametrize("shape", [(20, 30, 7), (7, 20, 30)], ids=["last", "first"])
def test_tiff_bands_go_last_wherever_they_were(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = RNG.integers(0, 256, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    reference = pixels if shape[2] == 7 else np.moveaxis(pixels, 0, 2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), reference)


def test_planar_rgb_tiff_is_rgb(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), RGB)


def test_tiff_alpha_is_told_from_a_fourth_band(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgba.tif", RGBA, photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "rgbn.tif", RGBA, photometric="rgb", extrasamples=["unspecified"])
    assert read_image(tmp_path / "rgba.tif", channels=3).shape == (5, 7, 3)
    with pytest.raises(
        DataError, match=r"'rgbn.tif': the image has 4 bands and the network takes 3"
    ):
        read_image(tmp_path / "rgbn.tif", channels=3)


def test_stack_over_depth_is_refused(tmp_path: Path) -> None:
    stack = np.zeros((6, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DataError, match="stack of 6 planes over depth"):
        read_image(tmp_path / "a.tif")


def test_pyramid_is_read_at_full_resolution(tmp_path: Path) -> None:
    base = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(base, subifds=1)
        file.write(base[::2, ::2], subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], base)


def test_a_tiff_that_claims_too_many_pixels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            file.pages[0].tags[name].overwrite(60000)
    with pytest.raises(DataError, match="at most 67,108,864 pixels"):
        read_image(path)


def test_cmyk_tiff_is_read_as_rgb_and_lab_is_refused(tmp_path: Path) -> None:
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.asarray(cmyk.convert("RGB")))
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4, 4), np.uint16), photometric="separated")
    with pytest.raises(DataError, match="its CMYK colours aren't read"):
        read_image(tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", RGB, photometric="cielab")
    with pytest.raises(DataError, match="a colour space that isn't read; convert it to RGB"):
        read_image(tmp_path / "c.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_stored_numbers_are_the_indices_where_zero_is_white(
    tmp_path: Path, compression: str
) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert int(file.pages[0].photometric) == 0
    image = read_image(tmp_path / "a.tif")[..., 0]
    indices = read_picture(tmp_path / "a.tif", indices=True).pixels[..., 0]
    np.testing.assert_array_equal(indices, 255 - image)
    with Image.open(tmp_path / "a.tif") as reference:
        np.testing.assert_array_equal(image, np.asarray(reference))


@pytest.mark.parametrize("zero_is_white", [False, True])
def test_bilevel_tiff_is_what_it_looks_like(tmp_path: Path, zero_is_white: bool) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        GREY > 127,
        photometric="miniswhite" if zero_is_white else "minisblack",
    )
    seen = (GREY > 127) ^ zero_is_white
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], seen * 255)
    stored = read_picture(tmp_path / "a.tif", indices=True)
    np.testing.assert_array_equal(stored.pixels[..., 0], GREY > 127)
    assert stored.white_is_zero == zero_is_white
