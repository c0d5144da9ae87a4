"""Data sets in every form: files, torch data sets and loaders, MONAI's mappings, arrays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from unetcam.data import ClassTable, Item, Preprocessing, Skipped, open_source
from unetcam.errors import DataError

CLASSES = ClassTable(("background", "cell", "border"), ignore_index=255)
GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.rand(5, 2, 8, 12, generator=GENERATOR)
MASKS = torch.randint(0, 3, (5, 8, 12), generator=GENERATOR)
PREPARE = Preprocessing(channels=2, stride=1)


class Named(Dataset[Any]):
    """Entries as mappings with a name."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {
            "image": IMAGES[index],
            "label": MASKS[index][None].float(),
            "name": f"case {index}",
        }


class Streamed(IterableDataset[Any]):
    """Entries that can only be iterated."""

    def __iter__(self) -> Any:
        return iter(zip(IMAGES, MASKS, strict=True))


def read(source: Any, preprocessing: Preprocessing = PREPARE) -> list[Item]:
    dataset = source.dataset(preprocessing)
    entries = [dataset[index] for index in range(len(dataset))]
    assert all(isinstance(one, Item) for one in entries), entries
    return entries


FORMS: dict[str, Any] = {
    "tensors": (IMAGES, MASKS),
    "arrays": (IMAGES.numpy(), MASKS.numpy()),
    "data set": TensorDataset(IMAGES, MASKS),
    "loader": DataLoader(TensorDataset(IMAGES, MASKS), batch_size=2, shuffle=True),
    "named": Named(),
    "named loader": DataLoader(Named(), batch_size=3),
    "stream": Streamed(),
    "stream in batches": DataLoader(Streamed(), batch_size=2),
    "list": [(IMAGES[n], MASKS[n], f"case {n}") for n in range(5)],
    "generator": zip(IMAGES, MASKS, strict=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_images_and_masks_in_their_order(form: str) -> None:
    source = open_source(FORMS[form], classes=CLASSES)
    items = read(source)
    named = form in ("named", "named loader", "list")
    expected = [f"case {n}" if named else f"0000{n}" for n in range(5)]
    assert [one.id for one in source.samples] == expected
    for n, item in enumerate(items):
        assert item.sample.files == ()
        assert torch.equal(item.prepared.image, IMAGES[n])
        np.testing.assert_array_equal(item.truth, MASKS[n].numpy())
        assert item.image.shape == (8, 12, 3)


def test_positions_choose_and_digests_tell_contents_apart() -> None:
    source = open_source((IMAGES, MASKS), classes=CLASSES)
    dataset = source.dataset(PREPARE, [3, 1])
    assert [dataset[n].sample.id for n in range(2)] == ["00003", "00001"]
    changed = MASKS.clone()
    changed[2, 0, 0] += 1
    before = source.digest_entries()
    after = open_source((IMAGES, changed), classes=CLASSES).digest_entries()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, True, False, True, True]


def test_a_loaders_collate_function_is_honoured() -> None:
    def double(batch: list[Any]) -> tuple[Tensor, Tensor]:
        images, masks = zip(*batch, strict=True)
        return torch.stack(images) * 2, torch.stack(masks)

    loader = DataLoader(TensorDataset(IMAGES, MASKS), batch_size=2, collate_fn=double)
    items = read(open_source(loader, classes=CLASSES))
    assert torch.equal(items[4].prepared.image, IMAGES[4] * 2)


def test_names_are_taken_from_what_a_data_set_lists_or_from_the_caller() -> None:
    data = TensorDataset(IMAGES, MASKS)
    data.image_paths = [f"/data/a/{n}.png" for n in "pqrst"]
    assert [one.id for one in open_source(data).samples] == list("pqrst")
    given = open_source((IMAGES, MASKS), names=["a", "b", "a", "c", "d"])
    assert [one.id for one in given.samples] == ["a (00000)", "b", "a (00002)", "c", "d"]
    with pytest.raises(DataError, match="2 names and 5 images"):
        open_source((IMAGES, MASKS), names=["a", "b"])


def test_monais_tensors_name_their_file_and_spacing() -> None:
    monai = pytest.importorskip("monai.data")
    affine = torch.diag(torch.tensor([0.5, 2.0, 3.0, 1.0]))
    volume = monai.MetaTensor(
        torch.rand(1, 4, 6, 8), affine=affine, meta={"filename_or_obj": "/x/p1.nii.gz"}
    )
    entries = [{"image": volume, "label": monai.MetaTensor(torch.ones(1, 4, 6, 8))}]
    source = open_source(entries, classes=CLASSES).volumes("RAS")
    (item,) = read(source, Preprocessing(channels=1, stride=1, dims=3))
    assert item.sample.id == "p1"
    assert item.sample.orientation == "RAS"
    assert item.spacing == (0.5, 2.0, 3.0)
    assert type(item.prepared.image) is Tensor
    assert item.truth.shape == (4, 6, 8)


def test_left_out_values_and_one_hot_masks_are_understood() -> None:
    mask = MASKS[0].clone()
    mask[0, :4] = torch.tensor([-100, -1, 255, 0])
    one_hot = torch.nn.functional.one_hot(MASKS[1], 3).movedim(-1, 0).float()
    first, second = read(open_source([(IMAGES[0], mask), (IMAGES[1], one_hot)], classes=CLASSES))
    assert first.truth[0, :4].tolist() == [-1, -1, -1, 0]
    np.testing.assert_array_equal(second.truth, MASKS[1].numpy())


WRONG: dict[str, tuple[Any, str]] = {
    "integers": ((IMAGES[0] * 255).to(torch.uint8), "has the type torch.uint8"),
    "channels last": (IMAGES[0].movedim(0, -1), "give the channels first"),
    "text": ("a.png", "is a str"),
    "NaN": (torch.full((2, 8, 12), torch.nan), "holds 192 values that are NaN"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_an_image_that_is_not_ready_is_skipped_with_its_reason(kind: str) -> None:
    image, words = WRONG[kind]
    entry = open_source([(image, MASKS[0])], classes=CLASSES).dataset(PREPARE)[0]
    assert isinstance(entry, Skipped)
    assert words in entry.reason


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.full((8, 12), 7), "the unknown value 7"),
        (torch.rand(8, 12), "holds fractions"),
        (torch.ones(2, 8, 12), "not one class per pixel"),
        (torch.zeros(4, 4), "has the shape (4, 4)"),
        (None, ""),
    ],
)
def test_a_mask_that_fits_nothing_is_told(mask: Any, words: str) -> None:
    entry = open_source([(IMAGES[0], mask)], classes=CLASSES).dataset(PREPARE)[0]
    if mask is None:
        assert isinstance(entry, Item)
        assert bool((entry.truth == -1).all())
    else:
        assert isinstance(entry, Skipped)
        assert words in entry.reason


def test_what_is_no_data_set_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for data, words in [
        (7, "type int is no data set"),
        ([], "is empty"),
        ([1, 2, 3], "is a int"),
        ([{"picture": IMAGES[0]}], "has the keys picture"),
        ((IMAGES, MASKS[:2]), "5 images and 2 masks"),
        (tmp_path / "nothing", "There is no file or folder"),
    ]:
        with pytest.raises(DataError, match=words):
            open_source(data, classes=CLASSES)


def test_a_data_set_that_raises_is_skipped_and_the_cause_is_named() -> None:
    class Broken(Dataset[Any]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            if index == 1:
                raise RuntimeError("the disk is full")
            return IMAGES[0], MASKS[0]

    dataset = open_source(Broken(), classes=CLASSES).dataset(PREPARE)
    assert isinstance(dataset[0], Item)
    entry = dataset[1]
    assert isinstance(entry, Skipped)
    assert "RuntimeError: the disk is full" in entry.reason


def test_files_are_read_in_other_processes_and_memory_is_not(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.ones((8, 12), np.uint8))
    source = open_source((tmp_path / "images", tmp_path / "masks"), classes=CLASSES)
    assert not source.in_memory
    assert open_source((IMAGES, MASKS)).in_memory
    dataset = pickle.loads(pickle.dumps(source.dataset(Preprocessing(channels=1, stride=1))))
    assert isinstance(dataset[0], Item)
    ((name, digests),) = source.digest_entries()
    assert (name, len(digests), len(digests[0])) == ("a", 2, 64)
