"""How values are brought to what a network was trained on, by name: z-scores, windows, presets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unetcam.data.pictures import Pixels
from unetcam.errors import DataError, suggestion

#: Mean and standard deviation of RGB in [0, 1], by the weights that were trained with them.
#: imagenet: torchvision.models, "Models and pre-trained weights"; inception: keras.applications
#: and timm's IMAGENET_INCEPTION; clip: openai/CLIP, clip.py.
PRESETS: Final = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}

_STEPS: Final = ("zscore", "minmax", "percentile", "window", "clip")
_SCOPES: Final = ("nonzero", "slice")


@dataclass(frozen=True)
class Step:
    """One step of a normalisation.

    Attributes
    ----------
    kind : {"zscore", "minmax", "percentile", "window", "clip"}
    low, high : float
        Of ``percentile`` in percent; of ``window`` and ``clip`` values as the file has them.
    nonzero : bool
        A z-score is that of the values that are not 0, and 0 stays 0.
    slice : bool
        Of a slice of a volume the statistics are its own, not the whole volume's.
    """

    kind: str
    low: float = 0.0
    high: float = 0.0
    nonzero: bool = False
    slice: bool = False


@dataclass(frozen=True)
class Affine:
    """Values are clipped, then scaled: ``(clip(x, low, high) - shift) / scale``, per channel."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    shift: NDArray[np.float64]
    scale: NDArray[np.float64]
    nonzero: bool = False

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise values (..., C)."""
        clipped = np.clip(values, self.low.astype(np.float32), self.high.astype(np.float32))
        result: NDArray[np.float32] = (
            (clipped - self.shift.astype(np.float32)) / self.scale.astype(np.float32)
        ).astype(np.float32, copy=False)
        return np.where(values == 0, np.float32(0), result) if self.nonzero else result


def parse_normalisation(text: str) -> tuple[Step, ...]:
    """Read the steps of a normalisation.

    Parameters
    ----------
    text : str
        Steps with commas between them, in order: ``zscore`` (mean 0 and standard deviation 1),
        ``zscore:nonzero`` (of what is not 0), ``minmax`` (0 to 1), ``percentile:LOW:HIGH``
        (clipped there, then 0 to 1), ``window:LOW:HIGH`` (clipped there, then 0 to 1),
        ``clip:LOW:HIGH`` (clipped only). Each channel by itself. The statistics of a slice of a
        volume are the whole volume's, and with ``:slice`` its own.

    Returns
    -------
    tuple of Step

    Raises
    ------
    DataError
        For a step that is none.

    Examples
    --------
    >>> parse_normalisation("clip:-160:240,zscore")[0]
    Step(kind='clip', low=-160.0, high=240.0, nonzero=False, slice=False)
    """
    return tuple(_step(part.strip(), text) for part in text.split(","))


def _step(text: str, whole: str) -> Step:
    kind, *rest = (part.strip() for part in text.split(":"))
    scopes = [part for part in rest if part in _SCOPES]
    numbers = [part for part in rest if part not in _SCOPES]
    if kind not in _STEPS:
        raise DataError(
            f"normalise='{whole}' has no known step '{kind}'; "
            f"{suggestion(kind, [*_STEPS, *PRESETS]).rstrip('.')}",
            option="normalise",
        )
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = [math.nan]
    wanted = 0 if kind in ("zscore", "minmax") else 2
    fits = len(values) == wanted and all(map(math.isfinite, values))
    fits = fits and not ("nonzero" in scopes and kind != "zscore") and len(scopes) == len({*scopes})
    if fits and wanted:
        fits = values[0] < values[1]
        fits = fits and (kind != "percentile" or (values[0] >= 0 and values[1] <= 100))
    if not fits:
        raise DataError(
            f"normalise='{whole}' is not understood at '{text}'; use zscore, zscore:nonzero, "
            "minmax, percentile:1:99, window:-160:240 or clip:-160:240",
            option="normalise",
        )
    low, high = values or (0.0, 0.0)
    return Step(kind, low, high, nonzero="nonzero" in scopes, slice="slice" in scopes)


def normalised(
    pixels: Pixels, steps: Sequence[Step], volume: Pixels | None = None
) -> NDArray[np.float32]:
    """Normalise an image, a volume, or a slice of one.

    Parameters
    ----------
    pixels : ndarray, shape (H, W, C) or (D, H, W, C)
        Values as the file has them.
    steps : sequence of Step
    volume : ndarray, shape (..., C), optional
        The volume that a slice was cut from: its statistics count, save for steps ``:slice``.

    Returns
    -------
    ndarray, float32
        Of the same shape. A channel of one value only becomes 0.

    Examples
    --------
    >>> steps = parse_normalisation("window:0:10")
    >>> normalised(np.array([[[-5], [5], [20]]]), steps).ravel()
    array([0. , 0.5, 1. ], dtype=float32)
    """
    return fitted(pixels, steps, volume)(pixels.astype(np.float32))


class Fitted:
    """Steps whose statistics are known."""

    def __init__(self, steps: Sequence[Affine]) -> None:
        self._steps = tuple(steps)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Normalise values (..., C) of float32."""
        for step in self._steps:
            values = step(values)
        return values


def fitted(pixels: Pixels, steps: Sequence[Step], volume: Pixels | None = None) -> Fitted:
    """The steps with the statistics of an image, or of the volume that it was cut from."""
    own = pixels.astype(np.float32)
    whole = own if volume is None else volume.astype(np.float32)
    done: list[Affine] = []
    for step in steps:
        affine = _affine(step, own if step.slice else whole)
        done.append(affine)
        whole = affine(whole) if volume is not None else whole
        own = affine(own)
        whole = own if volume is None else whole
    return Fitted(done)


def _affine(step: Step, values: NDArray[np.float32]) -> Affine:
    channels = values.shape[-1]
    flat = values.reshape(-1, channels)
    none, unit = np.zeros(channels), np.ones(channels)
    low, high = np.full(channels, -np.inf), np.full(channels, np.inf)
    shift, scale = none, unit
    if step.kind == "zscore":
        shift, scale = _moments(flat, step.nonzero)
    elif step.kind == "minmax":
        shift = flat.min(axis=0).astype(np.float64)
        scale = flat.max(axis=0).astype(np.float64) - shift
    else:
        bounds = (step.low, step.high)
        if step.kind == "percentile":
            low, high = np.percentile(flat, bounds, axis=0).astype(np.float64)
        else:
            low, high = np.full(channels, bounds[0]), np.full(channels, bounds[1])
        if step.kind != "clip":
            shift, scale = low, high - low
    return Affine(low, high, shift, np.where(scale > 0, scale, 1.0), step.nonzero)


def _moments(
    flat: NDArray[np.float32], nonzero: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not nonzero:
        return flat.mean(axis=0, dtype=np.float64), flat.std(axis=0, dtype=np.float64)
    inside = flat != 0
    parts = [column[keep] for column, keep in zip(flat.T, inside.T, strict=True)]
    mean = [float(part.mean(dtype=np.float64)) if part.size else 0.0 for part in parts]
    deviation = [float(part.std(dtype=np.float64)) if part.size else 0.0 for part in parts]
    return np.array(mean), np.array(deviation)
