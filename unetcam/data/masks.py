"""From mask files to class indices."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unetcam.data.class_table import ClassTable, Colour
from unetcam.data.files import shown
from unetcam.data.formats import format_of, read_picture
from unetcam.data.pictures import Picture, Pixels, upright
from unetcam.data.samples import IGNORE, Sample
from unetcam.errors import DataError

Indices = NDArray[np.int64]

_UNKNOWN: Final = -2
_SHOWN_VALUES: Final = 5


def read_mask(
    source: Sample | Path, classes: ClassTable, *, image: Picture | None = None
) -> Indices:
    """Read a ground truth as class indices.

    Parameters
    ----------
    source : Sample or Path
        A sample, whose mask may be one file or one per class, or a single mask file. A file with
        one band holds indices (of a palette PNG or TIFF the indices, not the colours; of grey
        with 1, 2 or 4 bits the samples). A colour file is colour-coded and needs `classes` with
        colours, unless its three bands are alike: then they are the index. One file per class
        holds 0 and one other value.
    classes : ClassTable
        Names, values and colours of the classes.
    image : Picture, optional
        The image, for the orientation: a mask that fits the image only as the camera stored it,
        and says nothing of its own orientation, is turned as the image was.

    Returns
    -------
    ndarray, shape (H, W) or (D, H, W), int64
        Class indices; ``IGNORE`` (-1) where a pixel is left out.

    Raises
    ------
    DataError
        If a file can't be read, holds a value or colour that the table doesn't know, differs
        from `image` in size, or if two class files claim the same pixel.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "mask.npy"
    ...     np.save(path, np.array([[0, 1], [1, 255]]))
    ...     read_mask(path, ClassTable(("background", "cell"), ignore_index=255))
    array([[ 0,  1],
           [ 1, -1]])
    """
    if isinstance(source, Sample):
        if source.mask is None:
            raise DataError(f"'{source.id}' has no mask; name its mask file")
        if isinstance(source.mask, tuple):
            return _from_class_files(source, source.mask, classes, image)
        return _from_one_file(source, source.mask, classes, image)
    path = Path(source)
    return _from_one_file(Sample(path.name, path), path, classes, image)


def _from_one_file(
    sample: Sample, path: Path, classes: ClassTable, image: Picture | None
) -> Indices:
    picture = _read(sample, path)
    pixels = _in_frame(path, picture, image)
    if picture.alpha:
        pixels = pixels[..., :-1]
    bands = pixels.shape[-1]
    if bands == 1:
        if picture.palette is not None and classes.colours is not None:
            _require_agreement(path, pixels[..., 0], picture.palette, classes, classes.colours)
        return _from_values(path, pixels[..., 0], classes)
    if bands != 3:
        raise DataError(
            f"the mask {shown(path)} has {bands} bands; give an index image, an RGB image or one "
            "file per class"
        )
    if classes.colours is not None:
        return _from_colours(path, pixels, classes, classes.colours)
    if bool((pixels == pixels[..., :1]).all()):
        return _from_values(path, pixels[..., 0], classes)
    raise DataError(
        f"the mask {shown(path)} is in colour; give the class table a colour for every class"
    )


def _read(sample: Sample, path: Path) -> Picture:
    return read_picture(path, plane=sample.plane, orientation=sample.orientation, indices=True)


def _in_frame(path: Path, mask: Picture, image: Picture | None) -> Pixels:
    """The mask's pixels in the upright frame of its image."""
    if image is None or mask.size == image.size:
        return mask.pixels
    if mask.orientation == 1 and image.orientation != 1 and mask.size == image.stored_size:
        return upright(mask.pixels, image.orientation)
    raise DataError(
        f"the mask {shown(path)} has {_by(mask.size)} pixels and its image {_by(image.size)}; "
        "give a mask of the image's size"
    )


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def indices_of(name: str, pixels: Pixels, classes: ClassTable, *, lossy: bool = False) -> Indices:
    """Class indices of mask values, by the values of a class table.

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
    """
    numbers = _whole_numbers(name, pixels)
    narrow = numbers.dtype in (np.uint8, np.uint16)
    present = np.flatnonzero(np.bincount(numbers.ravel())) if narrow else np.unique(numbers)
    known, indices = _value_codes(present, classes)
    unknown = present[_look_up(present, known, indices) == _UNKNOWN]
    if unknown.size:
        raise DataError(_unknown_values(name, unknown, classes, lossy))
    if narrow:
        return _look_up(np.arange(np.iinfo(numbers.dtype).max + 1), known, indices)[numbers]
    return _look_up(numbers, known, indices)


def _from_values(path: Path, pixels: Pixels, classes: ClassTable) -> Indices:
    known = format_of(path)
    lossy = known is not None and known.lossy
    return indices_of(f"the mask {shown(path)}", pixels, classes, lossy=lossy)


def _value_codes(present: Pixels, classes: ClassTable) -> tuple[Indices, Indices]:
    """The mask values that are understood in rising order, and the class index of each."""
    values = classes.values
    if classes.is_plain_binary and 255 in present and bool(np.isin(present, (0, 255)).all()):
        values = (0, 255)
    indices = tuple(range(len(values)))
    if classes.ignore_index is not None:
        values, indices = (*values, classes.ignore_index), (*indices, IGNORE)
    order = np.argsort(values)
    return np.array(values, dtype=np.int64)[order], np.array(indices, dtype=np.int64)[order]


def _whole_numbers(name: str, pixels: Pixels) -> Pixels:
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
    remedy = (
        "its format blurs class indices, save masks as PNG"
        if lossy
        else "mend the mask, or give the class table these values or an ignore index"
    )
    return f"{name} holds {_listed(unknown)}, but the classes have the values {known}; {remedy}"


def _listed(values: Pixels) -> str:
    first = ", ".join(str(value) for value in values[:_SHOWN_VALUES].tolist())
    more = f" and {len(values) - _SHOWN_VALUES} more" if len(values) > _SHOWN_VALUES else ""
    return f"the unknown value{'s' if len(values) > 1 else ''} {first}{more}"


def _packed(colours: Pixels) -> Indices:
    wide = colours.astype(np.int64)
    packed: Indices = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def _colour_codes(classes: ClassTable, colours: tuple[Colour, ...]) -> tuple[Indices, Indices]:
    """Packed colours in rising order, and the class index of each."""
    codes = _packed(np.array(colours))
    indices = np.arange(len(codes))
    if classes.ignore_colour is not None:
        codes = np.append(codes, _packed(np.array(classes.ignore_colour)))
        indices = np.append(indices, IGNORE)
    order = codes.argsort()
    return codes[order], indices[order]


def _look_up(codes: Indices, known: Indices, indices: Indices) -> Indices:
    """Class index of each packed colour, ``_UNKNOWN`` where no class has it."""
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, indices[place], _UNKNOWN)


def _from_colours(
    path: Path, pixels: Pixels, classes: ClassTable, colours: tuple[Colour, ...]
) -> Indices:
    if pixels.dtype != np.uint8:
        raise DataError(
            f"the mask {shown(path)} has colours of the type {pixels.dtype}; save it with 8 bits "
            "per band"
        )
    codes = _packed(pixels)
    found = _look_up(codes, *_colour_codes(classes, colours))
    unknown = np.unique(codes[found == _UNKNOWN])
    if unknown.size:
        first = ", ".join(f"#{code:06x}" for code in unknown[:_SHOWN_VALUES].tolist())
        more = f" and {unknown.size - _SHOWN_VALUES} more" if unknown.size > _SHOWN_VALUES else ""
        raise DataError(
            f"the mask {shown(path)} holds colours that no class has ({first}{more}); mend the "
            "mask, or add them to the class table"
        )
    return found


def _require_agreement(
    path: Path,
    numbers: Pixels,
    palette: NDArray[np.uint8],
    classes: ClassTable,
    colours: tuple[Colour, ...],
) -> None:
    """Refuse a palette image whose indices say one class and whose colours another.

    Programs that shrink PNG files renumber a palette; its indices then mean nothing.
    """
    used = np.flatnonzero(np.bincount(numbers.ravel()))
    used = used[used < len(palette)]
    by_colour = _look_up(_packed(palette[used]), *_colour_codes(classes, colours))
    if not used.size or bool((by_colour == _UNKNOWN).any()):
        return  # the palette is for show only
    if not np.array_equal(_look_up(used, *_value_codes(used, classes)), by_colour):
        raise DataError(
            f"the mask {shown(path)} has a palette whose indices and colours stand for different "
            "classes of the table; save it as RGB, or take the colours out of the table"
        )


def _from_class_files(
    sample: Sample, paths: tuple[Path, ...], classes: ClassTable, image: Picture | None
) -> Indices:
    result: Indices | None = None
    for path, index in zip(paths, sample.mask_classes, strict=True):
        inside = _inside(sample, path, image)
        if result is None:
            result = np.full(inside.shape, _UNKNOWN, dtype=np.int64)
        if inside.shape != result.shape:
            raise DataError(
                f"the mask {shown(path)} has {_by(inside.shape)} pixels and {shown(paths[0])} "
                f"{_by(result.shape)}; give all class files of an image one size"
            )
        claimed = inside & (result != _UNKNOWN)
        if bool(claimed.any()):
            other = classes.names[int(result[claimed][0])]
            raise DataError(
                f"the mask {shown(path)} of the class '{classes.names[index]}' and the one of "
                f"'{other}' both claim {int(claimed.sum())} pixels; give each pixel to one class"
            )
        result[inside] = index
    if result is None:
        raise DataError(f"'{sample.id}' has no mask; name a file for one class at least")
    result[result == _UNKNOWN] = sample.unlabelled
    return result


def _inside(sample: Sample, path: Path, image: Picture | None) -> NDArray[np.bool_]:
    picture = _read(sample, path)
    pixels = _in_frame(path, picture, image)
    if picture.alpha:
        pixels = pixels[..., :-1]
    if not bool((pixels == pixels[..., :1]).all()):
        raise DataError(f"the mask {shown(path)} is in colour; save one class as black and white")
    numbers = pixels[..., 0]
    inside: NDArray[np.bool_] = numbers != 0
    marked = numbers[inside]
    if marked.size and bool((marked != marked[0]).any()):
        raise DataError(
            f"the mask {shown(path)} of one class holds {len(np.unique(marked)) + 1} values; save "
            "it as black and white, without smoothed edges"
        )
    return inside
