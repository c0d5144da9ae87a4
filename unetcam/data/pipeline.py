"""The albumentations pipeline that a preprocessing stands for."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from unetcam.data.frames import rounded_up
from unetcam.data.pictures import Pixels
from unetcam.data.samples import IGNORE

if TYPE_CHECKING:
    from unetcam.data.preprocessing import Preprocessing

# albumentations looks for a newer version over the network as it is imported
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2


class ResizeToMultiple(A.DualTransform):  # type: ignore[misc]
    """Resize height and width each up to the next multiple of a stride.

    Parameters
    ----------
    stride : int
        The multiple; at least 1.
    """

    _targets = A.Resize._targets

    class InitSchema(A.BasicTransform.InitSchema):  # type: ignore[misc]
        """What the pipeline checks when it is built."""

        stride: int

    def __init__(self, stride: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.stride = stride

    def apply(self, img: Pixels, **params: Any) -> Pixels:
        """Resize an image, bilinearly."""
        return self._resized(img, cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: Pixels, **params: Any) -> Pixels:
        """Resize a mask, by the nearest pixel centre."""
        return self._resized(mask, cv2.INTER_NEAREST_EXACT)

    def _resized(self, pixels: Pixels, interpolation: int) -> Pixels:
        height, width = (rounded_up(side, self.stride) for side in pixels.shape[:2])
        resize = A.Resize(
            height, width, interpolation=interpolation, mask_interpolation=interpolation, p=1.0
        )
        return np.asarray(resize.apply(pixels))


@lru_cache(maxsize=16)
def pipeline_of(options: Preprocessing) -> A.Compose:
    """The pipeline; kept outside the options so that these stay small, hashable and picklable."""
    resized = {"interpolation": cv2.INTER_LINEAR, "mask_interpolation": cv2.INTER_NEAREST_EXACT}
    steps: list[Any] = []
    rounded = tuple(rounded_up(side, options.stride) for side in options.size or ())
    if options.mode == "resize" and rounded:
        steps.append(A.Resize(*rounded, **resized))
    elif options.mode == "resize":
        steps.append(ResizeToMultiple(options.stride))
    elif options.size is not None:
        steps.append(A.LongestMaxSize(max_size_hw=options.size, **resized))
    to_float = options.max_value is None or options.by_type
    if to_float:
        steps.append(A.ToFloat(max_value=options.max_value, p=1.0))
    largest = 1.0 if to_float else options.max_value
    steps.append(A.Normalize(options.mean, options.std, max_pixel_value=largest))
    if options.dims == 3:
        divisors = (options.stride,) * 3
        steps.append(
            A.PadIfNeeded3D(
                min_zyx=None,
                pad_divisor_zyx=divisors,
                position="center",
                fill=0,
                fill_mask=IGNORE,
            )
        )
    elif options.mode == "pad":
        least = (
            {"min_height": rounded[0], "min_width": rounded[1]}
            if rounded
            else {
                "min_height": None,
                "min_width": None,
                "pad_height_divisor": options.stride,
                "pad_width_divisor": options.stride,
            }
        )
        steps.append(
            A.PadIfNeeded(
                **least,
                position="center",
                border_mode=cv2.BORDER_CONSTANT,
                fill=0,
                fill_mask=IGNORE,
            )
        )
    return A.Compose(steps)


def written_pipeline(options: Preprocessing) -> dict[str, Any]:
    """The pipeline as plain values."""
    return dict(A.to_dict(pipeline_of(options)))


def is_same_pipeline(written: Any, options: Preprocessing) -> bool:
    """Whether a written pipeline has these steps; another albumentations may name more defaults."""
    try:
        theirs = written["transform"]["transforms"]
        ours = A.to_dict(pipeline_of(options))["transform"]["transforms"]
        return len(theirs) == len(ours) and all(
            all(_plain(step[name]) == _plain(other[name]) for name in step.keys() & other.keys())
            and step["__class_fullname__"] == other["__class_fullname__"]
            for step, other in zip(theirs, ours, strict=True)
        )
    except (KeyError, TypeError, AttributeError):
        return False


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
