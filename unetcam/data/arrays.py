"""NumPy arrays in files: NPY, and the array of an NPZ that is meant."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from unetcam.data.pictures import Picture, Pixels, Reading, bands_last, plain_values
from unetcam.errors import DataError


def read_array(path: Path, how: Reading) -> Picture:
    """Read an NPY file, or the one array of an NPZ file that is meant.

    An NPZ file may hold several arrays: then the one called ``image`` is the image and the one
    called ``mask`` the mask.

    Parameters
    ----------
    path : Path
    how : Reading

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If the file needs pickle, is too large, or holds several arrays of other names.
    """
    array = load_array(path, how)
    return Picture(np.ascontiguousarray(plain_values(bands_last(array), indices=how.indices)))


def load_array(path: Path, how: Reading, *, volume: bool = False) -> Pixels:
    """The array as it is stored, once its header has been found to fit."""
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            entry = _entry(archive, "mask" if how.indices else "image")
            with archive.open(entry) as packed:
                _require_header(packed, how, volume)
            with archive.open(entry) as packed:
                return np.asarray(np.lib.format.read_array(packed, allow_pickle=False))
    with path.open("rb") as file:
        _require_header(file, how, volume)
        file.seek(0)
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def array_type(path: Path, how: Reading) -> np.dtype[Any]:
    """The type of an NPY or NPZ file's array; its values are not read."""
    return array_header(path, how)[1]


def array_header(path: Path, how: Reading) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an NPY or NPZ file's array; its values are not read."""
    if path.suffix.lower() == ".npz":
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(_entry(archive, "mask" if how.indices else "image")) as packed,
        ):
            return _header(packed)
    with path.open("rb") as file:
        return _header(file)


def _entry(archive: zipfile.ZipFile, wanted: str) -> str:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if len(names) == 1:
        return names[0]
    if f"{wanted}.npy" in names:
        return f"{wanted}.npy"
    found = ", ".join(name[:-4] for name in names[:5]) or "none"
    raise DataError(f"it holds {len(names)} arrays ({found}); call the one to read '{wanted}'")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype


def _require_header(file: IO[bytes], how: Reading, volume: bool) -> None:
    shape, dtype = _header(file)
    if dtype.hasobject:
        raise DataError("it holds pickled objects, which are not loaded; save a numeric array")
    sides = sorted(shape, reverse=True)
    if len(sides) < 2:
        raise DataError(
            f"its array has the shape {tuple(shape)}; give (height, width) or "
            "(height, width, bands)"
        )
    spatial = min(3, len(sides)) if volume else 2
    bands = int(np.prod(sides[spatial:], dtype=object))
    how.require_room(sides[:spatial], bands, dtype.itemsize)
