"""Images of the everyday kind, by Pillow: PNG, JPEG, BMP, GIF, WebP and the portable maps."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image

from unetcam.data.pictures import (
    Picture,
    Pixels,
    Reading,
    exif_orientation,
    plain_values,
    upright,
)
from unetcam.errors import DataError

_DECODERS: Final = ("PNG", "JPEG", "BMP", "DIB", "GIF", "WEBP", "PPM")
_ORIENTATION_TAG: Final = 274
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_ALPHA_MODES: Final = ("LA", "RGBA", "La", "RGBa", "PA")
#: The second picture of an MPO file is another view or a depth map, and no further frame.
_ONE_OF_SEVERAL: Final = ("MPO",)


def read_with_pillow(path: Path, how: Reading) -> Picture:
    """Decode an image that is told by what it holds; its suffix may be another of these kinds.

    Parameters
    ----------
    path : Path
        The file.
    how : Reading

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If it is too large, or an animation.
    """
    with _opened(path) as image:
        how.require_room((image.height, image.width), len(image.getbands()), _itemsize(image))
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1 and image.format not in _ONE_OF_SEVERAL:
            raise DataError(
                f"it is an animation of {frames} frames; save each as a file of its own"
            )
        orientation = exif_orientation(image.getexif().get(_ORIENTATION_TAG, 1))
        image.load()
        depth, kind = _png_header(path)
        palette = None
        if image.mode in ("P", "PA") and how.indices:
            flat = np.asarray(image.getpalette("RGB") or [], dtype=np.uint8)
            palette = flat.reshape(-1, 3)
            pixels, alpha = np.asarray(image.getchannel(0)), False
        elif depth == 16 and kind in (2, 4, 6):
            # Pillow cuts colour of 16 bits down to 8; it has checked that the file is whole.
            pixels, alpha = _deep_colour(path, kind), kind != 2
        else:
            pixels, alpha = _pillow_pixels(image)
            if how.indices and kind == 0 and depth in (2, 4):
                # Pillow spreads 2 and 4 bits over 0-255; the samples are the indices.
                pixels = pixels // np.uint8(255 // (2**depth - 1))
            elif how.indices and image.format == "PPM":
                pixels = _portable_samples(path, pixels)
        values = plain_values(bands_last_of_image(pixels), indices=how.indices)
        return Picture(upright(values, orientation), alpha, orientation, palette)


def _opened(path: Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(path, formats=_DECODERS)


def pillow_type(path: Path, how: Reading) -> np.dtype[Any]:
    """The type of an image's values, told by its header; nothing is decoded."""
    with _opened(path) as image:
        mode = image.mode
    if _png_header(path)[0] == 16 or mode.startswith("I;16"):
        return np.dtype(np.uint16)
    if mode == "I":  # older Pillow opens grey of 16 bits as 32
        return read_with_pillow(path, how).pixels.dtype
    return np.dtype(np.float32 if mode == "F" else np.uint8)


def _itemsize(image: Image.Image) -> int:
    return 4 if image.mode in ("I", "F") else 2 if image.mode.startswith("I;16") else 1


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


def _portable_samples(path: Path, pixels: Pixels) -> Pixels:
    """The samples of a PGM or PPM file, which Pillow spreads over the whole range of its type."""
    with path.open("rb") as file:
        head = re.sub(rb"#[^\n]*\n?", b"", file.read(4096)).split(maxsplit=4)
    if len(head) < 4 or head[0] not in (b"P2", b"P3", b"P5", b"P6"):
        return pixels
    largest, full = int(head[3]), 255 if pixels.dtype == np.uint8 else 65535
    samples = np.rint(pixels.astype(np.float64) * largest / full)
    return samples.astype(np.uint16 if largest > 255 else np.uint8)


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
