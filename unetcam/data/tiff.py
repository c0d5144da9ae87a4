"""TIFF files, by tifffile; compressions that it can't undo alone by Pillow and OpenCV."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from unetcam.data.images import (
    Picture,
    Pixels,
    bands_last,
    bands_last_of_image,
    plain_values,
    read_with_opencv,
    require_size,
    upright,
)
from unetcam.errors import DataError

_ORIENTATION_TAG = 274
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_BAND_AXES = "SC"
_STACK_AXES = {"Z": "depth", "T": "time"}


def read_tiff(path: Path, *, indices: bool) -> Picture:
    """Decode the first image of a TIFF file at full resolution.

    Bands may be samples of a page, or pages of their own; a stack over depth or time is refused.

    Parameters
    ----------
    path : Path
        The file.
    indices : bool
        Read a palette's indices and the stored numbers rather than colours.

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If it is a stack, in a colour space without RGB, or compressed in an unknown way.
    """
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page: Any = series.keyframe
        tag = page.tags.get(_ORIENTATION_TAG)
        orientation = int(tag.value) if tag is not None and 1 <= int(tag.value) <= 8 else 1
        sides = sorted(series.shape, reverse=True)
        require_size(sides[0], sides[1], int(np.prod(sides[2:], dtype=object)))
        photometric = int(page.photometric)
        if photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR):
            raise DataError("it is in a colour space that isn't read; convert it to RGB")
        alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)
        try:
            array, displayed = series.asarray(), False
        except (ImportError, KeyError, ValueError) as error:
            if not isinstance(error, ImportError) and "imagecodecs" not in str(error):
                raise
            array, displayed = _other_decoder(path, page, indices), True
        pixels = bands_last_of_image(array) if displayed else _bands(array, series.axes)
        palette = None
        if photometric == _PALETTE and page.colormap is not None:
            colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
            if indices:
                palette = colours
            elif not displayed:
                pixels = colours[pixels[..., 0]]
        if not displayed:
            pixels = _as_displayed(pixels, photometric, indices)
    values = plain_values(pixels, indices=indices)
    if not displayed:
        values = upright(values, orientation)
    return Picture(values, alpha, orientation, palette)


def _bands(array: Pixels, axes: str) -> Pixels:
    keep = [n for n, axis in enumerate(axes) if axis in "YX" or array.shape[n] > 1]
    array = array.reshape([array.shape[n] for n in keep])
    axes = "".join(axes[n] for n in keep)
    others = axes.replace("Y", "").replace("X", "")
    for axis in others:
        if axis in _STACK_AXES:
            raise DataError(
                f"it is a stack of {array.shape[axes.index(axis)]} planes over "
                f"{_STACK_AXES[axis]}; save each plane as a file of its own"
            )
    if len(others) == 1 and others in _BAND_AXES:
        return np.moveaxis(array, axes.index(others), -1)
    return bands_last(array)


def _as_displayed(pixels: Pixels, photometric: int, indices: bool) -> Pixels:
    if photometric == _MINISWHITE and pixels.dtype.kind == "b":
        return ~pixels
    if indices:
        return pixels
    if photometric == _MINISWHITE and pixels.dtype.kind == "u":
        return np.iinfo(pixels.dtype).max - pixels
    if photometric == _CMYK:
        if pixels.dtype != np.uint8 or pixels.shape[2] != 4:
            raise DataError("its CMYK colours aren't read; convert it to RGB")
        height, width = pixels.shape[:2]
        image = Image.frombytes("CMYK", (width, height), np.ascontiguousarray(pixels).tobytes())
        return np.asarray(image.convert("RGB"))
    return pixels


def _other_decoder(path: Path, page: Any, indices: bool) -> Pixels:
    """Pixels as displayed and upright (Pillow and OpenCV apply the orientation themselves)."""
    try:
        if page.bitspersample > 8:
            return read_with_opencv(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(path, formats=("TIFF",))
    except (DataError, UnidentifiedImageError) as error:
        raise DataError(
            "it is damaged, or its compression needs one more package: pip install imagecodecs"
        ) from error
    with image:
        image.load()
        if (image.mode == "P" and not indices) or image.mode in ("CMYK", "YCbCr"):
            image = image.convert("RGB")
        pixels = np.asarray(image)
    if indices and page.photometric == _MINISWHITE and pixels.dtype == np.uint8:
        return np.uint8(255) - pixels  # the stored numbers; Pillow gives the displayed ones
    return pixels
