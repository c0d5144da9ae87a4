"""What a decoder hands on, and the checks that hold for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unetcam.errors import DataError

MAX_PIXELS: Final = 2**27
"""Pixels of the largest image that is decoded (134 million, 11 585 x 11 585)."""

MAX_VALUES: Final = 2**30
"""Pixels times bands of the largest image, and voxels of the largest volume, that is decoded."""

Pixels = NDArray[Any]


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
    """

    pixels: Pixels
    alpha: bool = False
    orientation: int = 1
    palette: NDArray[np.uint8] | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width, upright; of a volume depth, height and width."""
        return self.pixels.shape[:-1]

    @property
    def stored_size(self) -> tuple[int, ...]:
        """Height and width as the file stores them, before the orientation was applied."""
        return self.size[::-1] if self.orientation >= 5 else self.size


def require_size(height: int, width: int, bands: int = 1) -> None:
    """Refuse what would not fit into memory, before it is decoded.

    Raises
    ------
    DataError
        If the image has no pixel, or more than ``MAX_PIXELS`` or ``MAX_VALUES``.
    """
    if min(height, width, bands) < 1:
        raise DataError(f"it has no pixels ({height} x {width} with {bands} bands)")
    if height * width > MAX_PIXELS or height * width * bands > MAX_VALUES:
        raise DataError(
            f"it claims {height} x {width} pixels with {bands} band(s), more than the "
            f"{MAX_PIXELS:,} pixels that are decoded; cut it into tiles"
        )


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
