from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import nibabel
import nilearn.datasets
import numpy as np
import pytest
from PIL import Image

from unetcam.demo import (
    CLASSES,
    DEMO_STATISTICS,
    HELD_OUT_SLICES,
    TRAINING_SLICES,
    read_slices,
    write_demo_data,
)
from unetcam.demo.slices import COLOURS, Slices, _template
from unetcam.errors import DataError


@pytest.fixture(scope="module")
def held_out() -> Slices:
    return read_slices(HELD_OUT_SLICES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    written = tmp_path_factory.mktemp("demo")
    write_demo_data(written)
    return written


def stored(kind: str) -> np.ndarray:
    data = Path(nilearn.datasets.__file__).parent / "data"
    file = data / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return np.asarray(nibabel.load(file).dataobj)


def test_held_out_slices_are_ten_millimetres_from_any_training_slice() -> None:
    training = {index for part in TRAINING_SLICES for index in part}
    assert min(abs(held - seen) for held in HELD_OUT_SLICES for seen in training) >= 10


def test_held_out_slices_are_one_band_of_16_to_24() -> None:
    assert HELD_OUT_SLICES.step == 1
    assert 16 <= len(HELD_OUT_SLICES) <= 24


def test_images_are_the_bytes_of_the_stored_volume(held_out: Slices) -> None:
    volume = stored("t1")
    for position in (0, 11, 23):
        whole = np.rot90(volume[:, :, held_out.indices[position]])
        # rot90 puts the last of 233 rows first: rows 21..212 of the volume are 20..211 from there
        np.testing.assert_array_equal(held_out.images[position], whole[20:212, 18:178])


def test_nothing_of_the_brain_is_cut_off() -> None:
    every = read_slices(*TRAINING_SLICES, HELD_OUT_SLICES)
    volume = stored("t1")[:, :, every.indices]
    assert (every.images > 0).sum() == (volume > 0).sum()


def test_classes_follow_the_probability_maps(held_out: Slices) -> None:
    def cut(kind: str) -> np.ndarray:
        return np.rot90(stored(kind)[:, :, held_out.indices])[20:212, 18:178].transpose(2, 0, 1)

    brain, grey, white = cut("t1") > 0, cut("gm") / 255, cut("wm") / 255
    np.testing.assert_array_equal(held_out.masks == 0, ~brain)
    assert (held_out.masks[brain & (grey > 0.51)] == 2).all()
    assert (held_out.masks[brain & (white > 0.51)] == 3).all()
    assert (held_out.masks[brain & (grey + white < 0.49)] == 1).all()


def test_every_held_out_slice_shows_every_class(held_out: Slices) -> None:
    for mask in held_out.masks:
        assert set(np.unique(mask)) == set(range(len(CLASSES)))


def test_reading_again_gives_the_same(held_out: Slices) -> None:
    again = read_slices()
    for first, second in zip(held_out, again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_statistics_are_those_of_the_training_slices() -> None:
    scaled = read_slices(*TRAINING_SLICES).images / 255
    assert DEMO_STATISTICS.mean == pytest.approx((scaled.mean(),), abs=1e-3)
    assert DEMO_STATISTICS.std == pytest.approx((scaled.std(),), abs=1e-3)


def test_written_files_hold_the_slices(folder: Path, held_out: Slices) -> None:
    images, masks = (sorted((folder / name).iterdir()) for name in ("images", "masks"))
    assert [path.name for path in images] == [path.name for path in masks]
    assert len(images) == len(HELD_OUT_SLICES)
    for position, (image, mask) in enumerate(zip(images, masks, strict=True)):
        with Image.open(image) as read:
            assert read.mode == "L"
            np.testing.assert_array_equal(np.asarray(read), held_out.images[position])
        with Image.open(mask) as read:
            assert read.mode == "P"
            np.testing.assert_array_equal(np.asarray(read), held_out.masks[position])


def test_mask_palette_shows_the_table_colours(folder: Path, held_out: Slices) -> None:
    with Image.open(min((folder / "masks").iterdir())) as read:
        shown = np.asarray(read.convert("RGB"))
    for value, colour in enumerate(COLOURS):
        expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        np.testing.assert_array_equal(
            np.unique(shown[held_out.masks[0] == value], axis=0), [expected]
        )


def test_class_table_names_every_value(folder: Path) -> None:
    with (folder / "classes.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(CLASSES)
    assert [int(row["value"]) for row in rows] == list(range(len(CLASSES)))
    assert [row["colour"] for row in rows] == list(COLOURS)


def test_writing_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_demo_data(tmp_path)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (tmp_path / file).read_bytes()


def test_missing_nilearn_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(DataError, match=r"pip install unetcam\[demo\]"):
        read_slices()


def test_unwritable_folder_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("not a folder")
    with pytest.raises(DataError, match="taken"):
        write_demo_data(file)


def test_volumes_are_those_that_nilearn_gives() -> None:
    loaders = {
        "t1": nilearn.datasets.load_mni152_template,
        "gm": nilearn.datasets.load_mni152_gm_template,
        "wm": nilearn.datasets.load_mni152_wm_template,
    }
    for name, load in loaders.items():
        wanted = np.asarray(load(resolution=1).dataobj, np.float32)
        np.testing.assert_array_equal(_template(name), wanted)


def test_a_nilearn_without_the_template_is_told_so() -> None:
    with pytest.raises(DataError, match="carries no 'mni_icbm152_t9_"):
        _template("t9")


def test_reading_the_slices_imports_no_nilearn() -> None:
    code = "import sys; from unetcam.demo import read_slices; read_slices(range(90, 91)); print("
    code += "'nilearn' in sys.modules, 'torchmetrics' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
