"""What is decided once for a whole data set: how masks are coded, what values are divided by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetcam.data import ClassTable, Item, Preprocessing, Skipped, open_source, parse_classes
from unetcam.errors import DataError

TWO = ClassTable(("background", "cell"))
THREE = ClassTable(("wall", "building", "sky"))
FOREGROUND = np.zeros((6, 8), np.uint8)
FOREGROUND[2:4, 1:5] = 1


def data_set(root: Path, masks: Sequence[Any], images: Sequence[Any] | None = None) -> Any:
    """Folders of images and masks that pair by number."""
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    for number, mask in enumerate(masks):
        image = np.zeros(mask.shape[:2], np.uint8) if images is None else images[number]
        path = root / "images" / f"{number}.png"
        if image.dtype == np.uint8:
            Image.fromarray(image).save(path)
        else:
            tifffile.imwrite(path.with_suffix(".tif"), image)
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root / "images", root / "masks"


def entries(source: Any, **preprocessing: Any) -> list[Item | Skipped]:
    dataset = source.dataset(source.settled(Preprocessing(channels=1, stride=1, **preprocessing)))
    return [dataset[index] for index in range(len(dataset))]


def test_zero_and_255_is_the_foreground_where_no_mask_holds_one(tmp_path: Path) -> None:
    source = open_source(data_set(tmp_path, [FOREGROUND * 255, FOREGROUND * 0]), classes=TWO)
    assert source.classes.values == (0, 255)
    truths = [one.truth for one in entries(source) if isinstance(one, Item)]
    np.testing.assert_array_equal(truths[0], FOREGROUND)


@pytest.mark.parametrize("together", [True, False])
def test_255_beside_one_is_a_question_and_never_an_answer(tmp_path: Path, together: bool) -> None:
    void = FOREGROUND * 0
    void[-1] = 255
    masks = [void, FOREGROUND + void if together else FOREGROUND]
    folders = data_set(tmp_path, masks)
    with pytest.raises(DataError, match="255 may be a void or the object") as error:
        open_source(folders, classes=TWO)
    assert error.value.options == ("ignore_index", "classes")
    ignored = open_source(folders, classes=ClassTable(TWO.names, ignore_index=255))
    truth = entries(ignored)[0]
    assert isinstance(truth, Item)
    assert set(np.unique(truth.truth)) == {-1, 0}
    merged = open_source(folders, classes=parse_classes("background=0,cell=1+255"))
    truth = entries(merged)[0]
    assert isinstance(truth, Item)
    assert set(np.unique(truth.truth)) == {0, 1}


def test_masks_that_start_at_one_are_told_with_the_remedy(tmp_path: Path) -> None:
    masks = [FOREGROUND + 1, FOREGROUND + 1, FOREGROUND * 2 + 1]
    folders = data_set(tmp_path, masks)
    with pytest.raises(DataError, match="start at 1") as error:
        open_source(folders, classes=THREE)
    assert 'classes="wall=1,building=2,sky=3"' in str(error.value)
    table = parse_classes("wall=1,building=2,sky=3")
    first = entries(open_source(folders, classes=table))[0]
    assert isinstance(first, Item)
    np.testing.assert_array_equal(first.truth, FOREGROUND)


def test_what_may_be_a_shift_is_remarked(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    never_zero = open_source(data_set(tmp_path / "a", [FOREGROUND + 1]), classes=THREE)
    assert "No mask holds 0, the value of 'wall'" in never_zero.remarks[0]
    void = FOREGROUND + 2
    void[0] = 0
    beyond = open_source(data_set(tmp_path / "b", [FOREGROUND, void]), classes=THREE)
    assert "1 of 2 masks hold 3, which no class has" in beyond.remarks[0]
    assert "ignore_index=0" in beyond.remarks[0]


def test_ordinary_masks_give_no_remark(tmp_path: Path) -> None:
    source = open_source(data_set(tmp_path, [FOREGROUND, FOREGROUND * 2]), classes=THREE)
    assert source.remarks == ()
    assert source.classes == THREE


def rgba(colour: Any, alpha: Any) -> Any:
    return np.dstack([np.asarray(colour, np.uint8)] * 3 + [np.asarray(alpha, np.uint8)])


def test_opacity_holds_the_classes_only_where_no_mask_has_them_in_colour(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    in_alpha = rgba(FOREGROUND * 0, FOREGROUND * 255)
    opaque = rgba(FOREGROUND, FOREGROUND * 0 + 255)
    only = open_source(data_set(tmp_path / "a", [in_alpha, in_alpha]), classes=TWO)
    first = entries(only)[0]
    assert isinstance(first, Item)
    np.testing.assert_array_equal(first.truth, FOREGROUND)
    mixed = open_source(data_set(tmp_path / "b", [in_alpha, opaque]), classes=TWO)
    first, second = entries(mixed)
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert not first.truth.any()  # its opacity is a valid area
    np.testing.assert_array_equal(second.truth, FOREGROUND)


def test_instances_are_one_foreground_on_request(tmp_path: Path) -> None:
    numbered = FOREGROUND.copy()
    numbered[2] *= 7
    source = open_source(data_set(tmp_path, [numbered]), classes=TWO, instances=True)
    (one,) = entries(source)
    assert isinstance(one, Item)
    np.testing.assert_array_equal(one.truth, FOREGROUND)
    three = open_source((tmp_path / "images", tmp_path / "masks"), classes=THREE, instances=True)
    (one,) = entries(three)
    assert isinstance(one, Skipped)
    assert "there are 3 classes" in one.reason


@pytest.mark.parametrize("dtype", ["int32", "uint16", "float32"])
def test_one_scale_holds_for_the_whole_data_set(tmp_path: Path, dtype: str) -> None:
    image = (FOREGROUND * 100).astype(np.uint8)
    images = [image, image, image.astype(dtype)]
    folders = data_set(tmp_path, [FOREGROUND] * 3, images)
    source = open_source(folders, classes=TWO)
    first, second, third = entries(source)
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert float(first.prepared.image.max()) == pytest.approx(100 / 255, rel=1e-6)
    assert isinstance(third, Skipped)
    assert f"of the type {dtype}" in third.reason
    assert "max_value=" in third.reason
    assert "Images are of several types" in source.remarks[0]
    told = entries(open_source(folders, classes=TWO), max_value=100.0)
    assert [float(one.prepared.image.max()) for one in told if isinstance(one, Item)] == [1.0] * 3


def test_a_decided_scale_gives_the_same_bits_and_crosses_a_run(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    source = open_source(data_set(tmp_path, [FOREGROUND], [image[:6, :8]]), classes=TWO)
    plain = Preprocessing(channels=1, stride=16, mean=(0.3,), std=(0.7,))
    decided = source.settled(plain)
    assert (decided.max_value, decided.by_type) == (255.0, True)
    assert Preprocessing.from_yaml(decided.to_yaml()) == decided
    pixels = image[..., None]
    assert decided(pixels).image.equal(plain(pixels).image)


@pytest.mark.parametrize("kind", [".nii.gz", ".nii", ".nrrd"])
def test_volumes_of_any_type_reach_the_network_alike(tmp_path: Path, kind: str) -> None:
    nibabel, nrrd = pytest.importorskip("nibabel"), pytest.importorskip("nrrd")
    (tmp_path / "images").mkdir()
    values = np.arange(6 * 5 * 4).reshape(6, 5, 4)
    for dtype in ("int16", "uint16", "uint8"):
        path = tmp_path / "images" / f"{dtype}{kind}"
        if kind == ".nrrd":
            nrrd.write(str(path), values.astype(dtype))
        else:
            nibabel.save(nibabel.Nifti1Image(values.astype(dtype), np.eye(4)), path)
    source = open_source(tmp_path / "images")
    items = entries(source)
    seen = {one.sample.id: one.prepared.image for one in items if isinstance(one, Item)}
    assert len(seen) == 12
    for plane in range(4):
        first, *others = (seen[f"{dtype}#z00{plane}"] for dtype in ("int16", "uint16", "uint8"))
        assert first.max() > 100
        assert all(first.equal(other) for other in others)


def test_labels_that_went_through_a_slope_are_whole_again(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    labels = np.zeros((6, 5, 4))
    labels[2:4, 1:3], labels[4:] = 1, 2
    for name, dtype in (("images", "uint8"), ("masks", "int16"), ("coarse", "uint8")):
        (tmp_path / name).mkdir()
        header = nibabel.Nifti1Header()
        header.set_data_dtype(dtype)
        image = nibabel.Nifti1Image(labels, np.eye(4), header)
        if name == "images":
            image = nibabel.Nifti1Image(labels.astype(dtype), np.eye(4))
        nibabel.save(image, tmp_path / name / "x.nii.gz")
    for masks in ("masks", "coarse"):
        source = open_source((tmp_path / "images", tmp_path / masks), classes=THREE)
        items = entries(source)
        assert len(items) == 4
        assert all(isinstance(one, Item) and one.truth.max() == 2 for one in items)


def test_fractions_behind_a_slope_stay_an_error(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header()
    header.set_data_dtype("int16")
    for name, values in (("images", np.zeros((4, 4, 1))), ("masks", np.full((4, 4, 1), 0.4))):
        (tmp_path / name).mkdir()
        values[0, 0, 0] = 1.0
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4), header), tmp_path / name / "x.nii")
    (one,) = entries(open_source((tmp_path / "images", tmp_path / "masks"), classes=TWO))
    assert isinstance(one, Skipped)
    assert "holds fractions" in one.reason
