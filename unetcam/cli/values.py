"""How the texts of options are read: sizes, numbers, names, and choices by name."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

from unetcam.errors import UnetcamError


class OptionError(UnetcamError, ValueError):
    """A command-line option whose text can't be read."""


class TargetName(str, Enum):
    """What is explained."""

    CLASS = "class"
    PREDICTED = "predicted"
    TRUTH = "truth"
    FALSE_POSITIVES = "false-positives"
    FALSE_NEGATIVES = "false-negatives"
    BOUNDARY_ERRORS = "boundary-errors"
    MISSED_COMPONENTS = "missed-components"


class Head(str, Enum):
    """How the network's channels are read."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"


class ResizeMode(str, Enum):
    """How an image comes to a size that the network takes."""

    PAD = "pad"
    RESIZE = "resize"


class Exif(str, Enum):
    """Which way masks lie whose images have an EXIF orientation."""

    AUTO = "auto"
    UPRIGHT = "upright"
    STORED = "stored"


def read_size(text: str | None, option: str = "size") -> tuple[int, ...] | None:
    """Read HxW, or DxHxW.

    >>> read_size("128x256")
    (128, 256)
    >>> read_size("96x96x64")
    (96, 96, 64)
    """
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) not in (2, 3) or not all(side.isdecimal() and int(side) for side in sides):
        raise OptionError(
            f"{option}='{text}' is no size: give height x width, as in 256x256.", option=option
        )
    return tuple(map(int, sides))


def read_tile(text: str | None) -> tuple[int, ...] | None:
    """Read one side for all, HxW, or DxHxW.

    >>> read_tile("512"), read_tile("96x96x64")
    ((512,), (96, 96, 64))
    """
    if text is not None and text.isdecimal() and int(text):
        return (int(text),)
    return read_size(text, "tile")


def read_numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Read numbers with commas between them.

    >>> read_numbers("0.5, 0.25", "mean")
    (0.5, 0.25)
    """
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"{option}='{text}' is no list of numbers: give one per channel, as in "
            "0.485,0.456,0.406.",
            option=option,
        ) from error


def read_names(text: str | None, option: str) -> tuple[str, ...] | None:
    """Read names with commas between them.

    >>> read_names("up1, up2", "layers")
    ('up1', 'up2')
    """
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise OptionError(
            f"{option}='{text}' names nothing somewhere: put a name between commas.", option=option
        )
    return names


def choose_workers(given: int | None) -> int:
    """The number of reading processes: as given, or one for each further core, at most 4."""
    if given is not None:
        return given
    known = getattr(os, "sched_getaffinity", None)
    cores = len(known(0)) if known is not None else (os.cpu_count() or 1)
    return max(0, min(4, cores - 1))


def read_mean_option(text: str | None) -> Any:
    return read_numbers(text, "mean")


def read_std_option(text: str | None) -> Any:
    return read_numbers(text, "std")


def read_layers_option(text: str | None) -> Any:
    return read_names(text, "layers")


def read_bands_option(text: str | None) -> Any:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise OptionError(
            f"bands='{text}' are no three bands: give red, green and blue, counted from 1, as in "
            "4,3,2.",
            option="bands",
        )
    return tuple(map(int, parts))


def read_size_option(text: str | None) -> Any:
    return read_size(text)
