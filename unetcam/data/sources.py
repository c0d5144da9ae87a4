"""Where images and their masks come from: files, data sets in memory, arrays, told alike."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from unetcam.data.class_table import ClassTable
from unetcam.data.dataset import Item, SegmentationDataset
from unetcam.data.formats import may_be_stack
from unetcam.data.memory import MemorySource, is_pair_of_arrays
from unetcam.data.options import DataOptions
from unetcam.data.pairing import find_samples
from unetcam.data.preprocessing import Preprocessing
from unetcam.data.samples import Sample, Skipped
from unetcam.data.survey import settle_scale, survey
from unetcam.data.volume_samples import whole_volumes
from unetcam.errors import DataError

_MANIFESTS = (".csv", ".json")


class Source(Protocol):
    """Images and masks, wherever they lie.

    Attributes
    ----------
    samples : list of Sample
        In the order in which they are read; those in memory have no files.
    skipped : list of Skipped
        What can't be used, each with its reason.
    classes : ClassTable or None
        The classes, with how this data set's masks write them decided for all masks alike.
    remarks : tuple of str
        Sentences about what was decided for the whole data set, for a person to know.
    in_memory : bool
        Whether entries are read in this process, as they can't be sent to another.
    """

    samples: list[Sample]
    skipped: list[Skipped]
    classes: ClassTable | None
    remarks: tuple[str, ...]
    in_memory: bool

    def settled(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing with everything decided that is the same for the whole data set."""

    def digest_entries(self) -> list[tuple[str, list[str]]]:
        """Of each sample the id and the SHA-256 digests of what it is read from."""

    def dataset(
        self, preprocessing: Preprocessing, positions: Sequence[int] | None = None
    ) -> Dataset[Item | Skipped]:
        """What reads the samples, or those at some positions."""

    def volumes(self, orientation: str) -> Source:
        """The same for a network of volumes, whose axes run in an orientation."""

    def subset(self, positions: Sequence[int]) -> Source:
        """The same with the samples at some positions alone."""


class FileSource:
    """Images and masks in files, as :func:`~unetcam.data.pairing.find_samples` found them.

    Parameters
    ----------
    samples, skipped
        What was found, and what could not be used.
    classes : ClassTable or None
        How masks write the classes; needed where there are masks.
    options : DataOptions, optional
        What a person says about how files are read and shown.
    """

    in_memory = False

    def __init__(
        self,
        samples: Sequence[Sample],
        skipped: Sequence[Skipped],
        classes: ClassTable | None,
        options: DataOptions | None = None,
    ) -> None:
        self.samples = list(samples)
        self.skipped = list(skipped)
        self.options = options or DataOptions()
        self.remarks: tuple[str, ...] = ()
        self.classes = self._given = classes
        if classes is not None:
            self.classes, self.remarks = survey(self.samples, classes, self.options)

    def settled(self, preprocessing: Preprocessing) -> Preprocessing:
        """The preprocessing with everything decided that is the same for the whole data set."""
        preprocessing, remarks = settle_scale(self.samples, preprocessing, self.options)
        self.remarks = (*self.remarks, *(one for one in remarks if one not in self.remarks))
        return preprocessing

    def digest_entries(self) -> list[tuple[str, list[str]]]:
        """Of each sample the id and the SHA-256 digests of its files; each file is read once."""
        digests: dict[Path, str] = {}
        for sample in self.samples:
            for path in sample.files:
                if path not in digests:
                    digests[path] = _digest(path)
        return [(one.id, [digests[path] for path in one.files]) for one in self.samples]

    def dataset(
        self, preprocessing: Preprocessing, positions: Sequence[int] | None = None
    ) -> SegmentationDataset:
        """What reads the samples, or those at some positions; it may be sent to processes."""
        chosen = range(len(self.samples)) if positions is None else positions
        table = self.classes or ClassTable(("background", "foreground"))
        samples = [self.samples[n] for n in chosen]
        return SegmentationDataset(samples, table, preprocessing, self.options)

    def volumes(self, orientation: str) -> FileSource:
        """The volumes that slices come from, each once, to be read whole."""
        samples, others = whole_volumes(self.samples, orientation, self.options.axes)
        twin = FileSource(samples, [*self.skipped, *others], None, self.options)
        twin.classes, twin.remarks, twin._given = self.classes, self.remarks, self._given
        if self._given is not None and any(
            one.image and may_be_stack(one.image) for one in samples
        ):
            # Stacks were looked at as images, whose planes would be bands.
            twin.classes, twin.remarks = survey(samples, self._given, self.options)
        return twin

    def subset(self, positions: Sequence[int]) -> FileSource:
        """The same with the samples at some positions alone."""
        twin = copy(self)
        twin.samples = [self.samples[n] for n in positions]
        return twin


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except (OSError, ValueError):  # it can't be read: the data set skips it and says why
        return "unreadable"
    return digest.hexdigest()


def open_source(
    data: Any,
    *,
    classes: ClassTable | None = None,
    names: Sequence[str] | None = None,
    mask_suffix: str | None = None,
    pair: str | None = None,
    **options: Any,
) -> Source:
    """Open a data set, whatever form it has; no image is decoded yet.

    Parameters
    ----------
    data : object
        One of: a pair of paths (images, masks), the masks None where there are none; the path of
        a manifest (.csv or .json), of an image or of a folder of images; a pair of arrays or
        tensors (images (N, C, *spatial), masks (N, *spatial)); a torch ``Dataset`` or
        ``DataLoader``, or any sequence, of (image, mask), of (image, mask, name), or of mappings
        with such entries, as MONAI gives them. Images in memory are taken as they are: floating,
        channels first, resized and normalised for the network.
    classes : ClassTable, optional
        The classes.
    names : sequence of str, optional
        A name for each image in memory; those that the data set tells, or numbers, by default.
    mask_suffix, pair : str, optional
        How masks are called, see :func:`~unetcam.data.pairing.find_samples`.
    **options
        The fields of :class:`~unetcam.data.options.DataOptions`, for data in files.

    Returns
    -------
    Source

    Raises
    ------
    DataError
        For what is no data set, and for one that can't be found or understood.

    Examples
    --------
    >>> import torch
    >>> pair = (torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
    >>> source = open_source(pair, classes=ClassTable(("background", "cell")))
    >>> [sample.id for sample in source.samples], source.in_memory
    (['00000', '00001'], True)
    """
    if isinstance(data, (str, Path)) and Path(data).suffix.lower() in _MANIFESTS:
        found = find_samples(manifest=Path(data), classes=classes)
        return FileSource(*found, classes, DataOptions(**options))
    if isinstance(data, (str, Path)) or _is_pair_of_paths(data):
        images, masks = (data, None) if isinstance(data, (str, Path)) else data
        found = find_samples(
            Path(images),
            None if masks is None else Path(masks),
            classes=classes,
            mask_suffix=mask_suffix,
            pair=pair,
        )
        return FileSource(*found, classes, DataOptions(**options))
    if is_pair_of_arrays(data):
        images, masks = data
        if len(images) != len(masks):
            raise DataError(
                f"there are {len(images)} images and {len(masks)} masks; give one mask per image"
            )
        return MemorySource(list(zip(images, masks, strict=True)), classes, names)
    if isinstance(data, DataLoader) or hasattr(data, "__getitem__") or hasattr(data, "__iter__"):
        return MemorySource(data, classes, names)
    raise DataError(
        f"an object of the type {type(data).__name__} is no data set; give two folders, a "
        "manifest, a torch Dataset or DataLoader, or arrays"
    )


def _is_pair_of_paths(data: Any) -> bool:
    return (
        isinstance(data, (tuple, list))
        and len(data) == 2
        and isinstance(data[0], (str, Path))
        and (data[1] is None or isinstance(data[1], (str, Path)))
    )
