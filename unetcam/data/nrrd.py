"""NRRD files, told in the words of nibabel, and never more of them decoded than they declare."""

from __future__ import annotations

import bz2
import io
import math
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unetcam.data.files import shown
from unetcam.data.pictures import Pixels
from unetcam.errors import DataError

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
_SKIPS = ("line skip", "lineskip", "byte skip", "byteskip", "encoding")
_TEXT = ("ascii", "text", "txt")
#: Bytes of a value by the words in its type's name; the first that fits counts.
_SIZES = (
    (("64", "long", "double"), 8),
    (("16", "short"), 2),
    (("8", "char"), 1),
    (("32", "int", "float"), 4),
)
_UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": partial(zlib.decompressobj, zlib.MAX_WBITS | 16),
    "gz": partial(zlib.decompressobj, zlib.MAX_WBITS | 16),
    "bzip2": bz2.BZ2Decompressor,
    "bz2": bz2.BZ2Decompressor,
}
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
            self._start = file.tell()
        self._size = path.stat().st_size
        if any(name in self.header for name in ("data file", "datafile")):
            raise DataError("its voxels lie in another file; save it as one")
        sizes = [int(size) for size in self.header["sizes"]]
        self._bytes = math.prod(sizes) * self.itemsize
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
    def itemsize(self) -> int:
        """Bytes of a value."""
        kind = str(self.header.get("type", ""))
        return next((size for words, size in _SIZES if any(w in kind for w in words)), 1)

    @property
    def dataobj(self) -> NrrdImage:
        """What reads the voxels."""
        return self

    def get_unscaled(self) -> Pixels:
        """The voxels, of the file's type, in the order of :attr:`shape`.

        No more is decompressed than the header declares.
        """
        header = {name: value for name, value in self.header.items() if name not in _SKIPS}
        with self._path.open("rb") as file:
            file.seek(self._start)
            self._skip_lines(file)
            encoding = str(self.header.get("encoding", "raw")).lower()
            if encoding in _TEXT:
                values = self._nrrd.read_data(header, file, index_order="F")
            else:
                stored = io.BytesIO(self._stored_bytes(file, encoding))
                values = self._nrrd.read_data(
                    {**header, "encoding": "raw"}, stored, index_order="F"
                )
        return np.asarray(values).transpose(self._order)

    def _skip_lines(self, file: IO[bytes]) -> None:
        lines = self._skip("line skip")
        if not 0 <= lines <= self._size:
            raise DataError(f"it tells to skip {lines} lines, more than it has; mend its header")
        for _ in range(lines):
            file.readline()

    def _skip(self, name: str) -> int:
        return int(self.header.get(name, self.header.get(name.replace(" ", ""), 0)))

    def _stored_bytes(self, file: IO[bytes], encoding: str) -> bytes:
        skip = self._skip("byte skip")
        if not -1 <= skip <= self._size + self._bytes:
            raise DataError(f"it tells to skip {skip} bytes, more than it has; mend its header")
        if encoding not in _UNPACKERS:
            if skip == -1:
                file.seek(-self._bytes, io.SEEK_END)
            else:
                file.seek(skip, io.SEEK_CUR)
            return file.read(self._bytes)
        unpacker = _UNPACKERS[encoding]()
        wanted = self._bytes + max(skip, 0)
        unpacked, packed = bytearray(), file.read()
        while len(unpacked) < wanted and not unpacker.eof:
            some = unpacker.decompress(packed, wanted - len(unpacked))
            packed = getattr(unpacker, "unconsumed_tail", b"")
            if not some:
                break
            unpacked += some
        return bytes(unpacked[max(skip, 0) :])

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
