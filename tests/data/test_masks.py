"""Masks become class indices, in every way that people write them; what is unknown is told."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from unetcam.data import IGNORE, ClassTable, Sample, read_mask, read_picture
from unetcam.errors import DataError

RNG = np.random.default_rng(2)
LABELS = RNG.integers(0, 3, (6, 8))
THREE = ClassTable(("background", "grey", "white"))
TWO = ClassTable(("background", "cell"))
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 128, 7))
COLOURED = ClassTable(THREE.names, colours=COLOURS, ignore_colour=(224, 224, 192))


def save_png(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@given(
    hnp.arrays(np.int64, (4, 5), elements=st.integers(0, 3)),
    st.lists(st.integers(0, 65000), min_size=3, max_size=3, unique=True),
    st.sampled_from([np.uint16, np.int32, np.int64, np.uint64, np.float32, np.float64]),
)
@settings(max_examples=50, deadline=None)
def test_any_values_in_any_type_become_indices(
    truth: np.ndarray, values: list[int], dtype: type
) -> None:
    classes = ClassTable(("a", "b", "c"), tuple(values), ignore_index=65001)
    written = np.array([*values, 65001])[truth].astype(dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.npy"
        np.save(path, written)
        read = read_mask(path, classes)
    assert read.dtype == np.int64
    np.testing.assert_array_equal(read, np.where(truth == 3, IGNORE, truth))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_index_images_of_8_and_16_bits(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(LABELS.astype(dtype)).save(path)
    np.testing.assert_array_equal(read_mask(path, THREE), LABELS)


def test_palette_png_gives_indices_not_colours(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS.astype(np.uint8), "P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", THREE), LABELS)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png", COLOURED), LABELS)


def test_a_palette_that_contradicts_the_table_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS.astype(np.uint8), "P")
    image.putpalette([value for colour in COLOURS for value in colour])
    image.save(tmp_path / "same.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "same.png", COLOURED), LABELS)
    image.putpalette([value for colour in COLOURS[::-1] for value in colour])
    image.save(tmp_path / "turned.png")
    with pytest.raises(DataError, match="indices and colours stand for different classes"):
        read_mask(tmp_path / "turned.png", COLOURED)


@pytest.mark.parametrize("alpha", [False, True])
def test_colour_coded_masks(tmp_path: Path, alpha: bool) -> None:
    pixels = np.array(COLOURS, np.uint8)[LABELS]
    pixels[0, 0] = (224, 224, 192)
    if alpha:
        pixels = np.dstack([pixels, np.full(LABELS.shape, 255, np.uint8)])
    expected = LABELS.copy()
    expected[0, 0] = IGNORE
    path = save_png(tmp_path / "m.png", pixels)
    np.testing.assert_array_equal(read_mask(path, COLOURED), expected)


def test_a_colour_that_no_class_has_is_named(tmp_path: Path) -> None:
    pixels = np.array(COLOURS, np.uint8)[LABELS]
    pixels[1, 2] = (1, 2, 3)
    path = save_png(tmp_path / "m.png", pixels)
    with pytest.raises(DataError, match=r"'m.png' holds colours that no class has \(#010203\)"):
        read_mask(path, COLOURED)


def test_colours_without_a_colour_table_are_refused_but_grey_as_rgb_is_read(
    tmp_path: Path,
) -> None:
    path = save_png(tmp_path / "m.png", np.array(COLOURS, np.uint8)[LABELS])
    with pytest.raises(DataError, match="is in colour; give the class table a colour"):
        read_mask(path, THREE)
    grey = np.repeat(LABELS[..., None].astype(np.uint8), 3, axis=2)
    np.testing.assert_array_equal(read_mask(save_png(tmp_path / "g.png", grey), THREE), LABELS)


def test_0_and_255_are_two_classes_where_the_table_is_plain(tmp_path: Path) -> None:
    truth = LABELS % 2
    path = save_png(tmp_path / "m.png", (truth * 255).astype(np.uint8))
    np.testing.assert_array_equal(read_mask(path, TWO), truth)
    full = save_png(tmp_path / "f.png", np.full((4, 4), 255, np.uint8))
    assert (read_mask(full, TWO) == 1).all()
    assert (read_mask(full, ClassTable(TWO.names, ignore_index=255)) == IGNORE).all()
    for classes in (THREE, ClassTable(TWO.names, (0, 2))):
        with pytest.raises(DataError, match="unknown value 255"):
            read_mask(path, classes)
    mixed = save_png(tmp_path / "x.png", np.array([[0, 1, 255]], np.uint8))
    with pytest.raises(DataError, match="unknown value 255"):
        read_mask(mixed, TWO)


def test_truth_values_and_1_bit_images_are_two_classes(tmp_path: Path) -> None:
    truth = LABELS > 0
    np.save(tmp_path / "m.npy", truth)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.npy", TWO), truth)
    path = save_png(tmp_path / "m.png", truth)
    np.testing.assert_array_equal(read_mask(path, TWO), truth)


def test_unknown_values_are_named_and_counted(tmp_path: Path) -> None:
    path = save_png(tmp_path / "m.png", np.arange(12, dtype=np.uint8).reshape(3, 4))
    message = "The mask 'm.png' holds the unknown values 3, 4, 5, 6, 7 and 4 more, but the classes"
    with pytest.raises(DataError, match=re.escape(message)):
        read_mask(path, THREE)


def test_jpeg_masks_are_told_why_they_fail(tmp_path: Path) -> None:
    Image.fromarray((LABELS * 100).astype(np.uint8)).save(tmp_path / "m.jpg", quality=50)
    with pytest.raises(DataError, match="its format blurs class indices, save masks as PNG"):
        read_mask(tmp_path / "m.jpg", ClassTable(THREE.names, (0, 100, 200)))


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractions_and_nan_are_refused(tmp_path: Path, value: float) -> None:
    np.save(tmp_path / "m.npy", np.array([[0.0, value], [1.0, 0.0]]))
    with pytest.raises(DataError, match="holds fractions or NaN"):
        read_mask(tmp_path / "m.npy", TWO)


def test_negative_values_are_classes_only_if_the_table_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", np.array([[0, -100], [1, 0]]))
    with pytest.raises(DataError, match="unknown value -100"):
        read_mask(tmp_path / "m.npy", TWO)
    read = read_mask(tmp_path / "m.npy", ClassTable(TWO.names, ignore_index=-100))
    assert read.tolist() == [[0, IGNORE], [1, 0]]


def test_more_bands_than_colours_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((5, 8, 8), np.uint8))
    with pytest.raises(DataError, match="has 5 bands; give an index image"):
        read_mask(tmp_path / "m.tif", TWO)


def class_sample(folder: Path, masks: dict[int, np.ndarray], **options: int) -> Sample:
    paths = tuple(
        save_png(folder / f"m{number}.png", mask.astype(np.uint8)) for number, mask in masks.items()
    )
    return Sample("a", folder / "a.png", paths, mask_classes=tuple(masks), **options)


def test_one_file_per_class_leaves_the_rest_to_the_background(tmp_path: Path) -> None:
    sample = class_sample(tmp_path, {1: (LABELS == 1) * 255, 2: (LABELS == 2) * 1})
    np.testing.assert_array_equal(read_mask(sample, THREE), LABELS)


def test_what_no_class_file_claims_is_ignored_if_the_background_has_files(tmp_path: Path) -> None:
    sample = class_sample(tmp_path, {0: LABELS == 0, 2: LABELS == 2}, unlabelled=IGNORE)
    np.testing.assert_array_equal(read_mask(sample, THREE), np.where(LABELS == 1, IGNORE, LABELS))


def test_class_files_that_overlap_are_refused(tmp_path: Path) -> None:
    sample = class_sample(tmp_path, {1: LABELS > 0, 2: LABELS == 2})
    count = int((LABELS == 2).sum())
    with pytest.raises(DataError, match=f"'white' and the one of 'grey' both claim {count} pixels"):
        read_mask(sample, THREE)


def test_class_files_of_different_size_or_with_soft_edges_are_refused(tmp_path: Path) -> None:
    sample = class_sample(tmp_path, {1: LABELS == 1, 2: np.zeros((3, 3))})
    with pytest.raises(DataError, match=r"'m2.png' has 3 x 3 pixels and 'm1.png' 6 x 8"):
        read_mask(sample, THREE)
    sample = class_sample(tmp_path / "soft", {1: LABELS * 100})
    with pytest.raises(DataError, match=r"holds 3 values; save it as black and white"):
        read_mask(sample, THREE)


def oriented(path: Path, pixels: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_drawn_on_the_unturned_image_is_turned_with_it(
    tmp_path: Path, orientation: int
) -> None:
    image = read_picture(oriented(tmp_path / "a.jpg", np.zeros((6, 8, 3), np.uint8), orientation))
    labels = LABELS.astype(np.uint8)
    own = read_mask(oriented(tmp_path / "own.png", labels, orientation), THREE, image=image)
    bare = read_mask(save_png(tmp_path / "bare.png", labels), THREE, image=image)
    turned = read_mask(save_png(tmp_path / "turned.png", own.astype(np.uint8)), THREE, image=image)
    assert own.shape == (8, 6)
    np.testing.assert_array_equal(bare, own)
    np.testing.assert_array_equal(turned, own)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    image = read_picture(save_png(tmp_path / "a.png", np.zeros((5, 8), np.uint8)))
    path = save_png(tmp_path / "m.png", LABELS.astype(np.uint8))
    with pytest.raises(DataError, match=r"'m.png' has 6 x 8 pixels and its image 5 x 8"):
        read_mask(path, THREE, image=image)


def test_a_sample_without_a_mask_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'a' has no mask"):
        read_mask(Sample("a", tmp_path / "a.png"), TWO)
