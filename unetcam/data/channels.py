"""From the bands that a file has to those that a network or an eye takes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unetcam.data.options import parse_stretch
from unetcam.data.pictures import Pixels
from unetcam.errors import DataError

_LUMA = (0.299, 0.587, 0.114)
_DISPLAY_PERCENTILES = (1.0, 99.0)


def to_channels(pixels: Pixels, channels: int, *, alpha: bool = False) -> Pixels:
    """Bring an image to a number of channels, where there is one way to do it.

    As many bands as wanted are left alone. Otherwise alpha is dropped; one band is repeated for
    three channels; three bands are taken for RGB and weighted to one grey (ITU-R BT.601:
    0.299 R + 0.587 G + 0.114 B). Nothing else is guessed.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C) or (D, H, W, C)
        The image or volume.
    channels : int
        Channels that the network takes.
    alpha : bool
        Whether the last band is opacity.

    Returns
    -------
    ndarray, shape (H, W, channels) or (D, H, W, channels)
        Of the same type, save that a grey of integers wider than 16 bits is float32.

    Raises
    ------
    DataError
        If there is no way; the message is the end of a sentence that begins with the file's name.

    Examples
    --------
    >>> to_channels(np.array([[[255, 0, 0]]], np.uint8), 1).tolist()
    [[[76]]]
    >>> to_channels(np.array([[[7, 255]]], np.uint8), 3, alpha=True).tolist()
    [[[7, 7, 7]]]
    >>> to_channels(np.zeros((4, 6, 5)), 3)
    Traceback (most recent call last):
    ...
    unetcam.errors.DataError: The image has 5 bands and the network takes 3; save the bands ...
    """
    bands = pixels.shape[-1]
    if bands == channels:
        return pixels
    if alpha and bands > 1:
        pixels = pixels[..., :-1]
    if pixels.shape[-1] == channels:
        return pixels
    if pixels.shape[-1] == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    if pixels.shape[-1] == 3 and channels == 1:
        return _luma(pixels)[..., None]
    plural = "band" if bands == 1 else "bands"
    raise DataError(
        f"the image has {bands} {plural} and the network takes {channels}; save the bands that it "
        "was trained on"
    )


def _luma(pixels: Pixels) -> Pixels:
    if pixels.dtype in (np.uint8, np.uint16, np.float32):
        rows = np.ascontiguousarray(pixels).reshape(-1, *pixels.shape[-2:])
        return np.asarray(cv2.cvtColor(rows, cv2.COLOR_RGB2GRAY)).reshape(pixels.shape[:-1])
    return pixels.astype(np.float32) @ np.asarray(_LUMA, dtype=np.float32)


def for_display(
    pixels: Pixels,
    *,
    alpha: bool = False,
    bands: tuple[int, int, int] | None = None,
    stretch: str | None = None,
) -> NDArray[np.uint8]:
    """An image as a person can look at it.

    Values of 8 bits are shown as they are. Anything else is stretched from its 1st to its 99th
    percentile: RGB as one, so that its colours hold; other bands each alone. Of more than three
    bands the first three are shown, of two the first.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C) or (D, H, W, C)
        The image or volume; NaN and infinity are shown black.
    alpha : bool
        Whether the last band is opacity, which is left out.
    bands : (int, int, int), optional
        The bands that are shown as red, green and blue, counted from 1, each stretched alone.
    stretch : str, optional
        Another stretch, see :class:`~unetcam.data.options.DataOptions`.

    Returns
    -------
    ndarray, shape (H, W, 3) or (D, H, W, 3), uint8

    Raises
    ------
    DataError
        If there is no such band.

    Examples
    --------
    >>> for_display(np.arange(101, dtype=np.float32).reshape(1, 101, 1))[0, [0, 50, 100], 0]
    array([  0, 127, 255], dtype=uint8)
    """
    if bands is not None:
        if max(bands) > pixels.shape[-1]:
            raise DataError(
                f"it has {pixels.shape[-1]} bands and bands={bands} names another; count from 1",
                option="bands",
            )
        pixels = pixels[..., [band - 1 for band in bands]]
    elif alpha and pixels.shape[-1] > 1:
        pixels = pixels[..., :-1]
    colour = pixels.shape[-1] == 3 and bands is None
    pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
    kind, low, high = ("percentile", *_DISPLAY_PERCENTILES)
    if stretch is not None:
        kind, low, high = parse_stretch(stretch)
    if pixels.dtype != np.uint8 or stretch not in (None, "none"):
        pixels = _stretched(pixels, kind, low, high, together=colour)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:-1], 3)))


def _stretched(
    pixels: Pixels, kind: str, low: float, high: float, *, together: bool
) -> NDArray[np.uint8]:
    values: NDArray[Any] = pixels.astype(np.float32 if pixels.dtype == np.uint8 else np.float64)
    values[~np.isfinite(values)] = np.nan
    axes = None if together else tuple(range(pixels.ndim - 1))
    if np.isnan(values).all(axis=axes).any():
        values = np.nan_to_num(values)
    bottom: Any = low
    top: Any = high
    if kind == "none":
        bottom, top = 0.0, full_range(pixels.dtype)
    elif kind != "window":
        ends = (0.0, 100.0) if kind == "minmax" else (low, high)
        bottom, top = np.nanpercentile(values, ends, axis=axes, keepdims=True)
    span = np.where(np.asarray(top) > bottom, np.asarray(top) - bottom, 1.0)
    shown = np.clip((values - bottom) / span, 0.0, 1.0) * 255.0
    stretched: NDArray[np.uint8] = np.nan_to_num(shown).astype(np.uint8)
    return stretched


def full_range(dtype: np.dtype[Any]) -> float:
    """The largest value of an integer type, and 1 for any other."""
    return float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
