"""Maps and outlines drawn over images, in pictures of bounded size whatever the image's shape."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

#: Perceptually uniform from black over red to yellow: brightness alone gives the order, so it also
#: reads in grey and for colour-blind eyes.
COLORMAP = "inferno"
#: Hues that the colour map does not have.
TRUTH_COLOUR = (255, 255, 255)
PREDICTION_COLOUR = (64, 224, 255)
#: A picture is never taller than so many times the width that was wanted.
TALLEST = 2
_CASING = (0, 0, 0)
_WIDEST_PEN = 48
_SHIFT = 4  # OpenCV takes points as fixed-point numbers: 1/16 pixel
_BLENDED_AT_ONCE = 1 << 20
_MOST_THREADS = 8


def overlay(
    image: Bytes,
    heat: NDArray[Any],
    contour: NDArray[Any] | None = None,
    *,
    prediction: NDArray[Any] | None = None,
    strength: float = 0.7,
    width: int | None = None,
) -> Bytes:
    """Draw a map over an image; the image shows through where the map is weak.

    The map's opacity grows with its value (``strength`` times the square root), so pixels without
    evidence keep the image's own colours.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
        RGB.
    heat : ndarray, shape (H, W)
        The map, scaled to [0, 1]. NaN (an absent class) leaves the pixel as it is.
    contour, prediction : ndarray of bool, shape (H, W), optional
        Masks whose outlines are drawn in white (the truth) and light blue (the prediction).
    strength : float
        Opacity of the map's maximum.
    width : int, optional
        Width of the result in pixels; outlines are drawn after resizing and stay thin. A tall
        image becomes narrower, see :func:`picture_size`. Default: the image's own size.

    Returns
    -------
    ndarray of uint8, shape (H', W', 3)
        RGB.

    Raises
    ------
    ValueError
        If a shape does not fit the image.

    Examples
    --------
    >>> grey = np.full((2, 2, 3), 100, np.uint8)
    >>> drawn = overlay(grey, np.array([[0.0, 1.0], [np.nan, 0.5]]))
    >>> drawn[0, 0].tolist(), drawn[1, 0].tolist(), bool((drawn[0, 1] != 100).all())
    ([100, 100, 100], [100, 100, 100], True)
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"The image has shape {image.shape}: give (H, W, 3).")
    for name, layer in (("map", heat), ("contour", contour), ("prediction", prediction)):
        if layer is not None and layer.shape != image.shape[:2]:
            raise ValueError(
                f"The {name} has shape {layer.shape}, the image {image.shape[:2]}: give the same."
            )
    canvas, values = resized(image, width), _resized_map(heat, image.shape[:2], width)
    return outlined(_blended(canvas, values, strength), contour, prediction)


def outlined(
    image: Bytes,
    contour: NDArray[Any] | None,
    prediction: NDArray[Any] | None = None,
    *,
    inks: tuple[tuple[int, int, int], tuple[int, int, int]] = (TRUTH_COLOUR, PREDICTION_COLOUR),
) -> Bytes:
    """Draw the outlines of masks, which may be of another size than the image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    contour, prediction : ndarray of bool, shape (h, w), optional
        The truth is drawn in white and wider, the prediction in light blue on top of it.
    inks : tuple of two RGB colours
        Others than white and light blue.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array.
    """
    return Outlines(image.shape[:2], contour, prediction, inks).over(image)


class Outlines:
    """The outlines of masks, drawn once for pictures of one size and laid over each of them.

    Parameters
    ----------
    size : tuple of int
        Height and width of the pictures.
    contour, prediction, inks
        See :func:`outlined`.

    Examples
    --------
    >>> mask = np.zeros((4, 4), bool)
    >>> mask[1:3, 1:3] = True
    >>> grey = np.full((4, 4, 3), 100, np.uint8)
    >>> bool((Outlines((4, 4), mask).over(grey) == outlined(grey, mask)).all())
    True
    """

    def __init__(
        self,
        size: tuple[int, ...],
        contour: NDArray[Any] | None = None,
        prediction: NDArray[Any] | None = None,
        inks: tuple[tuple[int, int, int], tuple[int, int, int]] = (TRUTH_COLOUR, PREDICTION_COLOUR),
    ) -> None:
        self._size, self._inks = (size[0], size[1]), inks
        self._contour, self._prediction = contour, prediction

    def over(self, image: Bytes) -> Bytes:
        """A picture (H, W, 3) with the outlines on it; a new array."""
        colour, clear = self._drawn
        return np.asarray(np.rint(image * clear + colour), np.uint8)

    @cached_property
    def _drawn(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the outlines add to a picture, (H, W, 3), and what they leave of it, (H, W, 1)."""
        black = self._on(np.zeros((*self._size, 3), np.uint8)).astype(np.float32)
        white = self._on(np.full((*self._size, 3), 255, np.uint8)).astype(np.float32)
        return black, ((white - black) / 255).mean(axis=2, keepdims=True)

    def _on(self, canvas: Bytes) -> Bytes:
        # a pen fits the picture's longer side, and never fills its shorter one
        unit = min(max(self._size) / 400, min(self._size) / 60, _WIDEST_PEN / 6)
        wide, thin = max(1, round(3.4 * unit)), max(1, round(1.6 * unit))
        rim = 2 * max(1, round(unit))
        masks = ((self._contour, self._inks[0], wide), (self._prediction, self._inks[1], thin))
        outlines = [
            (_outlines(mask, self._size), ink, pen)
            for mask, ink, pen in masks
            if mask is not None and mask.any()
        ]
        # both dark rims first, so that where the outlines meet the thin one lies on the wide one
        for lines, _, pen in outlines:
            cv2.polylines(canvas, lines, True, _CASING, pen + rim, cv2.LINE_AA, _SHIFT)
        for lines, ink, pen in outlines:
            cv2.polylines(canvas, lines, True, ink, pen, cv2.LINE_AA, _SHIFT)
        return canvas


def picture_size(shape: tuple[int, int], width: int) -> tuple[int, int]:
    """Width and height of a picture, of the image's proportions.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the image.
    width : int
        The width that is wanted; a picture that would be taller than ``TALLEST`` times that
        becomes narrower, and no side is less than a pixel.

    Examples
    --------
    >>> picture_size((300, 400), 200), picture_size((300, 1), 200), picture_size((1, 900), 200)
    ((200, 150), (1, 400), (200, 1))
    """
    height, own = shape
    scale = min(width / own, TALLEST * width / height)
    return max(1, round(own * scale)), max(1, round(height * scale))


def resized(image: Bytes, width: int | None) -> Bytes:
    """The image at another width: averaged when it shrinks, smooth when it grows.

    See :func:`picture_size` for what becomes of a tall one.
    """
    size = None if width is None else picture_size(image.shape[:2], width)
    if size is None or size == image.shape[1::-1]:
        return image
    method = cv2.INTER_AREA if size < image.shape[1::-1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=method))


def encoded(image: Bytes, quality: int = 82) -> str:
    """The image as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What the function makes of each item, in order.

    It is for functions that draw and pack pixels, which lets go of the interpreter.

    >>> in_threads(abs, [-1, 2])
    [1, 2]
    """
    with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))


def _blended(image: Bytes, values: NDArray[Any], strength: float) -> Bytes:
    """The map over the image, a band of rows after the other: colours take much room."""
    drawn = np.empty_like(image)
    rows = max(1, _BLENDED_AT_ONCE // image.shape[1])
    for start in range(0, len(image), rows):
        band = slice(start, start + rows)
        colours = colormaps[COLORMAP](values[band])[..., :3].astype(np.float32) * 255
        alpha = (strength * np.sqrt(values[band]))[..., None]
        drawn[band] = np.rint(image[band] * (1 - alpha) + colours * alpha)
    return drawn


def _resized_map(heat: NDArray[Any], shape: tuple[int, int], width: int | None) -> NDArray[Any]:
    values = np.clip(np.nan_to_num(heat.astype(np.float32), nan=0.0), 0.0, 1.0)
    size = None if width is None else picture_size(shape, width)
    if size is None or size == shape[::-1]:
        return values
    method = cv2.INTER_AREA if size < shape[::-1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, size, interpolation=method))


def _outlines(mask: NDArray[Any], shape: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Outlines of a mask's parts and holes, half-way between pixels, in the canvas's frame.

    The mask is doubled first: OpenCV traces the outermost pixels, which would shrink a thin part.
    A mask that is larger than the canvas is traced at twice the canvas's size, any pixel of it
    counting. It is continued past the image's border, so that a part that is cut off there has no
    outline along the cut: the border is no edge of the class.
    """
    grid = [2 * min(pair) for pair in zip(mask.shape, shape, strict=True)]
    pixels = mask.astype(np.uint8)
    for axis, length in enumerate(grid):
        if length < 2 * mask.shape[axis]:
            starts = np.linspace(0, mask.shape[axis], length, endpoint=False).astype(int)
            pixels = np.maximum.reduceat(pixels, starts, axis=axis)
        else:
            pixels = pixels.repeat(2, axis=axis)
    scale = np.array([shape[1] / grid[1], shape[0] / grid[0]])
    across, down = (2 * int(np.ceil(_WIDEST_PEN / one / 2 + 1)) for one in scale)
    widened = np.pad(pixels, ((down, down), (across, across)), mode="edge")
    lines, _ = cv2.findContours(widened, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    margin = np.array([across, down])
    return [
        np.rint((((line[:, 0, :] - margin + 0.5) * scale) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        for line in lines
    ]
