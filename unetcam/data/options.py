"""How a data set's files are read: what a person may say about all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from unetcam.data.pictures import MAX_PIXELS, Reading
from unetcam.data.stacks import check_axes
from unetcam.errors import DataError

Exif = Literal["auto", "upright", "stored"]
_EXIF: Final = ("auto", "upright", "stored")
#: An image that is explained in tiles may be so many times as large.
_TILED: Final = 4


@dataclass(frozen=True)
class DataOptions:
    """What a person may say about how a data set is read.

    Parameters
    ----------
    max_pixels : int
        Pixels of the largest image, and voxels of the largest volume, that is decoded; each may
        take eight bytes where it is held. Four times as many where it is explained in tiles.
    tiled : bool
        Whether images are explained in tiles.
    exif : {"auto", "upright", "stored"}
        Which way a mask without an EXIF orientation lies where its image has one: as a person
        sees the image, or as its file stores it. ``"auto"`` tells by the sizes, and skips an
        image where both fit.
    instances : bool
        Masks number single objects: whatever is not 0 is the second of two classes.
    bands : (int, int, int) or None
        Which bands are shown as red, green and blue, counted from 1.
    axes : str or None
        What the axes of volumes in TIFF and NumPy files are, slowest first, as ``"ZYX"`` or
        ``"CZYX"``; by default as a file tells it. For networks of volumes.
    stretch : str or None
        How values are shown: ``"percentile:1:99"`` (the default for anything but 8 bits),
        ``"minmax"``, ``"window:LOW:HIGH"`` or ``"none"`` (8 bits as they are).

    Raises
    ------
    DataError
        For a value that makes no sense.
    """

    max_pixels: int = MAX_PIXELS
    tiled: bool = False
    exif: Exif = "auto"
    instances: bool = False
    bands: tuple[int, int, int] | None = None
    stretch: str | None = None
    axes: str | None = None

    def __post_init__(self) -> None:
        Reading(max_pixels=self.max_pixels)
        if self.exif not in _EXIF:
            raise DataError(
                f"exif={self.exif!r} is unknown; choose {', '.join(_EXIF[:-1])} or {_EXIF[-1]}",
                option="exif",
            )
        if self.bands is not None:
            bands = tuple(self.bands)
            if len(bands) != 3 or not all(isinstance(b, int) and b >= 1 for b in bands):
                raise DataError(
                    f"bands={bands} are no three bands; give red, green and blue, counted from 1, "
                    "as in 4,3,2",
                    option="bands",
                )
            object.__setattr__(self, "bands", bands)
        if self.stretch is not None:
            parse_stretch(self.stretch)
        if self.axes is not None:
            object.__setattr__(self, "axes", check_axes(self.axes))

    @property
    def limit(self) -> int:
        """Pixels of the largest image that is decoded, tiles considered."""
        return self.max_pixels * (_TILED if self.tiled else 1)


def parse_stretch(text: str) -> tuple[str, float, float]:
    """The kind of a stretch, and its two numbers.

    Raises
    ------
    DataError
        For what is no stretch.

    Examples
    --------
    >>> parse_stretch("window:-160:240"), parse_stretch("minmax")
    (('window', -160.0, 240.0), ('minmax', 0.0, 0.0))
    """
    kind, *numbers = text.split(":")
    try:
        low, high = (float(number) for number in numbers) if numbers else (0.0, 0.0)
    except ValueError:
        low, high = math.nan, math.nan
    wanted = {"percentile": 2, "window": 2, "minmax": 0, "none": 0}.get(kind)
    fits = wanted == len(numbers) and math.isfinite(low) and math.isfinite(high)
    if fits and wanted:
        fits = low < high and (kind == "window" or (low >= 0 and high <= 100))
    if not fits:
        raise DataError(
            f"stretch='{text}' is no stretch; use percentile:1:99, minmax, window:LOW:HIGH or none",
            option="stretch",
        )
    return kind, low, high
