"""What every decoder hands on, and the checks that hold for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unetcam.errors import DataError

MAX_PIXELS: Final = 2**26
"""Pixels of the largest image that is decoded unless told otherwise (67 million, 8192 x 8192)."""

BYTES_PER_PIXEL: Final = 8
"""With ``max_pixels``, an image or a volume may take 8 times as many bytes where it is held."""

Pixels = NDArray[Any]


@dataclass(frozen=True)
class Reading:
    """What is wanted of a file.

    Attributes
    ----------
    indices : bool
        Class indices: a palette's indices rather than its colours, the stored samples rather than
        displayed greys, truth values as 0 and 1.
    plane : int or None
        The slice of a volume.
    orientation : str or None
        A volume is read whole, its axes in this order; see
        :func:`~unetcam.data.whole_volumes.read_whole`.
    axes : str or None
        What the axes of a volume in a TIFF or NumPy file are; see
        :class:`~unetcam.data.stacks.StackImage`.
    max_pixels : int
        Pixels (voxels) of the largest image that is decoded; one of eight bytes per pixel is held
        at most. Nothing larger is decoded.
    """

    indices: bool = False
    plane: int | None = None
    orientation: str | None = None
    max_pixels: int = MAX_PIXELS
    axes: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_pixels, bool) or not self.max_pixels >= 1:
            raise DataError(
                f"max_pixels={self.max_pixels} leaves no image; give a whole number above 0",
                option="max_pixels",
            )

    def require_room(self, sides: Sequence[int], bands: int, itemsize: int) -> None:
        """Refuse what would not fit, before it is decoded.

        Parameters
        ----------
        sides : sequence of int
            Pixels along each spatial axis.
        bands : int
        itemsize : int
            Bytes of a value as it will be held.

        Raises
        ------
        DataError
            If there is no pixel, or more than ``max_pixels`` or 8 bytes for each of them.

        Examples
        --------
        >>> Reading(max_pixels=100).require_room((20, 30), 3, 1)
        Traceback (most recent call last):
        ...
        unetcam.errors.DataError: It claims 20 x 30 pixels of 3 band(s), which ...
        """
        shape = " x ".join(map(str, sides))
        if min((*sides, bands), default=0) < 1:
            raise DataError(f"it has no pixels ({shape} of {bands} bands)")
        pixels = math.prod(sides)
        held = pixels * bands * itemsize
        if pixels > self.max_pixels or held > BYTES_PER_PIXEL * self.max_pixels:
            raise DataError(
                f"it claims {shape} pixels of {bands} band(s), which take "
                f"{held / 2**30:.3g} GiB; at most {self.max_pixels:,} pixels and "
                f"{BYTES_PER_PIXEL * self.max_pixels / 2**30:.3g} GiB are decoded: raise "
                "max_pixels= where that many are meant, or cut the image up",
                option="max_pixels",
            )


@dataclass(frozen=True)
class Picture:
    """A decoded image, upright, or a whole volume.

    Attributes
    ----------
    pixels : ndarray, shape (H, W, C) or (D, H, W, C)
        Values as the file has them: an integer type or float32 (masks may be float64).
    alpha : bool
        Whether the last band is opacity.
    orientation : int
        The EXIF orientation the file carried (1 to 8; 1 where it carried none).
    palette : ndarray, shape (N, 3), uint8, or None
        Colours of a palette image that was read as indices.
    white_is_zero : bool
        Whether the file says that its smallest value is shown white; class indices are as stored.
    """

    pixels: Pixels
    alpha: bool = False
    orientation: int = 1
    palette: NDArray[np.uint8] | None = None
    white_is_zero: bool = False

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width, upright; of a volume depth, height and width."""
        return self.pixels.shape[:-1]

    @property
    def stored_size(self) -> tuple[int, ...]:
        """Height and width as the file stores them, before the orientation was applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn stored pixels into the frame that a person sees.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, ...)
        Pixels as stored.
    orientation : int
        Exif 2.32, tag 274, values 1 to 8; any other value is taken as 1.

    Returns
    -------
    ndarray, shape (H, W, ...) or (W, H, ...)

    Examples
    --------
    >>> upright(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    >>> upright(np.array([[1, 2, 3]]), 3).tolist()
    [[3, 2, 1]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def exif_orientation(value: object) -> int:
    """An EXIF orientation as a file tells it; 1 for anything that is none.

    Examples
    --------
    >>> exif_orientation(6), exif_orientation((6,)), exif_orientation("?"), exif_orientation(99)
    (6, 6, 1, 1)
    """
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def bands_last(array: Pixels) -> Pixels:
    """Bring a bare array to (H, W, C).

    Two axes are a single band. Of three axes, the shorter one of the first and the last holds
    the bands; where both are equal, the last. Further axes may only be of length 1.

    Raises
    ------
    DataError
        If more than three axes are longer than 1, or fewer than two axes exist.

    Examples
    --------
    >>> bands_last(np.zeros((3, 20, 30))).shape, bands_last(np.zeros((20, 30, 7))).shape
    ((20, 30, 3), (20, 30, 7))
    """
    shape = array.shape
    while array.ndim > 3 and 1 in array.shape:
        array = array.squeeze(axis=array.shape.index(1))
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise DataError(
            f"its array has the shape {shape}; give (height, width) or (height, width, bands)"
        )
    return np.moveaxis(array, 0, 2) if array.shape[0] < array.shape[2] else array


def plain_values(pixels: Pixels, *, indices: bool) -> Pixels:
    """Bring values to a type that the later steps know.

    Truth values become 0 and 255 in an image and 0 and 1 among indices; half and double floats
    become float32 (indices keep theirs), big-endian numbers native ones.

    Raises
    ------
    DataError
        If the values are no real numbers.
    """
    kind = pixels.dtype.kind
    if kind == "b":
        return pixels.astype(np.uint8) * np.uint8(1 if indices else 255)
    if kind not in "uif":
        raise DataError(f"its values are of the type {pixels.dtype}, which are no real numbers")
    if kind == "f" and not indices:
        with np.errstate(over="ignore"):  # beyond float32: infinity, which is then reported
            return pixels.astype(np.float32)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
