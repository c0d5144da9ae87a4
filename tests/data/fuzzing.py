"""Damaged files by the thousand: what is mutated, how, and what counts as a raw error."""

from __future__ import annotations

import io
import json
import random
import signal
import struct
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from unetcam.data import (
    ClassTable,
    Preprocessing,
    Sample,
    SegmentationDataset,
    find_samples,
    parse_classes,
    read_image,
    read_picture,
)
from unetcam.errors import UnetcamError

LONGEST = 20
"""Seconds that one file may take."""

LONGEST_MESSAGE = 700
TABLE = ClassTable(("background", "cell", "border"))
COLOURS = ClassTable(("background", "cell"), (0, 1), ((0, 0, 0), (255, 255, 255)), 7)

_GREY = np.random.default_rng(0).integers(0, 3, (17, 23), dtype=np.uint8)
_RGB = np.random.default_rng(1).integers(0, 256, (17, 23, 3), dtype=np.uint8)
_VOLUME = np.random.default_rng(2).integers(0, 3, (7, 6, 5)).astype(np.int16)


def _pillow(array: Any, kind: str, mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(array)
    buffer = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def _numpy(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays, **named)
    return buffer.getvalue()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes()


def image_seeds() -> dict[str, tuple[str, bytes]]:
    """Whole files of every format: what they are called, their suffix, their bytes."""
    stack = np.stack([_GREY] * 3)
    seeds = {
        "png": (".png", _pillow(_GREY, "PNG")),
        "png palette": (".png", _pillow(_RGB, "PNG", "P")),
        "png 16": (".png", _pillow(_GREY.astype(np.uint16) * 999, "PNG")),
        "png rgba": (".png", _pillow(_RGB, "PNG", "RGBA", exif=_exif())),
        "jpeg": (".jpg", _pillow(_RGB, "JPEG", exif=_exif())),
        "jpeg cmyk": (".jfif", _pillow(_RGB, "JPEG", "CMYK")),
        "webp": (".webp", _pillow(_RGB, "WEBP", lossless=True)),
        "bmp": (".bmp", _pillow(_RGB, "BMP")),
        "gif": (".gif", _pillow(_GREY, "GIF")),
        "ppm": (".ppm", _pillow(_RGB, "PPM")),
        "pgm": (".pgm", b"P2\n# grey\n3 2\n9\n0 1 2\n3 4 9\n"),
        "npy": (".npy", _numpy(np.save, _GREY)),
        "npy float": (".npy", _numpy(np.save, _RGB.astype(np.float64))),
        "npz": (".npz", _numpy(np.savez_compressed, image=_RGB, mask=_GREY)),
    }
    for name, options in {
        "plain": {},
        "lzw": {"compression": "lzw", "predictor": True},
        "deflate": {"compression": "deflate"},
        "zstd": {"compression": "zstd"},
        "packbits": {"compression": "packbits"},
        "tiled": {"tile": (16, 16)},
        "big": {"bigtiff": True},
        "white": {"photometric": "miniswhite"},
    }.items():
        seeds[f"tiff {name}"] = (".tif", _tiff(_GREY, **options))
    seeds["tiff rgb"] = (".tif", _tiff(_RGB, photometric="rgb"))
    seeds["tiff planar"] = (".tif", _tiff(stack, photometric="rgb", planarconfig="separate"))
    seeds["tiff pages"] = (".tiff", _tiff(stack.astype(np.float32), compression="lzw"))
    solid = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    seeds["tiff ome"] = (
        ".tif",
        _tiff(stack, ome=True, metadata=solid, photometric="minisblack"),
    )
    seeds["npy solid"] = (".npy", _numpy(np.save, stack))
    seeds["tiff imagej"] = (".tif", _tiff(stack, imagej=True))
    return seeds


def volume_seeds(folder: Path) -> dict[str, tuple[str, bytes]]:
    """Whole NIfTI and NRRD files."""
    import nibabel
    import nrrd

    seeds = {}
    scaled = nibabel.Nifti1Header()
    scaled.set_data_dtype("int16")
    for name, suffix, image in (
        ("nifti", ".nii", nibabel.Nifti1Image(_VOLUME, np.diag([2.0, 1, 3, 1]))),
        ("nifti packed", ".nii.gz", nibabel.Nifti1Image(_VOLUME.astype(np.float32), np.eye(4))),
        ("nifti 2", ".nii", nibabel.Nifti2Image(_VOLUME, np.eye(4))),
        ("nifti slope", ".nii", nibabel.Nifti1Image(_VOLUME.astype(float), np.eye(4), scaled)),
    ):
        path = folder / f"v{suffix}"
        nibabel.save(image, path)
        seeds[name] = (suffix, path.read_bytes())
    for encoding in ("raw", "gzip", "bzip2", "ASCII"):
        path = folder / "v.nrrd"
        header = {"encoding": encoding, "space": "left-posterior-superior"}
        header["space directions"] = np.eye(3)  # type: ignore[assignment]
        nrrd.write(str(path), _VOLUME, header)
        seeds[f"nrrd {encoding}"] = (".nrrd", path.read_bytes())
    return seeds


def text_seeds() -> dict[str, tuple[str, bytes]]:
    """Class files and manifests."""
    records = [{"id": i, "name": n, "color": [i, i, i]} for i, n in enumerate("abc")]
    texts = {
        "classes txt": (".txt", "background\ncell\nborder\n"),
        "classes cvat": (".txt", "# label:color_rgb:parts:actions\na:0,0,0::\nb:1,2,3::\n"),
        "classes csv": (".csv", "name,value,colour\na,0,#000000\nb,1,#ffffff\nignore,255,\n"),
        "classes json": (".json", json.dumps({"categories": records})),
        "classes nnunet": (".json", json.dumps({"labels": {"a": 0, "b": 1, "ignore": 2}})),
        "classes yaml": (".yaml", "nc: 3\nnames: [a, b, c]\nignore_index: 255\n"),
        "classes yaml mapping": (".yml", "classes:\n  a: [0, 4]\n  b: 1\n"),
        "manifest csv": (".csv", "image,mask,id\na.png,b.png,one\nc.png,d.png,two\n"),
        "manifest json": (
            ".json",
            json.dumps([{"image": "a.png", "mask": {"a": "b.png", "b": "c.png"}, "id": "x"}]),
        ),
    }
    return {name: (suffix, text.encode()) for name, (suffix, text) in texts.items()}


_NUMBERS = (0, 1, -1, 2, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, -(2**31), 2**32 - 1)
_WORDS = (
    *(b"\0", b"\xff\xff\xff\xff", b"NaN", b"inf", b"-1", b"9" * 30, b"9" * 5000, b"1e308", b"{}"),
    *(b'"\\ud800"', "\u202e\u0000é".encode(), b"[" * 300, b"../" * 40, b"a" * 5000, b"null"),
    *(b"true", b"&a [*a]", b"\r\n", b",,,", b'""', b"0x10", b"!!python/object:os.system x"),
)


def mutate(content: bytes, draw: random.Random) -> bytes:
    """One to four changes of a file: bytes, numbers, cuts, doubles, foreign words."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        # headers lie at the front, and directories of TIFF and zip at the end
        place = draw.choice((draw.randrange(len(data)), draw.randrange(min(len(data), 400))))
        kind = draw.randrange(8)
        if kind == 0:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[place] = draw.randrange(256)
        elif kind == 2:
            form = draw.choice(("<H", ">H", "<I", ">I", "<q", ">q", "<f", "<d"))
            number = draw.choice(_NUMBERS)
            size = struct.calcsize(form)
            bits = 8 * size
            packed = (
                struct.pack(form, float(number))
                if form[1] in "fd"
                else (number % 2**bits).to_bytes(size, "little" if form[0] == "<" else "big")
            )
            data[place : place + size] = packed
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            del data[place : place + draw.randrange(1, 40)]
        elif kind == 5:
            data[place:place] = data[place : place + draw.randrange(1, 200)]
        elif kind == 6:
            data[place:place] = draw.choice(_WORDS)
        else:
            end = min(len(data), place + draw.randrange(1, 64))
            data[place:end] = bytes([draw.choice((0, 255, 32, 48))]) * (end - place)
    return bytes(data)


class TooLongError(BaseException):
    """A file took longer than it may; no reader's `except Exception` may hide it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `TooLongError` after so many seconds."""

    def stop(_: int, __: Any) -> None:
        raise TooLongError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _use(path: Path, draw: random.Random, kind: str) -> None:
    if kind.startswith("classes"):
        parse_classes(str(path))
    elif kind.startswith("manifest"):
        samples, _ = find_samples(manifest=path, classes=TABLE)
        dataset = SegmentationDataset(samples, TABLE, Preprocessing(channels=1))
        for index in range(min(len(dataset), 3)):
            _ = dataset[index]
    elif kind.startswith(("nifti", "nrrd")):
        samples, _ = find_samples(path)
        if samples:
            read_picture(path, plane=samples[-1].plane, indices=draw.random() < 0.5)
        read_picture(path, orientation=draw.choice(("RAS", "file")))
    elif path.suffix in (".tif", ".tiff", ".npy", ".npz") and draw.random() < 0.4:
        axes = draw.choice((None, None, "ZYX", "CZYX"))
        read_picture(path, orientation="SPR", axes=axes, indices=draw.random() < 0.5)
    elif draw.random() < 0.5:
        read_image(path, channels=draw.choice((None, 1, 3)))
    else:
        table = draw.choice((TABLE, COLOURS))
        sample = Sample("a", path, path)
        _ = SegmentationDataset([sample], table, Preprocessing(channels=draw.choice((1, 3))))[0]


def fault_of(path: Path, content: bytes, kind: str, draw: random.Random) -> str | None:
    """What is wrong with how a damaged file is met; None where it is read or told in a line."""
    path.write_bytes(content)
    try:
        with warnings.catch_warnings(), time_limit(LONGEST):
            warnings.simplefilter("ignore")
            _use(path, draw, kind)
    except UnetcamError as error:
        text = str(error)
        if not text or "\n" in text or len(text) > LONGEST_MESSAGE:
            return f"a message of {len(text)} characters: {text[:200]!r}"
        return None
    except (Exception, TooLongError) as error:
        return "".join(traceback.format_exception(error))[-900:]
    return None
