"""Images of every kind come back as the values that were written, upright; damage is told."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from unetcam.data import read_image, read_picture
from unetcam.data.pictures import bands_last, upright
from unetcam.errors import DataError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
RGB = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
RGBA = RNG.integers(0, 256, (5, 7, 4), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)


def expected(pixels: np.ndarray) -> np.ndarray:
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.mark.parametrize("pixels", [GREY, RGB, RGBA], ids=["grey", "rgb", "rgba"])
def test_png_of_8_bits_is_read_as_written(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha == (pixels.shape[-1] == 4)
    np.testing.assert_array_equal(picture.pixels, expected(pixels))


@pytest.mark.parametrize("bands", [1, 3, 4])
def test_png_of_16_bits_keeps_all_its_bits(tmp_path: Path, bands: int) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, bands), dtype=np.uint16)
    order = [2, 1, 0, 3][:bands] if bands > 1 else [0]
    cv2.imwrite(str(tmp_path / "a.png"), pixels[..., order])
    picture = read_picture(tmp_path / "a.png")
    assert picture.pixels.dtype == np.uint16
    assert picture.alpha == (bands == 4)
    np.testing.assert_array_equal(picture.pixels, pixels)


def write_png(path: Path, rows: bytes, width: int, height: int, depth: int, kind: int) -> None:
    """A PNG by the specification, for the kinds that no library here writes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_png_of_16_bit_grey_with_alpha_keeps_both_bands(tmp_path: Path) -> None:
    pixels = np.array([[[1000, 65535], [40000, 300]]], np.uint16)
    write_png(tmp_path / "a.png", b"\0" + pixels.astype(">u2").tobytes(), 2, 1, 16, 4)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha
    np.testing.assert_array_equal(picture.pixels, pixels)


def test_low_depth_grey_is_spread_for_an_image_and_kept_for_indices(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", bytes([0, 0b00_01_10_11]), 4, 1, 2, 0)
    image = read_picture(tmp_path / "a.png").pixels[0, :, 0]
    mask = read_picture(tmp_path / "a.png", indices=True).pixels[0, :, 0]
    assert image.tolist() == [0, 85, 170, 255]
    assert mask.tolist() == [0, 1, 2, 3]


def test_png_of_1_bit_is_black_and_white_as_image_and_0_1_as_indices(tmp_path: Path) -> None:
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")[..., 0]
    mask = read_picture(tmp_path / "a.png", indices=True).pixels[..., 0]
    np.testing.assert_array_equal(image, np.where(GREY > 127, 255, 0))
    np.testing.assert_array_equal(mask, GREY > 127)


def test_palette_png_gives_colours_as_image_and_indices_as_mask(tmp_path: Path) -> None:
    image = Image.fromarray(GREY % 3, "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png")
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colours[GREY % 3])
    picture = read_picture(tmp_path / "a.png", indices=True)
    np.testing.assert_array_equal(picture.pixels[..., 0], GREY % 3)
    np.testing.assert_array_equal(picture.palette[:3], colours)


def test_transparent_palette_png_has_alpha(tmp_path: Path) -> None:
    image = Image.fromarray(GREY % 2, "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=0)
    picture = read_picture(tmp_path / "a.png")
    assert picture.alpha
    np.testing.assert_array_equal(picture.pixels[..., 3], np.where(GREY % 2, 255, 0))


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_jpeg_is_read_as_pillow_reads_it(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.JPEG")
    with Image.open(tmp_path / "a.JPEG") as image:
        np.testing.assert_array_equal(read_image(tmp_path / "a.JPEG"), expected(np.asarray(image)))


def test_cmyk_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    pixels = read_image(tmp_path / "a.jpg")
    assert pixels.shape == (5, 7, 3)
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_exif_orientation_is_applied_as_pillow_applies_it(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as image:
        reference = np.asarray(ImageOps.exif_transpose(image))
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, reference)
    assert picture.orientation == orientation
    assert picture.stored_size == (5, 7)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32, np.int64, np.float32]),
        st.tuples(st.integers(3, 9), st.integers(3, 9), st.integers(1, 3)),
        elements=st.integers(0, 200),
    )
)
@settings(max_examples=40, deadline=None)
def test_numpy_arrays_survive_the_round_trip(pixels: np.ndarray) -> None:
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "a.npy", pixels)
        np.savez_compressed(Path(folder) / "a.npz", pixels)
        for name in ("a.npy", "a.npz"):
            read = read_image(Path(folder) / name)
            np.testing.assert_array_equal(read, pixels)
            assert read.dtype == pixels.dtype


def test_npz_with_several_arrays_gives_the_one_that_is_called_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=RGB, mask=GREY % 2, notes=GREY)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npz"), RGB)
    mask = read_picture(tmp_path / "a.npz", indices=True)
    np.testing.assert_array_equal(mask.pixels[..., 0], GREY % 2)
    np.savez(tmp_path / "b.npz", x=RGB, y=RGB)
    with pytest.raises(DataError, match=r"holds 2 arrays \(x, y\); call the one to read 'image'"):
        read_image(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("shape", "bands"),
    [
        ((8, 9), 1),
        ((3, 8, 9), 3),
        ((8, 9, 3), 3),
        ((1, 8, 9), 1),
        ((1, 8, 9, 2), 2),
        ((5, 9, 5), 5),
    ],
)
def test_the_shorter_end_of_an_array_holds_the_bands(shape: tuple[int, ...], bands: int) -> None:
    assert bands_last(np.zeros(shape)).shape[2] == bands


def test_truth_values_become_black_and_white(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", GREY > 127)
    assert set(np.unique(read_image(tmp_path / "a.npy"))) == {0, 255}
    assert set(np.unique(read_picture(tmp_path / "a.npy", indices=True).pixels)) == {0, 1}


def test_big_endian_arrays_become_native(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", RGB16.astype(">u2"))
    read = read_image(tmp_path / "a.npy")
    assert read.dtype == np.uint16
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, RGB16)


@given(st.integers(1, 8))
def test_stored_size_is_what_upright_started_from(orientation: int) -> None:
    stored = np.arange(12).reshape(3, 4)
    assert sorted(upright(stored, orientation).shape) == [3, 4]
    twice = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    np.testing.assert_array_equal(upright(upright(stored, orientation), twice), stored)


@pytest.mark.parametrize(
    "name",
    ["a.png", "a.jpg", "a.tif", "zip.tif", "lzw.tif", "lzw16.tif", "deep.png", "a.npy", "a.npz"],
)
def test_a_file_cut_short_is_told_and_never_half_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    big = RNG.integers(0, 256, (90, 80, 3), dtype=np.uint8)
    if name == "zip.tif":
        tifffile.imwrite(path, big, compression="zlib")
    elif name == "lzw.tif":
        Image.fromarray(big).save(path, compression="tiff_lzw")
    elif name == "lzw16.tif":
        cv2.imwrite(str(path), big.astype(np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    elif name == "deep.png":
        cv2.imwrite(str(path), big.astype(np.uint16) * 200)
    elif name.endswith("tif"):
        tifffile.imwrite(path, big)
    elif name.endswith("npy"):
        np.save(path, big)
    elif name.endswith("npz"):
        np.savez(path, big)
    else:
        Image.fromarray(big).save(path)
    read_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"'{name}'.*can't be read"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "npy", "npz", "nii", "nii.gz"])
def test_nonsense_is_told_with_the_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(RNG.bytes(3000))
    with pytest.raises(DataError, match=rf"'noise.{suffix}' can't be read"):
        read_image(path)


@given(st.binary(min_size=1, max_size=300), st.sampled_from(["png", "tif", "npy", "npz", "nii"]))
@settings(max_examples=60, deadline=None)
def test_whatever_the_bytes_only_a_data_error_comes_out(content: bytes, suffix: str) -> None:
    heads = {"png": b"\x89PNG\r\n\x1a\n", "tif": b"II*\0", "npy": b"\x93NUMPY\x01\0"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        path.write_bytes(heads.get(suffix, b"") + content)
        with pytest.raises(DataError, match=r"'a\."):
            read_image(path)


def test_an_image_that_claims_too_many_pixels_is_refused_before_decoding(tmp_path: Path) -> None:
    write_png(tmp_path / "bomb.png", b"", 60000, 60000, 8, 2)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    )
    (tmp_path / "bomb.npy").write_bytes(header.getvalue())
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("image.npy", header.getvalue())
    for name in ("bomb.png", "bomb.npy", "bomb.npz"):
        with pytest.raises(DataError, match=rf"'{name}' can't be read"):
            read_image(tmp_path / name)


def test_pickled_objects_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled objects, which are not loaded"):
        read_image(tmp_path / "a.npy")


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 3), complex))
    with pytest.raises(DataError, match="complex128, which are no real numbers"):
        read_image(tmp_path / "a.npy")


def test_what_is_no_file_is_told_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in [
        ("folder.png", "no regular file"),
        ("pipe.png", "no regular file"),
        ("link.png", "a link to a file that does not exist"),
        ("empty.png", "0 bytes"),
        ("gone.png", "does not exist"),
    ]:
        with pytest.raises(DataError, match=rf"'{name}'.*{reason}"):
            read_image(tmp_path / name)


def test_odd_names_are_read_and_told_in_one_line(tmp_path: Path) -> None:
    for name in ("<script>.png", "größe ☂ 細胞.PNG", "a\nb.png"):
        Image.fromarray(GREY).save(tmp_path / name, "PNG")
        np.testing.assert_array_equal(read_image(tmp_path / name)[..., 0], GREY)
    (tmp_path / "c\nd.png").touch()
    with pytest.raises(DataError) as error:
        read_image(tmp_path / "c\nd.png")
    assert "\n" not in str(error.value)


def test_a_suffix_that_is_not_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"BM")
    with pytest.raises(DataError, match=r"'a.heic' is of a kind that isn't read"):
        read_image(tmp_path / "a.heic")


def test_arrays_without_pixels_or_of_too_many_axes_are_refused(tmp_path: Path) -> None:
    for shape, reason in [
        ((0, 4), "it has no pixels"),
        ((5,), "its array has the shape (5,)"),
        ((2, 3, 4, 5), "its array has the shape (2, 3, 4, 5)"),
    ]:
        np.save(tmp_path / "a.npy", np.zeros(shape))
        with pytest.raises(DataError, match=re.escape(reason)):
            read_image(tmp_path / "a.npy")
