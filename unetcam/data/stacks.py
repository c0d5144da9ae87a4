"""TIFF and NumPy files that hold a volume, told in the words of nibabel."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from unetcam.data.arrays import array_header, load_array
from unetcam.data.pictures import Pixels, Reading
from unetcam.data.tiff import TiffStack, open_tiff_stack
from unetcam.errors import DataError

STACK_ORIENTATION: Final = "SPR"
"""What the axes (depth, height, width) of a stack are taken to run to: no turn is known of them."""

_TO_RAS: Final = np.array([[0, 0, 1.0], [0, -1, 0], [1, 0, 0]])
"""From (depth, height, width) to right, front and up."""

_BANDS: Final = "C"
_MILLIMETRES: Final = {
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m", "micron", "microns"), 1e-3),
    **dict.fromkeys(("micrometer", "micrometre"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-6),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 10.0),
    **dict.fromkeys(("m", "meter", "metre"), 1e3),
    **dict.fromkeys(("inch", "in"), 25.4),
}


def check_axes(axes: str) -> str:
    """The axes of a stack as capitals.

    Raises
    ------
    DataError
        Unless each of Z, Y and X is named once, and at most C beside them.

    Examples
    --------
    >>> check_axes("zyx"), check_axes("CZYX")
    ('ZYX', 'CZYX')
    >>> check_axes("TYX")
    Traceback (most recent call last):
    ...
    unetcam.errors.DataError: axes='TYX' are not the axes of a volume: name each of Z, Y and X
    once, and C for the channels where there are any, in the order of the file, as in ZYX or CZYX.
    """
    letters = axes.upper()
    if sorted(letters.replace(_BANDS, "", 1)) != ["X", "Y", "Z"]:
        raise DataError(
            f"axes={axes!r} are not the axes of a volume: name each of Z, Y and X once, and C for "
            "the channels where there are any, in the order of the file, as in ZYX or CZYX",
            option="axes",
        )
    return letters


class StackImage:
    """A volume in a TIFF or NumPy file: (depth, height, width), and bands where there are any.

    Parameters
    ----------
    path : Path
        A ``.tif``, ``.tiff``, ``.npy`` or ``.npz`` file.
    axes : str, optional
        What its axes are, slowest first, as ``"ZYX"``; by default as a TIFF file's own metadata
        has them, and ZYX where a file holds three axes and tells nothing.
    max_pixels : int
        Voxels of the largest volume that is decoded.

    Attributes
    ----------
    shape : tuple of int
        (D, H, W), or (D, H, W, C).
    affine : ndarray, (4, 4)
        From a voxel's indices to millimetres, with the spacing that the file knows (ImageJ, OME),
        or 1 where it knows none.

    Raises
    ------
    DataError
        If there is no axis of depth, or `axes` are not those of the file.
    """

    slope, inter = 1.0, 0.0

    def __init__(self, path: Path, axes: str | None, max_pixels: int) -> None:
        self._path = path
        self._how = Reading(max_pixels=max_pixels)
        self._tiff: TiffStack | None = None
        own: str | None = None
        self.suffix = ".npy"
        spacing: Mapping[str, float] = {}
        if path.suffix.lower() in (".tif", ".tiff"):
            self._tiff = open_tiff_stack(path)
            stored, self._dtype, own = self._tiff.shape, self._tiff.dtype, self._tiff.axes
            spacing = _spacing_of(self._tiff)
            self.suffix = ".tif"
        else:
            stored, self._dtype = array_header(path, self._how)
        self._stored, letters = _named(stored, own, axes)
        order = [letters.index(one) for one in ("Z", "Y", "X", _BANDS) if one in letters]
        self._order = order
        self.shape = tuple(self._stored[axis] for axis in order)
        self.affine = np.eye(4)
        sides = [spacing.get(one, 1.0) for one in "ZYX"]
        self.affine[:3, :3] = _TO_RAS @ np.diag(sides)
        self._sides = sides
        self._known = bool(spacing)

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return int(self._dtype.itemsize)

    @property
    def dataobj(self) -> StackImage:
        """What reads the voxels."""
        return self

    def get_unscaled(self) -> Pixels:
        """The voxels, of the file's type, in the order of :attr:`shape`."""
        values = self._tiff.read() if self._tiff else load_array(self._path, self._how, volume=True)
        if math.prod(values.shape) != math.prod(self._stored):
            raise DataError(f"it holds {values.shape} values and declares {self._stored}")
        return values.reshape(self._stored).transpose(self._order)

    def beside(self, values: NDArray[Any]) -> bytes:
        """A file of other values (D, H, W) for the same voxels: a TIFF stack that ImageJ reads."""
        file = io.BytesIO()
        if self.suffix == ".npy":
            np.save(file, values, allow_pickle=False)
            return file.getvalue()
        depth, height, width = self._sides
        metadata: dict[str, Any] = {"axes": "ZYX"}
        options: dict[str, Any] = {}
        if self._known:
            metadata |= {"spacing": depth, "unit": "mm"}
            options["resolution"] = (1 / width, 1 / height)
        values = values.astype(np.uint16) if values.dtype == np.int16 else values
        tifffile.imwrite(file, values, imagej=True, metadata=metadata, **options)
        return file.getvalue()


def _named(shape: Sequence[int], own: str | None, given: str | None) -> tuple[tuple[int, ...], str]:
    """The sides of the axes and their names: Z, Y, X, and C where there are bands."""
    sides = tuple(shape)
    long = tuple(side for side in sides if side > 1)
    if given is not None:
        letters = check_axes(given)
        if len(letters) == len(sides):
            return sides, letters
        if len(letters) == len(long):
            return long, letters
        raise DataError(
            f"axes='{given}' name {len(letters)} axes, and its array has the shape {sides}: name "
            "each of them",
            option="axes",
        )
    if own is not None:
        kept = [n for n, side in enumerate(sides) if side > 1 or own[n] in "ZYX"]
        sides, own = tuple(sides[n] for n in kept), "".join(own[n] for n in kept)
        told = _told(own)
        if told is None:
            raise DataError(
                f"its axes are {own} of the lengths {sides}, none of which is said to be depth "
                "alone: name them with axes=, as in axes='ZYX'",
                option="axes",
            )
        return sides, told
    if len(sides) == 3:
        return sides, "ZYX"
    if len(long) == 3:
        return long, "ZYX"
    what = "is an image and no volume" if len(long) < 3 else "may be read in several ways"
    raise DataError(
        f"its array of the shape {sides} {what}: give three axes, or name them with axes=, as in "
        "axes='CZYX'",
        option="axes",
    )


def _told(own: str) -> str | None:
    """The axes of a TIFF file in our letters; pages of no known meaning are its depth."""
    letters = own.replace("S", _BANDS)
    if "Z" not in letters:
        for unknown in "QI":
            if letters.count(unknown) == 1:
                letters = letters.replace(unknown, "Z")
                break
    return letters if sorted(letters.replace(_BANDS, "", 1)) == ["X", "Y", "Z"] else None


def _spacing_of(tiff: TiffStack) -> dict[str, float]:
    """A voxel's sides in millimetres by axis, as OME or ImageJ wrote them; else empty."""
    return _of_ome(tiff.ome) if tiff.ome else _of_imagej(tiff)


def _of_ome(text: str) -> dict[str, float]:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # what could grow without end as it is read
        return {}
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return {}
    pixels = next((one for one in root.iter() if one.tag.rpartition("}")[2] == "Pixels"), None)
    sides: dict[str, float] = {}
    if pixels is None:
        return sides
    for axis in "ZYX":
        unit = _MILLIMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "um").lower())
        side = _number(pixels.get(f"PhysicalSize{axis}"))
        if side is not None and unit is not None:
            sides[axis] = side * unit
    return sides if len(sides) == 3 else {}


def _of_imagej(tiff: TiffStack) -> dict[str, float]:
    unit = _MILLIMETRES.get(str(tiff.imagej.get("unit", "")).strip().lower())
    depth = _number(tiff.imagej.get("spacing"))
    if unit is None or depth is None or not all(tiff.per_unit):
        return {}
    width, height = (1 / one for one in tiff.per_unit)
    return {"Z": depth * unit, "Y": height * unit, "X": width * unit}


def _number(value: Any) -> float | None:
    """A length that can be one: finite and above zero."""
    if not re.fullmatch(r"\s*[-+.\deE]{1,40}\s*", str(value)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and 1e-9 < number < 1e9 else None
