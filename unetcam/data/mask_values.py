"""From mask values and colours to class indices, by a class table."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from unetcam.data.class_table import ClassTable
from unetcam.data.pictures import Pixels
from unetcam.data.samples import IGNORE
from unetcam.errors import DataError

Indices = NDArray[np.int64]

UNKNOWN: Final = -2
"""The class index of a value or colour that no class has."""

_SHOWN_VALUES: Final = 5
_VOID: Final = 255


def indices_of(name: str, pixels: Pixels, classes: ClassTable, *, lossy: bool = False) -> Indices:
    """Class indices of mask values.

    Parameters
    ----------
    name : str
        What the mask is called in an error.
    pixels : ndarray
        Values of any shape and real type.
    classes : ClassTable
    lossy : bool
        Whether the file's format blurs values, for the remedy.

    Returns
    -------
    ndarray, int64
        Of the same shape; ``IGNORE`` (-1) where a value is left out.

    Raises
    ------
    DataError
        For fractions, and for a value that the table doesn't know.

    Examples
    --------
    >>> table = ClassTable(("background", "cell"), ignore_index=9)
    >>> indices_of("it", np.array([0, 1, 9], np.uint8), table)
    array([ 0,  1, -1])
    """
    indices = try_indices(name, pixels, classes)
    unknown = indices == UNKNOWN
    if bool(unknown.any()):
        values = np.unique(whole_numbers(name, pixels)[unknown])
        raise DataError(_unknown_values(name, values, classes, lossy), option="ignore_index")
    return indices


def try_indices(name: str, pixels: Pixels, classes: ClassTable) -> Indices:
    """Class indices of mask values, ``UNKNOWN`` (-2) where the table doesn't know the value."""
    numbers = whole_numbers(name, pixels)
    narrow = numbers.dtype in (np.uint8, np.uint16)
    present = np.flatnonzero(np.bincount(numbers.ravel())) if narrow else np.unique(numbers)
    known, indices = value_codes(present, classes)
    if narrow:
        every = np.arange(np.iinfo(numbers.dtype).max + 1)
        return look_up(every, known, indices)[numbers]
    return look_up(numbers, known, indices)


def value_codes(present: Pixels, classes: ClassTable) -> tuple[Indices, Indices]:
    """The mask values that are understood in rising order, and the class index of each."""
    codes = classes.value_codes()
    if classes.is_plain_binary and _VOID in present and bool(np.isin(present, (0, _VOID)).all()):
        codes = [(0, 0), (_VOID, 1), *codes[2:]]
    values, indices = np.array(codes, dtype=np.int64).T
    order = np.argsort(values)
    return values[order], indices[order]


def whole_numbers(name: str, pixels: Pixels) -> Pixels:
    """Mask values as integers.

    Raises
    ------
    DataError
        For fractions and NaN.
    """
    if pixels.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = pixels.astype(np.int64)
        if not np.array_equal(whole, pixels):
            raise DataError(f"{name} holds fractions or NaN; save class indices as whole numbers")
        return whole
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels
    if pixels.dtype == np.uint64:  # beyond int64 nothing is a class: the largest stands for it
        pixels = np.minimum(pixels, np.uint64(np.iinfo(np.int64).max))
    return pixels.astype(np.int64)


def _unknown_values(name: str, unknown: Pixels, classes: ClassTable, lossy: bool) -> str:
    known = ", ".join(map(str, classes.values[:10])) + (", ..." if len(classes) > 10 else "")
    if lossy:
        remedy = "its format blurs class indices, save masks as PNG"
    elif unknown.tolist() == [_VOID]:
        remedy = "if 255 marks a void, say ignore_index=255"
    else:
        remedy = "mend the mask, or give the class table these values or an ignore index"
    return f"{name} holds {_listed(unknown)}, but the classes have the values {known}; {remedy}"


def _listed(values: Pixels) -> str:
    first = ", ".join(str(value) for value in values[:_SHOWN_VALUES].tolist())
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return f"the unknown value{'s' if len(values) > 1 else ''} {first}{more}"


def packed(colours: Pixels) -> Indices:
    """Colours (..., 3) as one number each, 0xrrggbb."""
    wide = colours.astype(np.int64)
    numbers: Indices = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return numbers


def colour_codes(classes: ClassTable) -> tuple[Indices, Indices]:
    """Packed colours in rising order, and the class index of each."""
    pairs = classes.colour_codes()
    codes = packed(np.array([colour for colour, _ in pairs]).reshape(-1, 3))
    indices = np.array([index for _, index in pairs], dtype=np.int64)
    order = codes.argsort()
    return codes[order], indices[order]


def look_up(codes: Indices, known: Indices, indices: Indices) -> Indices:
    """Class index of each code, ``UNKNOWN`` where no class has it."""
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, indices[place], UNKNOWN)


def colour_indices(name: str, pixels: Pixels, classes: ClassTable) -> Indices:
    """Class indices of colours (..., 3).

    Raises
    ------
    DataError
        For colours of more than 8 bits, and for one that no class has.
    """
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{name} has colours of the type {pixels.dtype}; save it with 8 bits per band"
        )
    codes = packed(pixels)
    result = look_up(codes, *colour_codes(classes))
    unknown = np.unique(codes[result == UNKNOWN])
    if unknown.size:
        first = ", ".join(f"#{code:06x}" for code in unknown[:_SHOWN_VALUES].tolist())
        more = f" and {unknown.size - _SHOWN_VALUES} more" if unknown.size > _SHOWN_VALUES else ""
        raise DataError(
            f"{name} holds colours that no class has ({first}{more}); mend the mask, or add them "
            "to the class table"
        )
    return result


def instance_indices(name: str, pixels: Pixels, classes: ClassTable) -> Indices:
    """Foreground of masks that number single objects: 1 wherever a value is not 0.

    Raises
    ------
    DataError
        Unless there are two classes.
    """
    if len(classes) != 2:
        raise DataError(
            f"instances=True makes one foreground of all objects, and there are {len(classes)} "
            "classes; leave it out, or name two classes",
            option="instances",
        )
    result: Indices = (pixels != 0).any(axis=-1).astype(np.int64)
    if classes.ignore_index is not None and pixels.shape[-1] == 1:
        result[pixels[..., 0] == classes.ignore_index] = IGNORE
    return result
