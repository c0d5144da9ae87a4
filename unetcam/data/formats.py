"""The formats that are read, each named once: its suffixes, its reader, its writer."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from unetcam.data.arrays import array_type, read_array
from unetcam.data.channels import to_channels
from unetcam.data.files import (
    decoding,
    keep_whole,
    key_of,
    readable,
    require_file,
    shown,
    split_suffix,
)
from unetcam.data.images import pillow_type, read_with_pillow
from unetcam.data.pictures import MAX_PIXELS, Picture, Pixels, Reading
from unetcam.data.samples import Skipped
from unetcam.data.tiff import read_tiff, tiff_type
from unetcam.data.whole_volumes import read_volume
from unetcam.errors import DataError

Reader = Callable[[Path, Reading], Picture]
TypeReader = Callable[[Path, Reading], "np.dtype[Any]"]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes
    ----------
    name : str
        What a person calls it.
    suffixes : tuple of str
        In lower case, with their dots.
    read : callable
        From a path and a `Reading` to a `Picture`. It raises what it likes for a damaged file:
        `read_picture` makes it an error that names the file.
    value_type : callable, optional
        From a path and a `Reading` to the type of its values, read from the header alone; without
        it the whole file is decoded for that.
    stack : bool
        Whether it may hold a volume, which a network of volumes is given whole.
    volume : bool
        Whether it always holds a volume with directions, of which a slice is read.
    lossy : bool
        Whether saving blurs values: then it can't hold class indices.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Reader
    value_type: TypeReader | None = None
    volume: bool = False
    stack: bool = False
    lossy: bool = False


FORMATS: Final[list[Format]] = []
"""Every format, in the order in which messages name them."""

_BY_SUFFIX: dict[str, Format] = {}


def register(one: Format) -> Format:
    """Add a format; whatever lists, finds, reads or names formats knows it from then on.

    Raises
    ------
    DataError
        If one of its suffixes belongs to another format, or is not as :class:`Format` wants it.
    """
    odd = next((s for s in one.suffixes if not s.startswith(".") or s != s.lower()), None)
    if odd is not None:
        raise DataError(
            f"no file of {one.name} would be found by the suffix '{odd}'; write it in lower case, "
            "with its dot"
        )
    taken = sorted(set(one.suffixes) & _BY_SUFFIX.keys())
    if taken:
        raise DataError(f"the suffix {taken[0]} belongs to {_BY_SUFFIX[taken[0]].name} already")
    FORMATS.append(one)
    _BY_SUFFIX.update(dict.fromkeys(one.suffixes, one))
    keep_whole(one.suffixes)
    return one


register(Format("PNG", (".png",), read_with_pillow, pillow_type))
register(
    Format("JPEG", (".jpg", ".jpeg", ".jfif", ".jpe"), read_with_pillow, pillow_type, lossy=True)
)
register(Format("TIFF", (".tif", ".tiff"), read_tiff, tiff_type, stack=True))
register(Format("WebP", (".webp",), read_with_pillow, pillow_type, lossy=True))
register(Format("BMP", (".bmp", ".dib"), read_with_pillow, pillow_type))
register(Format("GIF", (".gif",), read_with_pillow, pillow_type))
register(Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), read_with_pillow, pillow_type))
register(Format("NPY", (".npy",), read_array, array_type, stack=True))
register(Format("NPZ", (".npz",), read_array, array_type, stack=True))
register(Format("NIfTI", (".nii", ".nii.gz"), read_volume, volume=True))
register(Format("NRRD", (".nrrd",), read_volume, volume=True))

# Images of another kind are named in the report; anything else in the folder (notes, tables,
# system files) is no business of ours.
_OTHER_IMAGES = frozenset(
    {".heic", ".avif", ".jp2", ".dcm", ".nhdr", ".mha", ".mhd", ".mgz", ".exr", ".tga", ".pcx"}
    | {".svs", ".ndpi", ".czi", ".lif", ".nd2", ".h5", ".hdf5", ".zarr", ".hdr", ".img", ".mat"}
)
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir"})


def format_of(path: Path) -> Format | None:
    """The format that a file's name tells; None where it is none that is read.

    Examples
    --------
    >>> format_of(Path("t1.NII.gz")).name, format_of(Path("notes.txt"))
    ('NIfTI', None)
    """
    return _BY_SUFFIX.get(split_suffix(path.name)[1])


def format_names() -> str:
    """The formats in words, for messages.

    Examples
    --------
    >>> format_names()
    'PNG, JPEG, TIFF, ... or NRRD'
    """
    *names, last = (one.name for one in FORMATS)
    return f"{', '.join(names)} or {last}"


def is_volume(path: Path) -> bool:
    """Whether a file is a NIfTI or NRRD volume, by its name.

    Examples
    --------
    >>> is_volume(Path("t1.nii.gz")), is_volume(Path("t1.png"))
    (True, False)
    """
    found = format_of(path)
    return found is not None and found.volume


def may_be_stack(path: Path) -> bool:
    """Whether a file may hold a volume without directions, by its name: TIFF and NumPy.

    Examples
    --------
    >>> may_be_stack(Path("cells.tif")), may_be_stack(Path("t1.nii.gz"))
    (True, False)
    """
    found = format_of(path)
    return found is not None and found.stack


def read_picture(
    path: Path,
    *,
    plane: int | None = None,
    orientation: str | None = None,
    indices: bool = False,
    max_pixels: int = MAX_PIXELS,
    axes: str | None = None,
) -> Picture:
    """Decode a file, upright, with what is known of its bands.

    Parameters
    ----------
    path : Path
        A file of any format in ``FORMATS``, told by the suffix in any case.
    plane, orientation, indices, max_pixels, axes
        See :class:`~unetcam.data.pictures.Reading`.

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If the file is missing, damaged, too large, or of a kind that isn't read.
    """
    path = Path(path)
    known = format_of(path)
    if known is None:
        raise DataError(f"{shown(path)} is of a kind that isn't read; give {format_names()}")
    require_file(path)
    with decoding(path, known.name):
        read = read_volume if known.stack and orientation is not None else known.read
        return read(path, Reading(indices, plane, orientation, max_pixels, axes))


def value_type(path: Path, *, max_pixels: int = MAX_PIXELS) -> np.dtype[Any]:
    """The type that a file's values have once they are read, mostly told by its header alone.

    Raises
    ------
    DataError
        As for `read_picture`.
    """
    known = format_of(path)
    if known is None or known.value_type is None:
        return read_picture(path, max_pixels=max_pixels).pixels.dtype
    require_file(path)
    with decoding(path, known.name):
        dtype = known.value_type(path, Reading(max_pixels=max_pixels))
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    return np.dtype(np.float32) if dtype.kind == "f" else dtype.newbyteorder("=")


def read_image(
    path: Path,
    *,
    channels: int | None = None,
    plane: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Pixels:
    """Read an image file.

    Parameters
    ----------
    path : Path
        A file of any format in ``FORMATS`` (TIFF with 8, 16, 32 bits or float and any number of
        bands). The EXIF orientation is applied. Of a bare array's three axes, the shorter one of
        the first and the last holds the bands.
    channels : int, optional
        Bands to convert to by the rules of `to_channels`; None leaves them as the file has them.
    plane : int, optional
        The axial slice of a NIfTI or NRRD volume, counted from the feet, the front of the body
        up and its left at the left.
    max_pixels : int
        Nothing larger is decoded.

    Returns
    -------
    ndarray, shape (H, W, C)
        An integer type or float32; values as the file has them, save that truth values and
        images of 1 bit become 0 and 255, and palettes become colours.

    Raises
    ------
    DataError
        If the file can't be read, or its bands can't be brought to `channels`.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "grey.npy"
    ...     np.save(path, np.ones((4, 6), np.float64))
    ...     image = read_image(path, channels=3)
    >>> image.shape, image.dtype
    ((4, 6, 3), dtype('float32'))
    """
    path = Path(path)
    picture = read_picture(path, plane=plane, max_pixels=max_pixels)
    if channels is None:
        return picture.pixels
    try:
        return to_channels(picture.pixels, channels, alpha=picture.alpha)
    except DataError as error:
        raise DataError(f"{shown(path)}: {error.clause}") from error


def walk(folder: Path, without: Collection[Path] = ()) -> tuple[list[Path], list[Skipped]]:
    """Every image file below a folder, sorted, and what looks like an image but isn't read.

    Hidden files and folders are passed over. Links are followed, a loop of links once.

    Parameters
    ----------
    folder : Path
        Where to look.
    without : collection of Path
        Resolved folders that are left out (the masks, where they lie among the images).

    Returns
    -------
    files : list of Path
        Paths that begin with `folder`.
    skipped : list of Skipped
        Images of a kind that isn't read, and folders that can't be opened.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()

    def unreadable(error: OSError) -> None:
        name = readable(str(error.filename))
        reason = f"the folder '{name}' can't be opened; check its permissions"
        skipped.append(Skipped(name, name, reason))

    for root, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        here = Path(root)
        real = here.resolve()
        if real in seen or real in without:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _SYSTEM_FOLDERS
        )
        for name in sorted(names):
            if name.startswith("."):
                continue
            suffix = split_suffix(name)[1]
            path = here / name
            if suffix in _BY_SUFFIX:
                files.append(path)
            elif suffix in _OTHER_IMAGES:
                reason = (
                    f"{shown(path)} is of a kind that isn't read ({suffix}); convert it to "
                    f"{format_names()}"
                )
                skipped.append(
                    Skipped(readable(key_of(path.relative_to(folder))), readable(path), reason)
                )
    return sorted(files), skipped
