"""TIFF files, by tifffile and the decoders of imagecodecs."""

from __future__ import annotations

import io
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from unetcam.data.pictures import (
    Picture,
    Pixels,
    Reading,
    bands_last,
    exif_orientation,
    plain_values,
    upright,
)
from unetcam.errors import DataError

_ORIENTATION_TAG = 274
_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_LZW = 5
_BIG_TIFF = 43
_MOST_PAGES = 65536
_BAND_AXES = "SC"
_STACK_AXES = {"Z": "depth", "T": "time"}


def read_tiff(path: Path, how: Reading) -> Picture:
    """Decode the first image of a TIFF file at full resolution.

    Bands may be samples of a page, or pages of their own; a stack over depth or time is refused.

    Parameters
    ----------
    path : Path
        The file.
    how : Reading

    Returns
    -------
    Picture

    Raises
    ------
    DataError
        If it is a stack, too large, in a colour space without RGB, or not what it declares.
    """
    _require_chain(path)
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page: Any = series.keyframe
        tag = page.tags.get(_ORIENTATION_TAG)
        orientation = exif_orientation(1 if tag is None else tag.value)
        sides = sorted(series.shape, reverse=True)
        if len(sides) < 2 or series.dtype is None:
            raise DataError(f"its image has the shape {series.shape}; give height and width")
        bands = int(np.prod(sides[2:], dtype=object))
        how.require_room(sides[:2], bands, series.dtype.itemsize)
        _require_honest(page, path.stat().st_size)
        photometric = int(page.photometric)
        if photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _CMYK, _YCBCR):
            raise DataError("it is in a colour space that isn't read; convert it to RGB")
        alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in (1, 2)
        pixels = _bands(_decoded(path, series), series.axes)
        palette = None
        if photometric == _PALETTE and page.colormap is not None:
            colours = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
            if how.indices:
                palette = colours
            else:
                pixels = colours[pixels[..., 0]]
        pixels = _as_displayed(pixels, photometric, how.indices)
    values = upright(plain_values(pixels, indices=how.indices), orientation)
    return Picture(values, alpha, orientation, palette, photometric == _MINISWHITE)


@dataclass(frozen=True)
class TiffStack:
    """What a TIFF file's first image says of itself, before a pixel of it is decoded.

    Attributes
    ----------
    path : Path
    shape : tuple of int
    dtype : dtype
    axes : str
        A letter for each axis, as tifffile has them; Q and I are of no known meaning.
    imagej : Mapping
        What ImageJ wrote.
    ome : str
        The XML that OME writes; empty without it.
    per_unit : tuple of float
        Pixels per unit of length along width and height; 0 where it isn't told.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: str
    imagej: Mapping[str, Any]
    ome: str
    per_unit: tuple[float, float]

    def read(self) -> Pixels:
        """The values, of the declared shape and type."""
        with tifffile.TiffFile(self.path) as file:
            return _decoded(self.path, file.series[0])


def open_tiff_stack(path: Path) -> TiffStack:
    """Look at a TIFF file that may hold a volume.

    Raises
    ------
    DataError
        If it is not what it declares, or in colours that a volume can't have.
    """
    _require_chain(path)
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        page: Any = series.keyframe
        if series.dtype is None:
            raise DataError(f"its image has the shape {series.shape}; give depth, height and width")
        if int(page.photometric) not in (_MINISBLACK, _RGB):
            raise DataError("a volume's values are grey or RGB; save it with black as zero")
        _require_honest(page, path.stat().st_size)
        return TiffStack(
            path,
            tuple(int(side) for side in series.shape),
            np.dtype(series.dtype),
            str(series.axes),
            dict(file.imagej_metadata or {}),
            file.ome_metadata or "",
            (_per_unit(page, "XResolution"), _per_unit(page, "YResolution")),
        )


def _per_unit(page: Any, name: str) -> float:
    tag = page.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or not tag.value[1]:
        return 0.0
    return float(tag.value[0]) / float(tag.value[1])


def _decoded(path: Path, series: Any) -> Pixels:
    """A series' values, of the shape and type that it declares."""
    if int(series.keyframe.compression) == _LZW:
        for part in series.pages:
            _require_sound_lzw(path, series.keyframe, part)
    array: Pixels = series.asarray()
    if array.shape != series.shape or array.dtype != series.dtype:
        raise DataError(
            f"it declares {series.shape} values of {series.dtype} and holds {array.shape} of "
            f"{array.dtype}; write it again"
        )
    return array


def tiff_type(path: Path, how: Reading) -> np.dtype[Any]:
    """The type of a TIFF file's values, told by its header; nothing is decoded."""
    _require_chain(path)
    with tifffile.TiffFile(path) as file:
        page: Any = file.series[0].keyframe
        if int(page.photometric) in (_PALETTE, _CMYK) or page.dtype is None:
            return np.dtype(np.uint8)
        dtype: np.dtype[Any] = np.dtype(page.dtype)
        return dtype


def _require_chain(path: Path) -> None:
    """Refuse a file whose list of pages runs in a circle or has no end (TIFF 6.0, section 2)."""
    with path.open("rb") as file:
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 16:
            return  # no TIFF: the decoder says so
        big = struct.unpack(f"{order}H", head[2:4])[0] == _BIG_TIFF
        count_form, entry, next_form = ("Q", 20, "Q") if big else ("H", 12, "I")
        start = 8 if big else 4
        (offset,) = struct.unpack_from(order + next_form, head, start)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) > _MOST_PAGES:
                raise DataError("its list of pages runs in a circle or has no end; write it again")
            seen.add(offset)
            file.seek(offset)
            entries = file.read(struct.calcsize(count_form))
            if len(entries) < struct.calcsize(count_form):
                return
            (count,) = struct.unpack(order + count_form, entries)
            if count > _MOST_PAGES:
                return
            file.seek(count * entry, os.SEEK_CUR)
            following = file.read(struct.calcsize(next_form))
            if len(following) < struct.calcsize(next_form):
                return
            (offset,) = struct.unpack(order + next_form, following)


def _require_honest(page: Any, size: int) -> None:
    """Refuse a page whose parts lie beyond the file, or that is written for no decoder here."""
    if any(
        offset < 0 or count < 0 or offset + count > size
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)
        if count
    ):
        raise DataError("it tells of pixels beyond the end of the file; write it again")
    parts, listed = math.prod(page.chunked), len(page.dataoffsets)
    if listed < parts:
        raise DataError(
            f"it consists of {parts} parts and tells where {listed} lie; write it again"
        )


def _require_sound_lzw(path: Path, page: Any, part: Any) -> None:
    """Refuse damaged LZW data, on some of which the decoder of imagecodecs ends the process.

    libtiff, by Pillow, decodes each segment as a page of bytes, no further than it declares.
    """
    with path.open("rb") as file:
        for index, (offset, size) in enumerate(
            zip(part.dataoffsets, part.databytecounts, strict=False)
        ):
            if not size:
                continue
            _, _, (depth, rows, columns, samples) = page.decode(None, index)
            width = -(-columns * samples * int(page.bitspersample) // 8)
            file.seek(offset)
            content = _page_of_bytes(file.read(size), width, depth * rows)
            with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
                image.load()


def _page_of_bytes(data: bytes, width: int, height: int) -> bytes:
    """A little-endian TIFF file of one strip of LZW data (TIFF 6.0, sections 2 and 13)."""
    place = 8 + 2 + 12 * 9 + 4  # behind the header and a directory of nine entries
    entries = [(256, width), (257, height), (258, 8), (259, _LZW), (262, 1), (273, place)]
    entries += [(277, 1), (278, height), (279, len(data))]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + data


def _bands(array: Pixels, axes: str) -> Pixels:
    keep = [n for n, axis in enumerate(axes) if axis in "YX" or array.shape[n] > 1]
    array = array.reshape([array.shape[n] for n in keep])
    axes = "".join(axes[n] for n in keep)
    others = axes.replace("Y", "").replace("X", "")
    for axis in others:
        if axis in _STACK_AXES:
            raise DataError(
                f"it is a stack of {array.shape[axes.index(axis)]} planes over "
                f"{_STACK_AXES[axis]}, and the network takes images; save each plane as a file of "
                "its own"
            )
    if len(others) == 1 and others in _BAND_AXES:
        return np.moveaxis(array, axes.index(others), -1)
    return bands_last(array)


def _as_displayed(pixels: Pixels, photometric: int, indices: bool) -> Pixels:
    if indices:
        return pixels
    if photometric == _MINISWHITE and pixels.dtype.kind == "b":
        return ~pixels
    if photometric == _MINISWHITE and pixels.dtype.kind == "u":
        return np.iinfo(pixels.dtype).max - pixels
    if photometric == _CMYK:
        if pixels.dtype != np.uint8 or pixels.shape[2] != 4:
            raise DataError("its CMYK colours aren't read; convert it to RGB")
        height, width = pixels.shape[:2]
        image = Image.frombytes("CMYK", (width, height), np.ascontiguousarray(pixels).tobytes())
        return np.asarray(image.convert("RGB"))
    return pixels
