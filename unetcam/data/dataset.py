"""The data set: each sample decoded, checked and prepared, or skipped with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from unetcam.data.channels import for_display, to_channels
from unetcam.data.class_table import ClassTable
from unetcam.data.files import short, shown
from unetcam.data.formats import is_volume, read_picture
from unetcam.data.masks import read_mask
from unetcam.data.normalisation import Fitted, Step, fitted
from unetcam.data.options import DataOptions
from unetcam.data.pictures import Pixels
from unetcam.data.preprocessing import Prepared, Preprocessing
from unetcam.data.samples import IGNORE, Sample, Skipped
from unetcam.data.volumes import open_volume
from unetcam.errors import DataError, UnetcamError


@dataclass(frozen=True)
class Item:
    """One sample, ready to be explained.

    Attributes
    ----------
    sample : Sample
        Where it came from.
    prepared : Prepared
        Image and mask as the network takes them, and the way back.
    image : ndarray, shape (H, W, 3) or (D, H, W, 3), uint8
        The image or volume for a person to look at, in its own frame.
    truth : ndarray, shape (H, W) or (D, H, W), int64
        Class indices in the image's own frame; ``IGNORE`` (-1) where a pixel is left out, and
        everywhere if there is no mask.
    spacing : (float, float, float) or None
        Of a whole volume a voxel's sides in millimetres, from left to right, back to front and
        feet to head; None where they are not known.
    """

    sample: Sample
    prepared: Prepared
    image: NDArray[np.uint8]
    truth: NDArray[np.int64]
    spacing: tuple[float, float, float] | None = None


class SegmentationDataset(Dataset[Item | Skipped]):
    """Samples that are read as they are asked for.

    A file that can't be used gives a `Skipped` with its reason in place of an `Item`, so that a
    run goes on. Instances may be sent to worker processes.

    Parameters
    ----------
    samples : sequence of Sample
        What `find_samples` found.
    classes : ClassTable
        How masks write the classes.
    preprocessing : Preprocessing
        How the network takes an image.
    options : DataOptions, optional
        What a person says about how files are read and shown.

    Examples
    --------
    >>> from pathlib import Path
    >>> classes = ClassTable(("background", "cell"))
    >>> dataset = SegmentationDataset([Sample("a", Path("a.png"))], classes, Preprocessing())
    >>> dataset[0].reason
    "'a.png' does not exist; check the path and its permissions."
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        classes: ClassTable,
        preprocessing: Preprocessing,
        options: DataOptions | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.classes = classes
        self.preprocessing = preprocessing
        self.options = options or DataOptions()

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item | Skipped:
        """Read a sample.

        Parameters
        ----------
        index : int
            Its place in `samples`.

        Returns
        -------
        Item or Skipped

        Raises
        ------
        IndexError
            If there is no such sample.
        """
        sample = self.samples[index]
        try:
            return self._item(sample)
        except UnetcamError as error:
            return Skipped(sample.id, sample.file, str(error), error.options)
        except MemoryError:
            reason = f"'{sample.id}' does not fit into memory; cut it into tiles"
            return Skipped(sample.id, sample.file, reason)

    def _item(self, sample: Sample) -> Item:
        if sample.image is None:
            raise DataError(f"'{sample.id}' lies in no file; read it from its own source")
        picture = read_picture(
            sample.image,
            plane=sample.plane,
            orientation=sample.orientation,
            axes=sample.axes,
            max_pixels=self.options.limit,
        )
        try:
            pixels = to_channels(picture.pixels, self.preprocessing.channels, alpha=picture.alpha)
        except DataError as error:
            raise DataError(f"{shown(sample.image)}: {error.clause}") from error
        require_finite(shown(sample.image), pixels)
        if sample.mask is None:
            truth = np.full(picture.size, IGNORE, dtype=np.int64)
            prepared = self._prepared(sample, pixels, None)
        else:
            truth = read_mask(sample, self.classes, image=picture, options=self.options)
            prepared = self._prepared(sample, pixels, truth)
        display = for_display(
            picture.pixels,
            alpha=picture.alpha,
            bands=self.options.bands,
            stretch=self.options.stretch,
        )
        whole = sample.orientation is not None
        spacing = (
            open_volume(sample.image, self.options.limit, sample.axes).spacing if whole else None
        )
        return Item(sample, prepared, display, truth, spacing)

    def _prepared(
        self, sample: Sample, pixels: Pixels, truth: NDArray[np.int64] | None
    ) -> Prepared:
        steps = self.preprocessing.steps
        normalisation = None
        of_volume = sample.orientation is not None or (
            sample.image is not None and is_volume(sample.image)
        )
        if of_volume and not steps:
            pixels = pixels.astype(np.float32)  # whatever their type: a volume's are not divided
        if steps and sample.plane is not None and sample.image is not None:
            channels, limit = self.preprocessing.channels, self.options.limit
            if not any(step.slice for step in steps):
                normalisation = _volume_statistics(sample.image, steps, channels, limit)
            else:
                volume = to_channels(_whole(sample.image, limit), channels)
                normalisation = fitted(pixels, steps, volume)
        try:
            return self.preprocessing(pixels, truth, normalisation)
        except DataError as error:
            raise DataError(
                f"'{short(sample.id)}': {error.clause}", option=error.options
            ) from error


def _whole(path: Path, max_pixels: int) -> Pixels:
    return open_volume(path, max_pixels).whole()


@lru_cache(maxsize=16)
def _volume_statistics(
    path: Path, steps: tuple[Step, ...], channels: int, max_pixels: int
) -> Fitted:
    volume = to_channels(_whole(path, max_pixels), channels)
    return fitted(volume, steps)


def require_finite(name: str, pixels: Pixels) -> None:
    """Raise a `DataError` for an image with NaN or infinity."""
    if pixels.dtype.kind == "f":
        count = int(pixels.size - np.isfinite(pixels).sum())
        if count:
            raise DataError(f"{name} holds {count} values that are NaN or infinite; replace them")


def collate(items: Sequence[Item | Skipped]) -> list[Item | Skipped]:
    """Hand items on as they are: images may differ in size, so the caller batches the alike.

    Parameters
    ----------
    items : sequence of Item or Skipped
        What the data set gave.

    Returns
    -------
    list of Item or Skipped

    Examples
    --------
    >>> collate((Skipped("a", "a.png", "'a.png' is empty"),))[0].id
    'a'
    """
    return list(items)
