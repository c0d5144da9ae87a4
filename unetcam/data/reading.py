"""Read an image file of any known format."""

from __future__ import annotations

from pathlib import Path

from unetcam.data.channels import to_channels
from unetcam.data.formats import (
    IMAGE_SUFFIXES,
    NUMPY_SUFFIXES,
    TIFF_SUFFIXES,
    VOLUME_SUFFIXES,
    require_file,
    split_suffix,
)
from unetcam.data.images import Picture, Pixels, read_numpy, read_with_pillow
from unetcam.data.samples import shown
from unetcam.data.tiff import read_tiff
from unetcam.data.volumes import read_plane
from unetcam.data.whole_volumes import read_whole
from unetcam.errors import DataError, UnetcamError


def read_picture(
    path: Path,
    *,
    plane: int | None = None,
    orientation: str | None = None,
    indices: bool = False,
) -> Picture:
    """Decode a file, upright, with what is known of its bands.

    Parameters
    ----------
    path : Path
        PNG, JPEG, TIFF, NPY, NPZ, NIfTI or NRRD, told by the suffix in any case.
    plane : int, optional
        The axial slice of a NIfTI or NRRD volume.
    orientation : str, optional
        Read a NIfTI or NRRD volume whole, its axes in this order; see
        :func:`~unetcam.data.whole_volumes.read_whole`.
    indices : bool
        Read class indices: a palette's indices rather than its colours, the stored samples
        rather than displayed greys, truth values as 0 and 1.

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If the file is missing, damaged, too large, or of a kind that isn't read.
    """
    path = Path(path)
    suffix = split_suffix(path.name)[1]
    if suffix not in IMAGE_SUFFIXES:
        raise DataError(
            f"{shown(path)} is of a kind that isn't read; give PNG, JPEG, TIFF, NPY, NPZ, "
            "NIfTI or NRRD"
        )
    require_file(path)
    try:
        if suffix in VOLUME_SUFFIXES and orientation is not None:
            return Picture(read_whole(path, orientation, indices=indices).values)
        if suffix in VOLUME_SUFFIXES:
            return read_plane(path, plane, indices=indices)
        if suffix in TIFF_SUFFIXES:
            return read_tiff(path, indices=indices)
        if suffix in NUMPY_SUFFIXES:
            return read_numpy(path, indices=indices)
        return read_with_pillow(path, indices=indices)
    except UnetcamError as error:
        if shown(path) in str(error):
            raise
        raise DataError(f"{shown(path)} can't be read: {error}") from error
    except MemoryError as error:
        raise DataError(f"{shown(path)} does not fit into memory; cut it into tiles") from error
    except Exception as error:  # decoders of five libraries raise whatever a damaged file does
        raise DataError(
            f"{shown(path)} can't be read as {suffix.lstrip('.').upper()}; it is damaged, cut "
            "short, or of another format than its name says"
        ) from error


def read_image(path: Path, *, channels: int | None = None, plane: int | None = None) -> Pixels:
    """Read an image file.

    Parameters
    ----------
    path : Path
        PNG, JPEG, TIFF (8, 16, 32 bit or float; any number of bands), NPY, NPZ, NIfTI or NRRD. The
        EXIF orientation is applied. Of a bare array's three axes, the shorter one of the first
        and the last holds the bands.
    channels : int, optional
        Bands to convert to by the rules of `to_channels`; None leaves them as the file has them.
    plane : int, optional
        The axial slice of a NIfTI or NRRD volume, counted from the feet, the front of the body
        up and its left at the left.

    Returns
    -------
    ndarray, shape (H, W, C)
        An integer type or float32; values as the file has them, save that truth values and
        images of 1 bit become 0 and 255, and palettes become colours.

    Raises
    ------
    DataError
        If the file can't be read, or its bands can't be brought to `channels`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "grey.npy"
    ...     np.save(path, np.ones((4, 6), np.float64))
    ...     image = read_image(path, channels=3)
    >>> image.shape, image.dtype
    ((4, 6, 3), dtype('float32'))
    """
    path = Path(path)
    picture = read_picture(path, plane=plane)
    if channels is None:
        return picture.pixels
    try:
        return to_channels(picture.pixels, channels, alpha=picture.alpha)
    except DataError as error:
        raise DataError(f"{shown(path)} {error}") from error
