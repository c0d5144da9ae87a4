"""Whole volumes for 3-D networks, and maps that lie where the volume lies."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unetcam.data.files import split_suffix
from unetcam.data.pictures import MAX_PIXELS, Picture, Pixels, Reading
from unetcam.data.stacks import StackImage
from unetcam.data.volumes import Volume, open_volume, read_plane
from unetcam.errors import DataError

AS_STORED: Final = "file"
"""The orientation that leaves the axes of the file as they are."""

_OPPOSITES = ("LR", "PA", "IS")


@dataclass(frozen=True, eq=False)
class WholeVolume:
    """A volume with its axes in a known order, and the way back to the file's own voxels."""

    _volume: Volume
    _turn: NDArray[np.float64]
    _back: NDArray[np.float64]
    _suffix: str
    _indices: bool

    @cached_property
    def values(self) -> Pixels:
        """(D, H, W, C) voxels as the file has them, along the axes that were asked for.

        They are read when they are first asked for.
        """
        voxels = self._volume.whole(indices=self._indices)
        return np.ascontiguousarray(_orientations().apply_orientation(voxels, self._turn))

    @property
    def suffix(self) -> str:
        """What a file of maps ends in, as the volume's own kind: ``.nii.gz``, ``.nrrd``, ..."""
        return self._suffix

    def encoded(self, maps: NDArray[Any]) -> bytes:
        """A file of a map or of labels (D, H, W) for the voxels of the volume, of their type.

        It has the file's own order of axes, spacing and place, so that a viewer lays it over the
        volume.
        """
        turned = _orientations().apply_orientation(maps, self._back)
        stored = np.ascontiguousarray(turned)
        image: Any = self._volume.image
        if self._suffix != ".nii.gz":
            encoded: bytes = image.beside(stored)
            return encoded
        header = image.header.copy()
        header.set_data_dtype(stored.dtype)
        # What tells how to show the volume's values, or what they mean, says nothing of a map's.
        for name in ("cal_max", "cal_min", "intent_code"):
            header[name] = 0
        made = type(image)(stored, image.affine, header)
        return gzip.compress(made.to_bytes(), mtime=0)


def read_whole(
    path: Path,
    orientation: str = "RAS",
    *,
    indices: bool = False,
    max_pixels: int = MAX_PIXELS,
    axes: str | None = None,
) -> WholeVolume:
    """Read a whole volume.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file, or a TIFF or NumPy file with a volume.
    orientation : str
        Where the three axes shall run to, as in ``"RAS"``: right, anterior (front), superior
        (up), or L, P and I for the other way; in any order. ``"file"`` leaves the axes as they
        are stored. Oblique axes are taken for the nearest; no voxel is interpolated.
    indices : bool
        Read class indices: truth values as 0 and 1.
    max_pixels : int
        Voxels of the largest volume that is decoded.
    axes : str, optional
        What the axes of a TIFF or NumPy file are; see :class:`~unetcam.data.stacks.StackImage`.

    Returns
    -------
    WholeVolume

    Raises
    ------
    DataError
        If the volume can't be read, or for an orientation that is none.
    """
    check_orientation(orientation)
    volume = Volume(path, max_pixels, axes)
    known = _orientations()
    stored = wanted = _stored(volume)
    if orientation != AS_STORED:
        wanted = known.axcodes2ornt(tuple(orientation.upper()))
    turn, back = known.ornt_transform(stored, wanted), known.ornt_transform(wanted, stored)
    suffix = volume.image.suffix if isinstance(volume.image, StackImage) else ".nii.gz"
    suffix = ".nrrd" if split_suffix(path.name)[1] == ".nrrd" else suffix
    return WholeVolume(volume, turn, back, suffix, indices)


def stored_orientation(path: Path) -> str:
    """Where the axes of a volume run to as they are stored, as in ``"LPS"``.

    Raises
    ------
    DataError
        If the volume can't be read.
    """
    codes = _orientations().ornt2axcodes(_stored(open_volume(path)))
    return "".join(codes)


def _stored(volume: Volume) -> NDArray[np.float64]:
    stored: NDArray[np.float64] = _orientations().io_orientation(volume.image.affine)
    return stored


def _orientations() -> Any:
    """What nibabel knows of orientations; that it is installed was seen as the volume opened."""
    from nibabel import orientations

    return orientations


def check_orientation(orientation: str) -> None:
    """Raise a :class:`~unetcam.errors.DataError` for an orientation that is none.

    Examples
    --------
    >>> check_orientation("SPL")
    >>> check_orientation("RAL")
    Traceback (most recent call last):
    ...
    unetcam.errors.DataError: 'RAL' is no orientation: give three letters, one of L and R, one of
    P and A and one of I and S, as in RAS, or 'file' for the axes as they are stored.
    """
    letters = orientation.upper()
    axes = sorted("".join(pair) for pair in _OPPOSITES for one in letters if one in pair)
    if orientation != AS_STORED and (len(letters) != 3 or axes != sorted(_OPPOSITES)):
        raise DataError(
            f"'{orientation}' is no orientation: give three letters, one of L and R, one of P and "
            "A and one of I and S, as in RAS, or 'file' for the axes as they are stored"
        )


def read_volume(path: Path, how: Reading) -> Picture:
    """Read a slice of a volume, or the whole of it where an orientation is named.

    Raises
    ------
    DataError
        If the volume can't be read, or has no such slice.
    """
    if how.orientation is None:
        return read_plane(path, how)
    whole = read_whole(
        path,
        how.orientation,
        indices=how.indices,
        max_pixels=how.max_pixels,
        axes=how.axes,
    )
    return Picture(whole.values)
