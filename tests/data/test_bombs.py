"""Small files that claim or unpack to far more: refused before they are decoded."""

from __future__ import annotations

import contextlib
import gzip
import resource
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from unetcam.data import (
    ClassTable,
    Item,
    Preprocessing,
    Skipped,
    open_source,
    read_image,
    read_picture,
)
from unetcam.errors import DataError

MEMORY = 2**19
"""KiB that a refusal may cost."""


def refused(path: Path, words: str = "max_pixels=") -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError) as error:
        read_picture(path, orientation="file")
    assert words in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def png_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_images_that_claim_many_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_of(11585, 11585))
    refused(path)
    for kind, suffix in (("BMP", "bmp"), ("GIF", "gif"), ("PPM", "ppm"), ("JPEG", "jpg")):
        small = tmp_path / f"b.{suffix}"
        Image.fromarray(np.zeros((77, 99), np.uint8)).save(small, kind)
        content = small.read_bytes()
        for old, new in ((99, 65000), (77, 65000)):
            for form in ("<H", ">H"):
                content = content.replace(struct.pack(form, old), struct.pack(form, new))
        small.write_bytes(content.replace(b"99 77", b"65000 65000"))
        with pytest.raises(DataError):
            read_image(small)


def test_arrays_are_counted_in_bytes(tmp_path: Path) -> None:
    head = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1)))
    for dtype, bands in (("<f8", 8), ("|u1", 70)):
        path = tmp_path / f"{bands}.npy"
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {**head, "shape": (4000, 4000, bands), "descr": dtype}
            )
        refused(path)
    np.savez_compressed(tmp_path / "a.npz", np.zeros((3000, 3000, 8)))
    refused(tmp_path / "a.npz")


@pytest.mark.parametrize("compression", [8, 34925])
def test_a_strip_that_unpacks_to_more_than_it_declares(tmp_path: Path, compression: int) -> None:
    import lzma

    zeros = bytes(2**27)
    strip = zlib.compress(zeros) if compression == 8 else lzma.compress(zeros, preset=0)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        tags = file.pages[0].tags
        end = path.stat().st_size
        tags["Compression"].overwrite(compression)
        tags["StripOffsets"].overwrite(end)
        tags["StripByteCounts"].overwrite(len(strip))
    with path.open("ab") as file_end:
        file_end.write(strip)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(DataError):  # some decoders notice
        assert read_image(path).shape == (16, 16, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def test_a_tiff_that_lies_about_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["StripByteCounts"].overwrite(2**31)
    refused(path, "beyond the end of the file")
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), metadata=None)
    with tifffile.TiffFile(path) as file:
        following = file.pages[0].offset + 2 + 12 * len(file.pages[0].tags)
    content = bytearray(path.read_bytes())
    content[following : following + 4] = content[4:8]
    path.write_bytes(content)
    refused(path, "runs in a circle")
    tifffile.imwrite(path, np.zeros((32, 32), np.uint8), tile=(16, 16), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(2_000_000)
    refused(path, "and tells where 4 lie")


def test_volumes_that_unpack_to_more_than_is_held(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    header = nibabel.Nifti1Header()
    header.set_data_shape((900, 900, 900))
    header.set_data_dtype("float64")
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(header.binaryblock + bytes(2**20)))
    refused(path)


NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 5 6\nendian: little\nencoding: {}\n{}\n"


def test_nrrd_takes_no_more_than_it_declares(tmp_path: Path) -> None:
    pytest.importorskip("nrrd")
    values = np.arange(120, dtype="<i2").reshape(6, 5, 4)
    packed = gzip.compress(values.tobytes() + bytes(2**27), 1)
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.format("gzip", "").encode() + packed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read = read_picture(path, orientation="file").pixels
    np.testing.assert_array_equal(read[..., 0], values.T)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**16
    for skip in ("line skip: 9999999999\n", "byte skip: 99999999999\n", "byte skip: -9\n"):
        path.write_bytes(NRRD.format("raw", skip).encode() + values.tobytes())
        started = time.monotonic()
        refused(path, "mend its header")
        assert time.monotonic() - started < 20  # a hang, and no timing
    path.write_bytes(NRRD.format("raw", "byte skip: -1\n").encode() + b"?" * 7 + values.tobytes())
    read = read_picture(path, orientation="file").pixels
    np.testing.assert_array_equal(read[..., 0], values.T)


def test_the_limit_is_a_persons_to_set_and_knows_tiles(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / folder / "a.png")
    classes = ClassTable(("background", "cell"))
    kinds = {}
    for pixels, tiled in ((2000, False), (1999, False), (500, True), (499, True)):
        source = open_source(
            (tmp_path / "images", tmp_path / "masks"),
            classes=classes,
            max_pixels=pixels,
            tiled=tiled,
        )
        kinds[pixels] = source.dataset(Preprocessing(channels=1))[0]
    assert isinstance(kinds[2000], Item)
    assert isinstance(kinds[500], Item)
    for pixels in (1999, 499):
        entry = kinds[pixels]
        assert isinstance(entry, Skipped)
        assert entry.options == ("max_pixels",)
    with pytest.raises(DataError, match="max_pixels=0 leaves no image"):
        open_source(tmp_path / "images", max_pixels=0)


DAMAGED_LZW = """
import random, sys
from pathlib import Path
from unetcam.data import read_image
from unetcam.errors import DataError
path, start, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
whole, draw, refused = path.read_bytes(), random.Random(0), 0
crashing = bytes.fromhex("8000000801fc0a090200102010a8143213088441")  # for imagecodecs 2026.3.6
path.write_bytes(whole[:start] + crashing + whole[start + len(crashing):])
try:
    read_image(path)
except DataError:
    refused += 1000
for _ in range(300):
    content = bytearray(whole)
    for place in draw.sample(range(start, end), 3):
        content[place] = draw.randrange(256)
    path.write_bytes(content)
    try:
        read_image(path)
    except DataError:
        refused += 1
print(refused)
"""


def test_damaged_lzw_data_does_not_end_the_process(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 3, (17, 23, 3)).astype(np.float32)
    tifffile.imwrite(path, pixels, photometric="rgb", compression="lzw", metadata=None)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        start, size = page.dataoffsets[0], page.databytecounts[0]
    arguments = [sys.executable, "-c", DAMAGED_LZW, str(path), str(start), str(start + size)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 1050
