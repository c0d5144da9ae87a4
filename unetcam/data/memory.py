"""Data sets in memory: torch data sets and loaders, sequences and arrays of images and masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from unetcam.data.channels import for_display
from unetcam.data.class_table import ClassTable
from unetcam.data.dataset import Item, require_finite
from unetcam.data.files import key_of, readable
from unetcam.data.frames import Frame
from unetcam.data.mask_values import indices_of
from unetcam.data.preprocessing import Prepared, Preprocessing
from unetcam.data.samples import IGNORE, Sample, Skipped
from unetcam.errors import DataError, UnetcamError, reason

IMAGE_KEYS: Final = ("image", "images", "img", "pixel_values", "input", "inputs", "x")
MASK_KEYS: Final = ("mask", "label", "labels", "seg", "truth", "target", "masks", "y")
NAME_KEYS: Final = ("name", "id", "image_id", "filename", "file_name", "image_path", "path")
_NAME_LISTS: Final = (
    "names",
    "ids",
    "image_names",
    "image_paths",
    "image_files",
    "images",
    "files",
)
_FILE_OF_METADATA: Final = "filename_or_obj"
#: What torch's losses leave out, and what this package does.
_IGNORED: Final = (-100, -1)
_DIGITS: Final = 5


def is_pair_of_arrays(data: Any) -> bool:
    """Whether it is (images, masks) as two arrays or tensors with the images along the first axis.

    Examples
    --------
    >>> is_pair_of_arrays((torch.zeros(5, 1, 8, 8), np.zeros((5, 8, 8))))
    True
    """
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and all(isinstance(one, (Tensor, np.ndarray)) for one in data)
        and data[0].ndim >= 4
    )


class MemorySource:
    """Images and masks that a Python object gives, prepared for the network already.

    Parameters
    ----------
    data : Dataset, DataLoader, sequence or iterable
        Of (image, mask), (image, mask, name) or a mapping with such entries. A loader's entries
        go through its ``collate_fn`` one by one, in the order of its data set. What can only be
        iterated is read once and kept.
    classes : ClassTable or None
        The values of masks are class indices, or those that the table names; -1, -100 and the
        table's ignore index are left out.
    names : sequence of str, optional
        One per image.

    Raises
    ------
    DataError
        For entries that are no image with a mask, and names that don't fit.
    """

    in_memory = True

    def __init__(
        self, data: Any, classes: ClassTable | None, names: Sequence[str] | None = None
    ) -> None:
        self._entries = _Entries(data)
        self.classes = classes
        self.skipped: list[Skipped] = []
        self.remarks: tuple[str, ...] = ()
        ids = _names(self._entries, names)
        self.samples = [Sample(one, None) for one in ids]
        self._positions = list(range(len(ids)))
        if not ids:
            raise DataError("the data set is empty; give one image at least")

    def settled(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing as it is: nothing is left to prepare."""
        return preprocessing

    def digest_entries(self) -> list[tuple[str, list[str]]]:
        """Of each sample the id and the SHA-256 digests of its image and mask: all are read."""
        digests = []
        for sample, position in zip(self.samples, self._positions, strict=True):
            image, mask, _ = self._entries[position]
            digests.append((sample.id, [_digest(image), _digest(mask)]))
        return digests

    def dataset(
        self, preprocessing: Preprocessing, positions: Sequence[int] | None = None
    ) -> Dataset[Item | Skipped]:
        """What reads the samples, or those at some positions, in this process."""
        chosen = range(len(self.samples)) if positions is None else positions
        return _MemoryDataset(
            self._entries,
            [(self._positions[n], self.samples[n]) for n in chosen],
            self.classes,
            preprocessing,
        )

    def volumes(self, orientation: str) -> MemorySource:
        """The same, its entries being volumes whose axes run in an orientation."""
        axes = "RAS" if orientation == "file" else orientation.upper()
        twin = object.__new__(MemorySource)
        twin.__dict__.update(self.__dict__)
        twin.samples = [replace(one, orientation=axes) for one in self.samples]
        return twin

    def subset(self, positions: Sequence[int]) -> MemorySource:
        """The same with the samples at some positions alone."""
        twin = object.__new__(MemorySource)
        twin.__dict__.update(self.__dict__)
        twin.samples = [self.samples[n] for n in positions]
        twin._positions = [self._positions[n] for n in positions]
        return twin


class _Entries:
    """(image, mask, name) by position, from whatever a person hands over."""

    def __init__(self, data: Any) -> None:
        self._collate: Any = None
        if isinstance(data, DataLoader):
            if isinstance(data.dataset, IterableDataset):
                data = list(_unbatched(data))
            else:
                self._collate, data = data.collate_fn, data.dataset
        if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
            data = list(data)
        self.data: Any = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any, str | None]:
        try:
            entry = self.data[index]
            if self._collate is not None:
                entry = _first_of_batch(self._collate([entry]))
        except UnetcamError:
            raise
        except Exception as error:  # somebody else's code
            raise DataError(
                f"the data set fails at the position {index} ({reason(error)}); mend it"
            ) from error
        return _parts(entry, index)


def _unbatched(batches: Iterator[Any] | DataLoader[Any]) -> Iterator[Any]:
    for batch in batches:
        size = len(_parts(batch, 0)[0])
        yield from (_take(batch, number) for number in range(size))


def _first_of_batch(batch: Any) -> Any:
    return _take(batch, 0)


def _take(batch: Any, number: int) -> Any:
    if isinstance(batch, Mapping):
        return {key: _one(value, number) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return tuple(_one(value, number) for value in batch)
    return batch


def _one(value: Any, number: int) -> Any:
    if isinstance(value, (Tensor, np.ndarray)):
        return value[number] if value.ndim else value
    if isinstance(value, (tuple, list)) and number < len(value):
        return value[number]
    return value


def _parts(entry: Any, index: int) -> tuple[Any, Any, str | None]:
    """Image, mask and name of an entry."""
    if isinstance(entry, Mapping):
        image = _first(entry, IMAGE_KEYS)
        if image is not None:
            name = _first(entry, NAME_KEYS)
            return image, _first(entry, MASK_KEYS), _text(name) or _name_of(image)
        raise DataError(
            f"the entry {index} of the data set has the keys {', '.join(map(str, entry))}; call "
            "its image 'image' and its mask 'mask'"
        )
    if isinstance(entry, (tuple, list)) and len(entry) >= 2 and not isinstance(entry[0], Mapping):
        name = next((_text(one) for one in entry[2:] if _text(one)), None)
        return entry[0], entry[1], name or _name_of(entry[0])
    kind = f"a {type(entry).__name__}"
    if isinstance(entry, (tuple, list)):
        kind = f"{len(entry)} of {type(entry[0]).__name__ if entry else 'nothing'}"
    raise DataError(
        f"the entry {index} of the data set is {kind}; let it give (image, mask), or a mapping "
        "with 'image' and 'mask'"
    )


def _first(entry: Mapping[Any, Any], keys: Sequence[str]) -> Any:
    return next((entry[key] for key in keys if entry.get(key) is not None), None)


def _text(value: Any) -> str | None:
    if isinstance(value, (str, PathLike)):
        return readable(key_of(Path(value))) or None
    return None


def _name_of(image: Any) -> str | None:
    """The name that an image with metadata carries, as MONAI's MetaTensor does."""
    meta = getattr(image, "meta", None)
    name = meta.get(_FILE_OF_METADATA) if isinstance(meta, Mapping) else None
    if isinstance(name, (tuple, list)) and len(name) == 1:
        name = name[0]
    return (
        None if not isinstance(name, (str, PathLike)) else readable(key_of(Path(Path(name).name)))
    )


def _names(entries: _Entries, given: Sequence[str] | None) -> list[str]:
    count = len(entries)
    names: list[str | None] | None
    if given is not None:
        if len(given) != count:
            raise DataError(
                f"there are {len(given)} names and {count} images; give one name per image",
                option="names",
            )
        names = [readable(str(name)) for name in given]
    else:
        names = _listed_names(entries.data, count)
        if names is None and count and entries[0][2] is not None:
            names = [entries[index][2] for index in range(count)]
        names = names or [None] * count
    digits = max(_DIGITS, len(str(max(count - 1, 0))))
    numbers = [f"{index:0{digits}d}" for index in range(count)]
    filled = [name or number for name, number in zip(names, numbers, strict=True)]
    often = {name for name in filled if filled.count(name) > 1} if count < 10**4 else set()
    if len(set(filled)) < count and not often:
        often = set(filled)
    return [
        f"{name} ({number})" if name in often else name
        for name, number in zip(filled, numbers, strict=True)
    ]


def _listed_names(data: Any, count: int) -> list[str | None] | None:
    """The names that a data set lists beside its entries, where there is one for each."""
    for attribute in _NAME_LISTS:
        listed = getattr(data, attribute, None)
        if isinstance(listed, (list, tuple)) and len(listed) == count:
            names = [_text(one) for one in listed]
            if all(names):
                return [name.rpartition("/")[2] if name else None for name in names]
    return None


class _MemoryDataset(Dataset[Item | Skipped]):
    def __init__(
        self,
        entries: _Entries,
        chosen: Sequence[tuple[int, Sample]],
        classes: ClassTable | None,
        preprocessing: Preprocessing,
    ) -> None:
        self._entries, self._chosen = entries, list(chosen)
        self._classes, self._preprocessing = classes, preprocessing

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Item | Skipped:
        position, sample = self._chosen[index]
        try:
            image, mask, _ = self._entries[position]
            return self._item(sample, image, mask)
        except UnetcamError as error:
            return Skipped(sample.id, sample.file, str(error), error.options)

    def _item(self, sample: Sample, given: Any, mask: Any) -> Item:
        image = self._image(given)
        size = tuple(image.shape[1:])
        name = f"the image '{sample.id}'"
        require_finite(name, image.numpy())
        truth = np.full(size, IGNORE, np.int64)
        if mask is not None:
            truth = _truth(mask, size, self._classes, f"the mask of '{sample.id}'")
        prepared = Prepared(
            image, None if mask is None else torch.from_numpy(truth), Frame.identity(size)
        )
        display = for_display(np.moveaxis(image.numpy(), 0, -1))
        spacing = _spacing(given) if sample.orientation is not None else None
        return Item(sample, prepared, display, truth, spacing)

    def _image(self, given: Any) -> Tensor:
        channels, dims = self._preprocessing.channels, self._preprocessing.dims
        image = _tensor(given)
        if image is None:
            raise DataError(
                f"an image of the data set is a {type(given).__name__}; let it give tensors that "
                "are ready for the network"
            )
        if not image.is_floating_point():
            raise DataError(
                f"an image of the data set has the type {image.dtype}, and images in memory are "
                "taken as they are; let it give floating values, normalised as in training"
            )
        if image.ndim == dims and channels == 1:
            image = image[None]
        if image.ndim != dims + 1 or image.shape[0] != channels:
            raise DataError(
                f"an image of the data set has the shape {tuple(image.shape)} and the network "
                f"takes {channels} channels of {dims} dimensions; give the channels first"
            )
        return image.to(torch.float32).contiguous()


def _tensor(value: Any) -> Tensor | None:
    """A plain tensor on the CPU of a tensor of any kind or an array."""
    if isinstance(value, Tensor):
        return value.detach().cpu().as_subclass(Tensor)
    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("=")))
    return None


def _truth(
    given: Any, size: tuple[int, ...], classes: ClassTable | None, name: str
) -> NDArray[np.int64]:
    mask = _tensor(given)
    if mask is None:
        raise DataError(f"{name} is a {type(given).__name__}; let the data set give tensors")
    if mask.ndim == len(size) + 1 and mask.shape[0] == 1:
        mask = mask[0]
    elif mask.ndim == len(size) + 1 and tuple(mask.shape[1:]) == size:
        if not bool(((mask == 0) | (mask == 1)).all()) or not bool((mask.sum(0) == 1).all()):
            raise DataError(
                f"{name} has {mask.shape[0]} channels that are not one class per pixel; give class "
                "indices"
            )
        return mask.to(torch.float32).argmax(0).numpy()
    if tuple(mask.shape) != size:
        raise DataError(f"{name} has the shape {tuple(mask.shape)} and its image {size}")
    values = mask.numpy()
    left_out = np.isin(values, [one for one in _IGNORED if not _is_value(one, classes)])
    if classes is None:
        return np.where(left_out, IGNORE, values).astype(np.int64)
    truth: NDArray[np.int64] = np.full(size, IGNORE, np.int64)
    truth[~left_out] = indices_of(name, values[~left_out], classes)
    return truth


def _is_value(number: int, classes: ClassTable | None) -> bool:
    return classes is not None and any(number == value for value, _ in classes.value_codes())


def _spacing(image: Any) -> tuple[float, float, float] | None:
    """A voxel's sides, of an image that carries an affine in its metadata."""
    affine = getattr(image, "affine", None)
    if not isinstance(affine, Tensor) or tuple(affine.shape) != (4, 4):
        return None
    x, y, z = affine.as_subclass(Tensor)[:3, :3].double().norm(dim=0).tolist()
    return (x, y, z)


def _digest(value: Any) -> str:
    tensor = _tensor(value)
    if tensor is None:
        return hashlib.sha256(repr(value).encode("utf-8", "backslashreplace")).hexdigest()
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.contiguous().reshape(-1)
    digest.update((flat if flat.numel() == 0 else flat.view(torch.uint8)).numpy().tobytes())
    return digest.hexdigest()
