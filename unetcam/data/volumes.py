"""Axial slices of NIfTI and NRRD volumes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetcam.data.formats import is_nrrd, require_file
from unetcam.data.images import MAX_VALUES, Picture, Pixels, plain_values, require_size
from unetcam.data.samples import shown
from unetcam.errors import DataError, UnetcamError

_KEPT_VOLUMES = 6


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
    """A NIfTI or NRRD file whose slices are read in anatomical directions.

    Whatever order and direction its voxel axes have, a slice is axial, the front of the body up
    and the left of the body at the left (the neurological convention); slices count from the
    feet. A fourth axis holds bands. A file with one plane counts as a volume of one slice.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file.

    Raises
    ------
    DataError
        If nibabel or pynrrd is missing, or the file is no volume that can be read.
    """

    def __init__(self, path: Path) -> None:
        nibabel = _nibabel(path)
        require_file(path)
        self._path = path
        try:
            image: Any = NrrdImage(path) if is_nrrd(path) else nibabel.load(path)
            self._read_header(nibabel, image)
        except UnetcamError as error:
            if shown(path) in str(error):
                raise
            raise DataError(f"{shown(path)} can't be read: {error}") from error
        except Exception as error:  # nibabel, pynrrd and the gzip layer raise whatever they meet
            kind = "an NRRD" if is_nrrd(path) else "a NIfTI"
            raise DataError(
                f"{shown(path)} can't be read as {kind} volume; it is damaged or of another format"
            ) from error

    def _read_header(self, nibabel: ModuleType, image: Any) -> None:
        shape = tuple(int(side) for side in image.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        shape = (*shape, 1) if len(shape) == 2 else shape
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise DataError(f"it has the shape {shape}; give three axes, and bands along a fourth")
        if int(np.prod(shape, dtype=object)) > MAX_VALUES:
            raise DataError(f"it claims {shape} voxels, more than are decoded; crop it")
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
        packed = is_nrrd(self._path) or self._path.name.lower().endswith(".gz")
        if not packed and self._image.shape == self._shape:
            return proxy
        if self._whole is None:
            plain = (proxy.slope, proxy.inter) == (1, 0)
            whole = proxy.get_unscaled() if plain else np.asarray(proxy, dtype=np.float32)
            self._whole = np.asarray(whole).reshape(self._shape)
        return self._whole

    def plane(self, number: int) -> Pixels:
        """One axial slice, shape (H, W, C)."""
        x, y, z = self._axes
        where: list[Any] = [slice(None)] * len(self._shape)
        where[z] = self._shape[z] - 1 - number if self._flipped[2] else number
        pixels = _with_bands(self._data()[tuple(where)], spatial=2)
        pixels = pixels.swapaxes(0, 1) if x < y else pixels  # rows run along y now
        pixels = pixels if self._flipped[1] else pixels[::-1]  # the front up
        return np.ascontiguousarray(pixels[:, ::-1] if self._flipped[0] else pixels)

    def whole(self, *, indices: bool = False) -> Pixels:
        """All voxels as they lie in the file, shape (X, Y, Z, C)."""
        voxels = _with_bands(np.asarray(self._data()).reshape(self._shape), spatial=3)
        return plain_values(voxels, indices=indices)

    @property
    def image(self) -> Any:
        """The file as nibabel tells it, or an :class:`NrrdImage`."""
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
def _kept(path: Path, size: int, changed: int) -> Volume:
    return Volume(path)


def open_volume(path: Path) -> Volume:
    """Open a volume, or take it from the few that were opened last.

    Raises
    ------
    DataError
        If nibabel or pynrrd is missing, or the file is no volume that can be read.
    """
    require_file(path)
    status = path.stat()
    return _kept(path, status.st_size, status.st_mtime_ns)


def read_plane(path: Path, plane: int | None, *, indices: bool) -> Picture:
    """Read one axial slice.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file.
    plane : int or None
        Which slice; None is understood where there is only one.
    indices : bool
        Whether class indices are read.

    Raises
    ------
    DataError
        If the volume can't be read, or has no such slice.
    """
    volume = open_volume(path)
    if plane is None and volume.planes > 1:
        raise DataError(f"it is a volume of {volume.planes} slices; say which slice is meant")
    number = plane or 0
    if not 0 <= number < volume.planes:
        raise DataError(f"it has no slice {number}; its slices are 0 to {volume.planes - 1}")
    pixels = plain_values(volume.plane(number), indices=indices)
    require_size(*pixels.shape)
    return Picture(pixels)


#: What turns a file's space into right, anterior, superior; http://teem.sourceforge.net/nrrd
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_SPATIAL_KINDS = ("domain", "space")
_KEPT = ("space", "space dimension", "space units", "space origin")


def _pynrrd(path: Path) -> Any:
    try:
        import nrrd
    except ImportError as error:
        raise DataError(
            f"{shown(path)} is an NRRD volume, which needs the package pynrrd; pip install "
            '"unetcam[nrrd]"'
        ) from error
    return nrrd


class NrrdImage:
    """An NRRD file, told in the words of nibabel.

    Where the header names no space, the voxels' axes are taken to run right, front and up, as
    they come.

    Parameters
    ----------
    path : Path
        A ``.nrrd`` file, which holds its own voxels.

    Attributes
    ----------
    shape : tuple of int
        Three spatial axes, and the bands' where there is one.
    affine : ndarray, (4, 4)
        From a voxel's indices to millimetres right, front and up.

    Raises
    ------
    DataError
        If pynrrd is missing, or the header does not tell of three spatial axes.
    """

    #: Voxels are stored as they are.
    slope, inter = 1.0, 0.0

    def __init__(self, path: Path) -> None:
        self._nrrd = _pynrrd(path)
        self._path = path
        with path.open("rb") as file:
            self.header: dict[str, Any] = dict(self._nrrd.read_header(file))
        if any(name in self.header for name in ("data file", "datafile")):
            raise DataError("its voxels lie in another file; save it as one")
        sizes = [int(size) for size in self.header["sizes"]]
        self._spatial = _spatial_axes(self.header, len(sizes))
        bands = [axis for axis in range(len(sizes)) if axis not in self._spatial]
        if len(self._spatial) != 3 or len(bands) > 1:
            raise DataError(
                f"it has the sizes {tuple(sizes)}, of which {len(self._spatial)} are spatial; give "
                "three spatial axes, and bands along one more"
            )
        self._order = [*self._spatial, *bands]
        self.shape = tuple(sizes[axis] for axis in self._order)
        self.affine = _affine(self.header, self._spatial)

    @property
    def dataobj(self) -> NrrdImage:
        """What reads the voxels."""
        return self

    def get_unscaled(self) -> Pixels:
        """The voxels, of the file's type, in the order of :attr:`shape`."""
        values, _ = self._nrrd.read(str(self._path), index_order="F")
        return np.asarray(values).transpose(self._order)

    def beside(self, values: NDArray[Any]) -> bytes:
        """A file of other values (X, Y, Z) for the same voxels."""
        header: dict[str, Any] = {name: self.header[name] for name in _KEPT if name in self.header}
        for name in ("space directions", "spacings"):
            if name in self.header:
                header[name] = np.asarray(self.header[name], np.float64)[self._spatial]
        file = io.BytesIO()
        self._nrrd.write(
            file, values, {**header, "kinds": ["domain"] * 3, "encoding": "gzip"}, index_order="F"
        )
        return file.getvalue()


def _spatial_axes(header: Mapping[str, Any], dims: int) -> list[int]:
    if "space directions" in header:
        rows = np.asarray(header["space directions"], np.float64)
        return [axis for axis in range(dims) if np.isfinite(rows[axis]).all()]
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    if dims > 3 and len(kinds) == dims:
        return [axis for axis in range(dims) if kinds[axis] in _SPATIAL_KINDS]
    return list(range(dims))


def _affine(header: Mapping[str, Any], spatial: list[int]) -> NDArray[np.float64]:
    affine = np.eye(4)
    if "space directions" in header:
        affine[:3, :3] = np.asarray(header["space directions"], np.float64)[spatial].T
    elif "spacings" in header:
        spacings = np.asarray(header["spacings"], np.float64)[spatial]
        affine[:3, :3] = np.diag(np.where(np.isfinite(spacings), spacings, 1.0))
    if "space origin" in header:
        affine[:3, 3] = np.asarray(header["space origin"], np.float64)
    turn = _TO_RAS.get(str(header.get("space", "ras")).lower(), (1, 1, 1))
    return np.diag([*turn, 1.0]) @ affine
