"""From mask files to class indices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unetcam.data.class_table import ClassTable
from unetcam.data.files import shown
from unetcam.data.formats import format_of, read_picture
from unetcam.data.mask_values import (
    UNKNOWN,
    Indices,
    colour_codes,
    colour_indices,
    indices_of,
    instance_indices,
    look_up,
    packed,
    try_indices,
)
from unetcam.data.options import DataOptions
from unetcam.data.pictures import Picture, Pixels, upright
from unetcam.data.samples import Sample
from unetcam.errors import DataError


def read_mask(
    source: Sample | Path,
    classes: ClassTable,
    *,
    image: Picture | None = None,
    options: DataOptions | None = None,
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
    options : DataOptions, optional
        What a person says about how masks are read.

    Returns
    -------
    ndarray, shape (H, W) or (D, H, W), int64
        Class indices; ``IGNORE`` (-1) where a pixel is left out.

    Raises
    ------
    DataError
        If a file can't be read, holds a value or colour that the table doesn't know, differs
        from `image` in size, can be understood in two ways, or if two class files claim the same
        pixel.

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
    options = options or DataOptions()
    if isinstance(source, Sample):
        if source.mask is None:
            raise DataError(f"'{source.id}' has no mask; name its mask file")
        if isinstance(source.mask, tuple):
            return _from_class_files(source, source.mask, classes, image, options)
        return _from_one_file(source, source.mask, classes, image, options)
    path = Path(source)
    return _from_one_file(Sample(path.name, path), path, classes, image, options)


def _from_one_file(
    sample: Sample, path: Path, classes: ClassTable, image: Picture | None, options: DataOptions
) -> Indices:
    picture = _read(sample, path, options)
    name = f"the mask {shown(path)}"
    pixels = _labelled(_in_frame(path, picture, image, options), picture, classes)
    bands = pixels.shape[-1]
    if options.instances:
        return instance_indices(name, pixels, classes)
    if bands == 1:
        return _from_values(path, pixels[..., 0], picture, classes)
    if bands != 3:
        raise DataError(
            f"{name} has {bands} bands; give an index image, an RGB image or one file per class"
        )
    if classes.colours is not None:
        return colour_indices(name, pixels, classes)
    if bool((pixels == pixels[..., :1]).all()):
        return _from_values(path, pixels[..., 0], picture, classes)
    raise DataError(f"{name} is in colour; give the class table a colour for every class")


def _read(sample: Sample, path: Path, options: DataOptions) -> Picture:
    return read_picture(
        path,
        plane=sample.plane,
        orientation=sample.orientation,
        axes=sample.axes,
        indices=True,
        max_pixels=options.limit,
    )


def _labelled(pixels: Pixels, picture: Picture, classes: ClassTable) -> Pixels:
    """The bands that hold the classes: all but opacity, or opacity where it alone varies."""
    if not picture.alpha or pixels.shape[-1] < 2:
        return pixels
    if classes.label_in_alpha is None:
        return pixels[..., -1:] if varies_in_alpha_only(pixels) else pixels[..., :-1]
    return pixels[..., -1:] if classes.label_in_alpha else pixels[..., :-1]


def varies_in_alpha_only(pixels: Pixels) -> bool:
    """Whether of a mask's bands only the last, its opacity, tells anything.

    Examples
    --------
    >>> varies_in_alpha_only(np.array([[[0, 0, 0, 255], [0, 0, 0, 0]]]))
    True
    """
    colours = pixels.reshape(-1, pixels.shape[-1])
    same = bool((colours[:, :-1] == colours[0, :-1]).all())
    return same and not bool((colours[:, -1] == colours[0, -1]).all())


def _in_frame(path: Path, mask: Picture, image: Picture | None, options: DataOptions) -> Pixels:
    """The mask's pixels in the upright frame of its image."""
    if image is None or mask.orientation == image.orientation:
        _require_size(path, mask, image)
        return mask.pixels
    if mask.orientation != 1:
        raise DataError(
            f"the mask {shown(path)} has the EXIF orientation {mask.orientation} and its image "
            f"{image.orientation}; save both without one"
        )
    turned = upright(mask.pixels, image.orientation)
    as_seen, as_stored = mask.size == image.size, turned.shape[:-1] == image.size
    if options.exif == "upright" or not as_stored:
        _require_size(path, mask, image)
        return mask.pixels
    if options.exif == "stored" or not as_seen or np.array_equal(turned, mask.pixels):
        return turned
    raise DataError(
        f"the EXIF orientation {image.orientation} turns the image and the mask {shown(path)} has "
        "none, so which way the mask lies can't be told; say exif='upright' if it lies as one sees "
        "the image, exif='stored' if as the file stores it",
        option="exif",
    )


def _require_size(path: Path, mask: Picture, image: Picture | None) -> None:
    if image is not None and mask.size != image.size:
        raise DataError(
            f"the mask {shown(path)} has {_by(mask.size)} pixels and its image {_by(image.size)}; "
            "give a mask of the image's size"
        )


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _from_values(path: Path, pixels: Pixels, picture: Picture, classes: ClassTable) -> Indices:
    """Class indices of one band, which some files let a person understand in two ways."""
    name = f"the mask {shown(path)}"
    if picture.white_is_zero and pixels.dtype.kind in "iu":
        stored = try_indices(name, pixels, classes)
        top = 1 if int(pixels.max(initial=0)) <= 1 else np.iinfo(pixels.dtype).max
        seen = try_indices(name, (top - pixels).astype(pixels.dtype), classes)
        return _one_of(
            path,
            [stored, seen],
            f"{name} says that 0 is shown white (the photometric interpretation MINISWHITE), so "
            "its values may be meant as stored or as shown; save it as PNG",
            pixels,
            classes,
        )
    if picture.palette is not None:
        return _from_palette(path, pixels, picture.palette, classes)
    known = format_of(path)
    return indices_of(name, pixels, classes, lossy=known is not None and known.lossy)


def _from_palette(
    path: Path, pixels: Pixels, palette: NDArray[np.uint8], classes: ClassTable
) -> Indices:
    """By its numbers, unless its colours say something else.

    Programs that shrink images renumber a palette; its numbers then mean nothing.
    """
    name = f"the mask {shown(path)}"
    used = np.flatnonzero(np.bincount(pixels.ravel()))
    if not used.size or used[-1] >= len(palette):
        return indices_of(name, pixels, classes)
    colours = np.zeros((used[-1] + 1, 3), np.uint8)
    colours[used] = palette[used]
    readings = [try_indices(name, pixels, classes)]
    if classes.colours is not None:
        readings.append(look_up(packed(colours), *colour_codes(classes))[pixels])
    elif bool((colours == colours[:, :1]).all()):
        readings.append(try_indices(name, colours[..., 0][pixels], classes))
    return _one_of(
        path,
        readings,
        f"{name} has a palette whose indices and colours stand for different classes of the "
        "table; save it as RGB or as grey values",
        pixels,
        classes,
    )


def _one_of(
    path: Path, readings: Sequence[Indices], ambiguous: str, pixels: Pixels, classes: ClassTable
) -> Indices:
    """The only reading in which every pixel has a class."""
    whole = [one for one in readings if not bool((one == UNKNOWN).any())]
    if not whole:
        return indices_of(f"the mask {shown(path)}", pixels, classes)
    if any(not np.array_equal(whole[0], one) for one in whole[1:]):
        raise DataError(ambiguous)
    return whole[0]


def _from_class_files(
    sample: Sample,
    paths: tuple[Path, ...],
    classes: ClassTable,
    image: Picture | None,
    options: DataOptions,
) -> Indices:
    result: Indices | None = None
    for path, index in zip(paths, sample.mask_classes, strict=True):
        inside = _inside(sample, path, image, classes, options)
        if result is None:
            result = np.full(inside.shape, UNKNOWN, dtype=np.int64)
        if inside.shape != result.shape:
            raise DataError(
                f"the mask {shown(path)} has {_by(inside.shape)} pixels and {shown(paths[0])} "
                f"{_by(result.shape)}; give all class files of an image one size"
            )
        claimed = inside & (result != UNKNOWN)
        if bool(claimed.any()):
            other = classes.names[int(result[claimed][0])]
            raise DataError(
                f"the mask {shown(path)} of the class '{classes.names[index]}' and the one of "
                f"'{other}' both claim {int(claimed.sum())} pixels; give each pixel to one class"
            )
        result[inside] = index
    if result is None:
        raise DataError(f"'{sample.id}' has no mask; name a file for one class at least")
    result[result == UNKNOWN] = sample.unlabelled
    return result


def _inside(
    sample: Sample, path: Path, image: Picture | None, classes: ClassTable, options: DataOptions
) -> NDArray[np.bool_]:
    picture = _read(sample, path, options)
    pixels = _labelled(_in_frame(path, picture, image, options), picture, classes)
    if picture.white_is_zero and bool((pixels != 0).any()):
        raise DataError(
            f"the mask {shown(path)} says that 0 is shown white (the photometric interpretation "
            "MINISWHITE), so which pixels it means can't be told; save it as PNG"
        )
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
