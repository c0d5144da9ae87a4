"""What a decoder hands on, and the checks that hold for every format."""

from __future__ import annotations

import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


_ORIENTATION_TAG = 274
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_ALPHA_MODES = ("LA", "RGBA", "La", "RGBa", "PA")


def read_with_pillow(path: Path, *, indices: bool) -> Picture:
    """Decode a PNG or JPEG file.

    Parameters
    ----------
    path : Path
        The file.
    indices : bool
        Read a palette's indices and a low-depth grey's sample values rather than colours.

    Returns
    -------
    Picture
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(path, formats=("PNG", "JPEG", "MPO"))
    with image:
        require_size(image.height, image.width, len(image.getbands()))
        orientation = int(image.getexif().get(_ORIENTATION_TAG, 1) or 1)
        orientation = orientation if 1 <= orientation <= 8 else 1
        image.load()
        depth, kind = _png_header(path)
        palette = None
        if image.mode in ("P", "PA") and indices:
            flat = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8)
            palette = flat.reshape(-1, 3)
            pixels, alpha = np.asarray(image.getchannel(0)), False
        elif depth == 16 and kind in (2, 4, 6):
            # Pillow cuts colour of 16 bits down to 8; it has checked that the file is whole.
            pixels, alpha = _deep_colour(path, kind), kind != 2
        else:
            pixels, alpha = _pillow_pixels(image)
            if indices and kind == 0 and depth in (2, 4):
                # Pillow spreads 2 and 4 bits over 0-255; the samples are the indices.
                pixels = pixels // np.uint8(255 // (2**depth - 1))
        values = plain_values(bands_last_of_image(pixels), indices=indices)
        return Picture(upright(values, orientation), alpha, orientation, palette)


def bands_last_of_image(pixels: Pixels) -> Pixels:
    """Add the band axis that a grey image lacks.

    Examples
    --------
    >>> bands_last_of_image(np.zeros((4, 6))).shape
    (4, 6, 1)
    """
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _png_header(path: Path) -> tuple[int, int]:
    """Bit depth and colour type (PNG specification, 11.2.2 IHDR); zeros for another format."""
    with path.open("rb") as file:
        head = file.read(26)
    return (head[24], head[25]) if head.startswith(_PNG_SIGNATURE) else (0, -1)


def _pillow_pixels(image: Image.Image) -> tuple[Pixels, bool]:
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    alpha = image.mode in _ALPHA_MODES
    pixels: Pixels = np.asarray(image)
    if image.mode == "I" and pixels.min(initial=0) >= 0 and pixels.max(initial=0) < 2**16:
        pixels = pixels.astype(np.uint16)  # older Pillow opens grey of 16 bits as 32
    return pixels, alpha


def _deep_colour(path: Path, kind: int) -> Pixels:
    pixels = read_with_opencv(path)
    if kind == 4:  # grey with alpha, which OpenCV widens to four bands
        return pixels[..., [0, 3]]
    return pixels


def read_with_opencv(path: Path) -> Pixels:
    """Decode a file with OpenCV, bands in the order RGB or RGBA.

    Raises
    ------
    DataError
        If OpenCV doesn't know the file.
    """
    # imdecode, since imread can't open every name on every system
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise DataError("no decoder knows its compression")
    if pixels.ndim == 3 and pixels.shape[2] >= 3:
        return np.asarray(pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]])
    return np.asarray(pixels)


def read_numpy(path: Path, *, indices: bool) -> Picture:
    """Read an NPY file, or the one array of an NPZ file that is meant.

    An NPZ file may hold several arrays: then the one called ``image`` is the image and the one
    called ``mask`` the mask.

    Raises
    ------
    DataError
        If the file needs pickle, or holds several arrays of other names.
    """
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive:
            entry = _entry(archive, "mask" if indices else "image")
            with archive.open(entry) as file:
                _require_header(file)
            with archive.open(entry) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
    else:
        with path.open("rb") as file:
            _require_header(file)
            file.seek(0)
            array = np.lib.format.read_array(file, allow_pickle=False)
    return Picture(np.ascontiguousarray(plain_values(bands_last(array), indices=indices)))


def _entry(archive: zipfile.ZipFile, wanted: str) -> str:
    names = [name for name in archive.namelist() if name.endswith(".npy")]
    if len(names) == 1:
        return names[0]
    if f"{wanted}.npy" in names:
        return f"{wanted}.npy"
    found = ", ".join(name[:-4] for name in names[:5]) or "none"
    raise DataError(f"it holds {len(names)} arrays ({found}); call the one to read '{wanted}'")


def _require_header(file: IO[bytes]) -> None:
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError("it holds pickled objects, which are not loaded; save a numeric array")
    sides = sorted(shape, reverse=True)
    if len(sides) < 2:
        raise DataError(
            f"its array has the shape {tuple(shape)}; give (height, width) or "
            "(height, width, bands)"
        )
    require_size(sides[0], sides[1], int(np.prod(sides[2:], dtype=object)))
