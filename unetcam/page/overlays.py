"""Maps and contours drawn over images."""

from __future__ import annotations

import base64
import io
from typing import Any

import cv2
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

#: Perceptually uniform from black over red to yellow: brightness alone gives the order, so it also
#: reads in grey and for colour-blind eyes.
COLORMAP = "inferno"
#: Hues that the colour map does not have.
TRUTH_COLOUR = (255, 255, 255)
PREDICTION_COLOUR = (64, 224, 255)
_CASING = (0, 0, 0)
_WIDEST_PEN = 48
_SHIFT = 4  # OpenCV takes points as fixed-point numbers: 1/16 pixel


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
        Width of the result in pixels; outlines are drawn after resizing and stay thin. Default:
        the image's own.

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
    colours = np.asarray(colormaps[COLORMAP](values), dtype=np.float32)[..., :3] * 255
    alpha = (strength * np.sqrt(values))[..., None]
    blended = np.rint(canvas * (1 - alpha) + colours * alpha).astype(np.uint8)
    return outlined(blended, contour, prediction)


def outlined(
    image: Bytes, contour: NDArray[Any] | None, prediction: NDArray[Any] | None = None
) -> Bytes:
    """Draw the outlines of masks, which may be of another size than the image.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 3)
    contour, prediction : ndarray of bool, shape (h, w), optional
        The truth is drawn in white and wider, the prediction in light blue on top of it.

    Returns
    -------
    ndarray of uint8, shape (H, W, 3)
        A new array.
    """
    canvas = np.ascontiguousarray(image).copy()
    unit = min(max(canvas.shape[:2]) / 400, _WIDEST_PEN / 6)
    white, blue = max(1, round(3.4 * unit)), max(1, round(1.6 * unit))
    rim = 2 * max(1, round(unit))
    outlines = [
        (_outlines(mask, canvas.shape[:2]), ink, pen)
        for mask, ink, pen in (
            (contour, TRUTH_COLOUR, white),
            (prediction, PREDICTION_COLOUR, blue),
        )
        if mask is not None and mask.any()
    ]
    # both dark rims first, so that where the outlines meet the blue one lies on the white one
    for lines, _, pen in outlines:
        cv2.polylines(canvas, lines, True, _CASING, pen + rim, cv2.LINE_AA, _SHIFT)
    for lines, ink, pen in outlines:
        cv2.polylines(canvas, lines, True, ink, pen, cv2.LINE_AA, _SHIFT)
    return canvas


def resized(image: Bytes, width: int | None) -> Bytes:
    """The image at another width: averaged when it shrinks, smooth when it grows."""
    if width is None or width == image.shape[1]:
        return image
    method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, _size(image.shape[:2], width), interpolation=method))


def encoded(image: Bytes, quality: int = 82) -> str:
    """The image as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _resized_map(heat: NDArray[Any], shape: tuple[int, int], width: int | None) -> NDArray[Any]:
    values = np.clip(np.nan_to_num(heat.astype(np.float32), nan=0.0), 0.0, 1.0)
    if width is None or width == shape[1]:
        return values
    method = cv2.INTER_AREA if width < shape[1] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(values, _size(shape, width), interpolation=method))


def _size(shape: tuple[int, int], width: int) -> tuple[int, int]:
    return width, max(1, round(shape[0] * width / shape[1]))


def _outlines(mask: NDArray[Any], shape: tuple[int, int]) -> list[NDArray[np.int32]]:
    """Outlines of a mask's parts and holes, half-way between pixels, in the canvas's frame.

    The mask is doubled first: OpenCV traces the outermost pixels, which would shrink a thin part.
    It is continued past the image's border, so that a part that is cut off there has no outline
    along the cut: the border is no edge of the class.
    """
    scale = np.array([shape[1] / mask.shape[1], shape[0] / mask.shape[0]]) / 2
    margin = 2 * int(np.ceil(_WIDEST_PEN / scale.min() / 2 + 1))
    doubled = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    widened = np.pad(doubled, margin, mode="edge")
    found, _ = cv2.findContours(widened, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return [
        np.rint((((line[:, 0, :] - margin + 0.5) * scale) - 0.5) * (1 << _SHIFT)).astype(np.int32)
        for line in found
    ]
