"""Whole files of unusual kinds: each is read as it is meant, or told in a line that names why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetcam.data import ClassTable, read_image, read_mask, read_picture
from unetcam.errors import DataError

LABELS = np.zeros((12, 10), np.uint8)
LABELS[2:7, 1:4], LABELS[8:10, 5:9] = 1, 2
TWO = ClassTable(("background", "cell"))
THREE = ClassTable(("background", "cell", "border"))
BINARY = (LABELS > 0).astype(np.uint8)


def save(path: Path, array: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(array)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


LOSSLESS = {
    "png": {},
    "bmp": {},
    "gif": {},
    "pgm": {},
    "webp": {"lossless": True},
    "tif": {"compression": "tiff_lzw"},
}


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_labels_are_the_same_in_every_lossless_format(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"m.{suffix}", LABELS, **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_mask(path, THREE), LABELS)
    path = save(tmp_path / f"b.{suffix}", BINARY * 255, **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_mask(path, TWO), BINARY)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_colours_are_the_same_in_every_lossless_format(tmp_path: Path, suffix: str) -> None:
    if suffix in ("gif", "pgm"):
        pytest.skip("it holds no free colours")
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    path = save(tmp_path / f"a.{suffix}", image, **LOSSLESS[suffix])
    np.testing.assert_array_equal(read_image(path), image)


@pytest.mark.parametrize(
    "compression", ["lzw", "zstd", "deflate", "packbits", "lzma", "webp", "png", "jpeg2000"]
)
def test_every_compression_of_tiff_pages_gives_its_pages(tmp_path: Path, compression: str) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (3, 20, 24), dtype=np.uint8)
    options: dict[str, Any] = {"compression": compression, "photometric": "minisblack"}
    if compression == "webp":
        options["compressionargs"] = {"lossless": True}
        stack = np.repeat(stack.transpose(1, 2, 0)[None], 1, axis=0)
        options["photometric"] = "rgb"
        tifffile.imwrite(tmp_path / "a.tif", stack[0], **options)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), stack[0])
        return
    tifffile.imwrite(tmp_path / "a.tif", stack, **options)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(stack, 0, -1))
    with pytest.raises(DataError, match="is in colour"):
        read_mask(tmp_path / "a.tif", THREE)


def test_portable_maps_keep_their_samples(tmp_path: Path) -> None:
    for name, text in (
        ("a.pgm", "P2\n# labels\n3 2\n2\n0 1 2 2 1 0\n"),
        ("b.pgm", "P2 3 2 1000 0 1 2 2 1 0"),
    ):
        (tmp_path / name).write_text(text)
        np.testing.assert_array_equal(read_mask(tmp_path / name, THREE), [[0, 1, 2], [2, 1, 0]])
    (tmp_path / "c.pbm").write_text("P1 3 2 0 1 1 0 0 1")
    indices = read_picture(tmp_path / "c.pbm", indices=True).pixels[..., 0]
    assert set(np.unique(indices)) == {0, 1}


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((8, 8), n * 80, np.uint8)) for n in range(3)]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="an animation of 3 frames"):
            read_image(path)


def test_white_is_zero_is_a_question_where_both_readings_fit(tmp_path: Path) -> None:
    path = tmp_path / "m.tif"
    for array in (BINARY > 0, BINARY * 255):
        tifffile.imwrite(path, array, photometric="miniswhite")
        with pytest.raises(DataError, match="MINISWHITE"):
            read_mask(path, TWO)
    tifffile.imwrite(path, LABELS, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(path, THREE), LABELS)


def test_a_renumbered_grey_palette_is_read_by_its_greys(tmp_path: Path) -> None:
    table = ClassTable(("background", "cell", "border"), (0, 90, 200))
    image = Image.fromarray(LABELS)
    image.putpalette([0, 0, 0, 90, 90, 90, 200, 200, 200])
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", table), LABELS)
    image.putpalette([2, 2, 2, 0, 0, 0, 1, 1, 1])
    image.save(tmp_path / "n.png")
    with pytest.raises(DataError, match="indices and colours stand for different classes"):
        read_mask(tmp_path / "n.png", THREE)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_mask_without_exif_is_placed_by_its_size_or_by_a_persons_word(
    tmp_path: Path, orientation: int
) -> None:
    from unetcam.data import Item, Preprocessing, open_source
    from unetcam.data.pictures import upright

    exif = Image.Exif()
    exif[274] = orientation
    for folder in ("images", "stored", "upright"):
        (tmp_path / folder).mkdir()
    save(tmp_path / "images" / "a.png", LABELS, exif=exif)
    save(tmp_path / "stored" / "a.png", LABELS)
    seen = upright(LABELS, orientation)
    save(tmp_path / "upright" / "a.png", seen)
    for masks in ("stored", "upright"):
        for word in ("auto", masks):
            source = open_source((tmp_path / "images", tmp_path / masks), classes=THREE, exif=word)
            entry = source.dataset(Preprocessing(channels=1, stride=1))[0]
            if word == "auto" and orientation < 5:
                assert not isinstance(entry, Item)
                assert "exif='upright'" in entry.reason
                assert entry.options == ("exif",)
                continue
            assert isinstance(entry, Item)
            np.testing.assert_array_equal(entry.truth, seen)


def test_a_file_of_another_kind_is_told_what_it_is(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1234\n"
    for name, content, words in (
        ("a.png", pointer.encode(), "Git LFS pointer"),
        ("b.tif", b"<!DOCTYPE html><html></html>", "an HTML page"),
        ("c.npy", b"%PDF-1.7 and so on, and so on", "begins like a PDF file"),
        ("d.nii", b"\x89PNG\r\n\x1a\n" + bytes(400), "begins like a PNG file"),
        ("e.jpg", b"\xff\xd8\xff" + bytes(40), "it is damaged"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=words) as error:
            read_picture(tmp_path / name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 300 + ".png", "..", "a\udcff.png"])
def test_a_name_that_no_file_has_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError) as error:
        read_image(tmp_path / name)
    str(error.value).encode()
    assert len(str(error.value)) < 400


def test_bands_and_stretch_of_what_is_shown(tmp_path: Path) -> None:
    from unetcam.data import for_display

    values = np.random.default_rng(0).integers(0, 3000, (6, 8, 5)).astype(np.uint16)
    shown = for_display(values, bands=(4, 1, 5), stretch="window:0:2550")
    expected = (np.clip(values[..., [3, 0, 4]] / 2550, 0, 1) * 255).astype(np.uint8)
    np.testing.assert_array_equal(shown, expected)
    low, high = for_display(values, stretch="minmax").min(), for_display(values).max()
    assert (low, high) == (0, 255)
    eight = values.astype(np.uint8)[..., :3]
    np.testing.assert_array_equal(for_display(eight, stretch="none"), eight)
    with pytest.raises(DataError, match="5 bands and bands="):
        for_display(values, bands=(6, 1, 2))


def test_voxels_in_another_file_are_not_fetched(tmp_path: Path) -> None:
    pytest.importorskip("nrrd")
    (tmp_path / "secret.raw").write_bytes(bytes(24))
    for field in ("data file", "datafile"):
        head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 3 4\nencoding: raw\n{field}: "
        (tmp_path / "a.nrrd").write_text(head + "secret.raw\n\n")
        with pytest.raises(DataError, match="voxels lie in another file"):
            read_picture(tmp_path / "a.nrrd", orientation="file")
