"""PNG, JPEG and NumPy files, by Pillow, OpenCV and NumPy."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import IO

import cv2
import numpy as np
from PIL import Image

from unetcam.data.picture import Picture, Pixels, bands_last, plain_values, require_size, upright
from unetcam.errors import DataError

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
