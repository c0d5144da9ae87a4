"""Every sample gives an item or its reason, in this process and in others."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from unetcam.data import (
    IGNORE,
    ClassTable,
    Item,
    Preprocessing,
    Sample,
    SegmentationDataset,
    Skipped,
    collate,
    find_samples,
)

RNG = np.random.default_rng(5)
CLASSES = ClassTable(("background", "grey", "white"), ignore_index=255)


def write(folder: Path, name: str, pixels: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for name, size in (("a", (20, 30)), ("b", (33, 16))):
        write(images, f"{name}.png", RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
        write(masks, f"{name}.png", RNG.choice([0, 1, 2, 255], size).astype(np.uint8))
    for name in ("cut", "grown", "odd", "two"):
        write(images, f"{name}.png", RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        write(masks, f"{name}.png", np.zeros((20, 30), np.uint8))
    cut = images / "cut.png"
    cut.write_bytes(cut.read_bytes()[:600])
    write(masks, "grown.png", np.zeros((21, 30), np.uint8))
    write(masks, "odd.png", np.full((20, 30), 7, np.uint8))
    write(images, "two.png", np.zeros((20, 30, 2), np.uint8))
    np.save(images / "five.npy", np.zeros((20, 30, 5), np.uint8))
    write(masks, "five.png", np.zeros((20, 30), np.uint8))
    holes = np.zeros((20, 30, 3), np.float32)
    holes[2, 3] = np.nan
    np.save(images / "holes.npy", holes)
    write(masks, "holes.png", np.zeros((20, 30), np.uint8))
    return tmp_path


def dataset(root: Path, masks: bool = True) -> SegmentationDataset:
    samples, skipped = find_samples(root / "images", root / "masks" if masks else None)
    assert skipped == []
    return SegmentationDataset(samples, CLASSES, Preprocessing(stride=16))


def test_good_samples_give_items_and_bad_ones_their_reason(data: Path) -> None:
    entries = {
        (entry.sample.id if isinstance(entry, Item) else entry.id): entry for entry in dataset(data)
    }
    items = {name for name, entry in entries.items() if isinstance(entry, Item)}
    assert items == {"a", "b", "two"}  # grey with alpha is repeated to three channels
    for name, reason in {
        "cut": "'cut.png' can't be read as PNG",
        "grown": "The mask 'grown.png' has 21 x 30 pixels and its image 20 x 30",
        "odd": "The mask 'odd.png' holds the unknown value 7",
        "five": "'five.npy': the image has 5 bands and the network takes 3",
        "holes": "'holes.npy' holds 3 values that are NaN or infinite",
    }.items():
        entry = entries[name]
        assert isinstance(entry, Skipped)
        assert reason in entry.reason
        assert entry.file.startswith(str(data / "images" / name))


def test_an_item_holds_the_image_the_truth_and_the_way_back(data: Path) -> None:
    item = dataset(data)[0]
    assert isinstance(item, Item)
    raw = np.asarray(Image.open(data / "masks/a.png")).astype(np.int64)
    np.testing.assert_array_equal(item.truth, np.where(raw == 255, IGNORE, raw))
    np.testing.assert_array_equal(item.image, np.asarray(Image.open(data / "images/a.png")))
    assert item.prepared.image.shape == (3, 32, 32)
    assert item.prepared.mask is not None
    restored = item.prepared.frame.restore(item.prepared.mask, "nearest")
    np.testing.assert_array_equal(restored.numpy(), item.truth)


def test_without_masks_every_pixel_is_ignored(data: Path) -> None:
    item = dataset(data, masks=False)[0]
    assert isinstance(item, Item)
    assert item.prepared.mask is None
    assert item.truth.shape == (20, 30)
    assert (item.truth == IGNORE).all()


def test_a_file_that_vanishes_is_skipped(data: Path) -> None:
    entries = dataset(data)
    (data / "images/a.png").unlink()
    entry = entries[0]
    assert isinstance(entry, Skipped)
    assert "'a.png' does not exist" in entry.reason


def test_an_image_turned_by_exif_meets_its_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    (tmp_path / "a.jpg").parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    write(tmp_path, "m.png", np.zeros((20, 30), np.uint8))
    sample = Sample("a", tmp_path / "a.jpg", tmp_path / "m.png")
    item = SegmentationDataset([sample], CLASSES, Preprocessing())[0]
    assert isinstance(item, Item)
    assert item.image.shape == (30, 20, 3)
    assert item.truth.shape == (30, 20)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_give_the_same(data: Path, context: str) -> None:
    entries = dataset(data)
    loader = DataLoader(
        entries, batch_size=3, num_workers=1, collate_fn=collate, multiprocessing_context=context
    )
    through = [entry for batch in loader for entry in batch]
    assert len(through) == len(entries)
    for there, here in zip(through, (entries[n] for n in range(len(entries))), strict=True):
        assert type(there) is type(here)
        if isinstance(there, Item) and isinstance(here, Item):
            assert torch.equal(there.prepared.image, here.prepared.image)
            assert there.prepared.frame == here.prepared.frame
            np.testing.assert_array_equal(there.truth, here.truth)
        else:
            assert there == here


def test_the_data_set_is_picklable_after_use(data: Path) -> None:
    entries = dataset(data)
    first = entries[0]
    again = pickle.loads(pickle.dumps(entries))[0]
    assert isinstance(first, Item)
    assert isinstance(again, Item)
    assert torch.equal(first.prepared.image, again.prepared.image)


def test_importing_asks_no_server_for_a_version() -> None:
    code = (
        "import urllib.request as r\n"
        "def no(*a, **k): raise SystemExit('a version was asked for')\n"
        "r.OpenerDirector.open = no\n"
        "import unetcam.data\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_indices_outside_are_an_index_error(data: Path) -> None:
    with pytest.raises(IndexError):
        dataset(data)[99]
