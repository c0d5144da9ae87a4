"""What may be measured: shapes, classes and values, each refused with one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.morphology import default_width


def require_labels(name: str, labels: Tensor, num_classes: int, lowest: int) -> None:
    """Refuse label images that are not whole class indices from ``lowest`` to C - 1.

    Parameters
    ----------
    name : str
        How the message calls the labels.
    labels : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)``, any integer dtype.
    num_classes : int
        The number of classes C.
    lowest : int
        -1 where ignored pixels are allowed, else 0.

    Raises
    ------
    MeasureError
        If the dtype is not an integer, the rank is not 3 or 4, or a value is out of range.
    """
    if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
        raise MeasureError(
            f"The {name} has dtype {labels.dtype}: give class indices as an integer tensor."
        )
    if labels.ndim not in (3, 4) or labels.numel() == 0:
        raise MeasureError(
            f"The {name} has shape {tuple(labels.shape)}: give (B, H, W) or (B, D, H, W) pixels."
        )
    if bool(((labels < lowest) | (labels >= num_classes)).any()):
        raise MeasureError(
            f"The {name} holds values from {int(labels.min())} to {int(labels.max())}, but "
            f"{num_classes} classes allow {lowest} to {num_classes - 1}: map other values first."
        )


def require_classes(classes: Sequence[int], num_classes: int) -> tuple[int, ...]:
    """The class of each map as a tuple of ints, or a refusal.

    Raises
    ------
    MeasureError
        If there is no class, or one is outside 0 to C - 1.
    """
    indices = tuple(int(c) for c in classes)
    if not indices:
        raise MeasureError("No class was named: give the class index of every map.")
    for c in indices:
        if not 0 <= c < num_classes:
            raise MeasureError(
                f"Class {c} is out of range: {num_classes} classes have the indices "
                f"0 to {num_classes - 1}."
            )
    return indices


def require_band(band: float | None, spatial: Sequence[int]) -> float:
    """The band width in pixels: as given, or 2 % of the image diagonal and at least 1.

    Raises
    ------
    MeasureError
        If a given band is not a finite number of at least 1.
    """
    if band is None:
        return default_width(spatial)
    if not (math.isfinite(band) and band >= 1.0):
        raise MeasureError(f"The band is {band} pixels: give a width of at least 1 pixel.")
    return float(band)


def require_tolerance(tolerance: float) -> float:
    """The pointing game's tolerance in pixels.

    Raises
    ------
    MeasureError
        If it is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0.0):
        raise MeasureError(f"The tolerance is {tolerance} pixels: give a number of at least 0.")
    return float(tolerance)


def require_threshold(threshold: float) -> float:
    """The fixed threshold as a share of the map's maximum.

    Raises
    ------
    MeasureError
        If it is not in (0, 1].
    """
    if not 0.0 < threshold <= 1.0:
        raise MeasureError(
            f"The threshold is {threshold}: give a share of the map's maximum in (0, 1]."
        )
    return float(threshold)


def require_maps(maps: Tensor, batch: int, count: int, spatial: Sequence[int]) -> None:
    """Refuse maps that do not lie on the masks' pixels.

    Raises
    ------
    MeasureError
        If the dtype is not floating or the shape is not ``(B, T, *spatial)``.
    """
    if not maps.dtype.is_floating_point:
        raise MeasureError(f"The maps have dtype {maps.dtype}: give floating-point maps.")
    wanted = (batch, count, *spatial)
    if tuple(maps.shape) != wanted:
        raise MeasureError(
            f"The maps have shape {tuple(maps.shape)}, but the masks and classes ask for "
            f"{wanted}: resize the maps to the masks and name one class per map."
        )
