"""Volumes and their axial slices, in NIfTI, NRRD, TIFF and NumPy files."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetcam.data.files import decoding, require_file, shown, split_suffix
from unetcam.data.nrrd import NrrdImage
from unetcam.data.pictures import MAX_PIXELS, Picture, Pixels, Reading, plain_values
from unetcam.data.stacks import StackImage
from unetcam.errors import DataError

_KEPT_VOLUMES = 6


_KINDS = {".nrrd": "an NRRD volume", ".nii": "a NIfTI volume", ".nii.gz": "a NIfTI volume"}


def _nibabel(path: Path) -> ModuleType:
    try:
        import nibabel
    except ImportError as error:
        raise DataError(
            f"{shown(path)} is a volume, which needs the package nibabel; "
            'pip install "unetcam[nifti]"'
        ) from error
    return nibabel


class Volume:
    """A file with a volume whose slices are read in anatomical directions.

    Whatever order and direction its voxel axes have, a slice is axial, the front of the body up
    and the left of the body at the left (the neurological convention); slices count from the
    feet. A fourth axis holds bands. A file with one plane counts as a volume of one slice.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file; or a TIFF or NumPy file, see
        :class:`~unetcam.data.stacks.StackImage`.
    max_pixels : int
        Voxels of the largest volume that is decoded.
    axes : str, optional
        What the axes of a TIFF or NumPy file are.

    Raises
    ------
    DataError
        If nibabel or pynrrd is missing, or the file is too large or no volume that can be read.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS, axes: str | None = None) -> None:
        nibabel = _nibabel(path)
        require_file(path)
        self._path = path
        self._limit = Reading(max_pixels=max_pixels)
        suffix = split_suffix(path.name)[1]
        with decoding(path, _KINDS.get(suffix, "a volume")):
            image: Any
            if suffix == ".nrrd":
                image = NrrdImage(path)
            elif suffix in _KINDS:
                image = nibabel.load(path)
            else:
                image = StackImage(path, axes, max_pixels)
            self._read_header(nibabel, image)

    def _read_header(self, nibabel: ModuleType, image: Any) -> None:
        shape = tuple(int(side) for side in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, 1) if len(shape) == 2 else shape
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise DataError(f"it has the shape {shape}; give three axes, and bands along a fourth")
        ours = isinstance(image, (NrrdImage, StackImage))
        itemsize = image.itemsize if ours else image.get_data_dtype().itemsize
        self._limit.require_room(shape[:3], shape[3] if len(shape) == 4 else 1, itemsize)
        affine = np.asarray(image.affine, dtype=np.float64)
        orientation = nibabel.io_orientation(affine)
        if not (np.isfinite(affine).all() and np.isfinite(orientation).all()):
            raise DataError("its affine does not say which way is up; mend its header")
        self._image = image
        self._shape = shape
        self._axes = [int(axis) for axis in orientation[:, 0].argsort()]
        self._flipped = [bool(orientation[axis, 1] < 0) for axis in self._axes]
        spatial = [shape[axis] for axis in self._axes]
        self.shape: tuple[int, int, int] = (spatial[0], spatial[1], spatial[2])
        self.affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape[:3])
        self._whole: Pixels | None = None

    @property
    def planes(self) -> int:
        """How many axial slices there are."""
        return self.shape[2]

    def _data(self) -> Any:
        """The proxy where single slices are cheap to read, else the whole array."""
        proxy = self._image.dataobj
        ours = isinstance(self._image, (NrrdImage, StackImage))
        packed = ours or self._path.name.lower().endswith(".gz")
        if not packed and self._image.shape == self._shape:
            return proxy
        if self._whole is None:
            plain = (proxy.slope, proxy.inter) == (1, 0)
            whole = proxy.get_unscaled() if plain else np.asarray(proxy, dtype=np.float32)
            self._whole = np.asarray(whole).reshape(self._shape)
        return self._whole

    def _labels(self, values: Pixels) -> Pixels:
        """Class indices that went through the file's slope, which leaves them off by a step."""
        proxy = self._image.dataobj
        if values.dtype.kind != "f" or (proxy.slope, proxy.inter) == (1, 0):
            return values
        whole = np.rint(values)
        step = abs(float(proxy.slope))
        if step < 0.5 and bool((np.abs(values - whole) <= step * (1 + 1e-6) + 1e-6).all()):
            return whole
        return values

    def plane(self, number: int, *, indices: bool = False) -> Pixels:
        """One axial slice, shape (H, W, C)."""
        x, y, z = self._axes
        where: list[Any] = [slice(None)] * len(self._shape)
        where[z] = self._shape[z] - 1 - number if self._flipped[2] else number
        pixels = _with_bands(self._data()[tuple(where)], spatial=2)
        pixels = self._labels(pixels) if indices else pixels
        pixels = pixels.swapaxes(0, 1) if x < y else pixels  # rows run along y now
        pixels = pixels if self._flipped[1] else pixels[::-1]  # the front up
        return np.ascontiguousarray(pixels[:, ::-1] if self._flipped[0] else pixels)

    def whole(self, *, indices: bool = False) -> Pixels:
        """All voxels as they lie in the file, shape (X, Y, Z, C)."""
        voxels = _with_bands(np.asarray(self._data()).reshape(self._shape), spatial=3)
        return plain_values(self._labels(voxels) if indices else voxels, indices=indices)

    @property
    def image(self) -> Any:
        """The file as nibabel tells it, or an :class:`NrrdImage` or :class:`StackImage`."""
        return self._image

    def distance(self, other: Volume) -> float:
        """How far apart, in millimetres, two volumes of one shape put their corners at most."""
        ends = [(0, side - 1) for side in self.shape]
        corners = np.array([(*corner, 1.0) for corner in itertools.product(*ends)])
        gap: NDArray[np.float64] = (corners @ (self.affine - other.affine).T)[:, :3]
        return float(np.linalg.norm(gap, axis=1).max())

    @property
    def voxel(self) -> float:
        """The shortest side of a voxel in millimetres."""
        return min(self.spacing)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """A voxel's sides in millimetres: from left to right, back to front and feet to head."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z


def _with_bands(voxels: Any, *, spatial: int) -> Pixels:
    """Voxels with their bands along a last axis."""
    pixels: Pixels = np.asarray(voxels)
    if pixels.dtype.fields:  # NIfTI's RGB24
        pixels = np.stack([pixels[name] for name in pixels.dtype.fields], axis=-1)
    return pixels[..., None] if pixels.ndim == spatial else pixels


@lru_cache(maxsize=_KEPT_VOLUMES)
def _kept(path: Path, max_pixels: int, axes: str | None, size: int, changed: int) -> Volume:
    return Volume(path, max_pixels, axes)


def open_volume(path: Path, max_pixels: int = MAX_PIXELS, axes: str | None = None) -> Volume:
    """Open a volume, or take it from the few that were opened last.

    Raises
    ------
    DataError
        If nibabel or pynrrd is missing, or the file is too large or no volume that can be read.
    """
    require_file(path)
    status = path.stat()
    return _kept(path, max_pixels, axes, status.st_size, status.st_mtime_ns)


def read_plane(path: Path, how: Reading) -> Picture:
    """Read one axial slice.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file.
    how : Reading
        Which slice; None is understood where there is only one.

    Raises
    ------
    DataError
        If the volume can't be read, or has no such slice.
    """
    volume = open_volume(path, how.max_pixels)
    if how.plane is None and volume.planes > 1:
        raise DataError(f"it is a volume of {volume.planes} slices; say which slice is meant")
    number = how.plane or 0
    if not 0 <= number < volume.planes:
        raise DataError(f"it has no slice {number}; its slices are 0 to {volume.planes - 1}")
    return Picture(plain_values(volume.plane(number, indices=how.indices), indices=how.indices))
