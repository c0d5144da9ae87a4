"""A format that is added is found, paired, read and named as those that are there."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from unetcam.data import files, formats, read_image
from unetcam.data.pictures import Picture, Reading
from unetcam.errors import DataError

SQUARE = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)


def read_square(path: Path, reading: Reading) -> Picture:
    values = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
    return Picture(values.reshape(4, 4, 1))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS])
    monkeypatch.setattr(formats, "_BY_SUFFIX", {**formats._BY_SUFFIX})
    monkeypatch.setattr(files, "_LONG_SUFFIXES", {*files._LONG_SUFFIXES})


@pytest.mark.usefixtures("registry")
def test_a_suffix_of_several_parts_is_one(tmp_path: Path) -> None:
    formats.register(formats.Format("square", (".sq8.gz",), read_square))
    path = tmp_path / "a.b.SQ8.gz"
    path.write_bytes(gzip.compress(SQUARE.tobytes()))
    assert formats.walk(tmp_path) == ([path], [])
    assert files.key_of(Path("ward", path.name)) == "ward/a.b"
    np.testing.assert_array_equal(read_image(path), SQUARE)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"can't be read as square; it is damaged"):
        read_image(path)
    assert formats.format_names().endswith("NRRD or square")


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("suffix", ["sq8", ".SQ8"])
def test_a_suffix_that_no_file_could_have_is_refused(suffix: str) -> None:
    with pytest.raises(DataError, match=f"suffix '{suffix}'; write it in lower case, with its dot"):
        formats.register(formats.Format("square", (suffix,), read_square))
