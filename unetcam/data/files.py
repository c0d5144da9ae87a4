"""Files and their names on a disk: what pairs, what is shown, and what can be opened at all."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from unetcam.errors import DataError, UnetcamError, is_own_bug

_LONG_SUFFIXES: Final = {".nii.gz"}
_HEAD: Final = 512


def readable(text: str | os.PathLike[str]) -> str:
    r"""A path as text that can be printed and written on any machine.

    Names on a disk may hold bytes that are no text and characters that break a line; both are
    replaced by an escape.

    Examples
    --------
    >>> readable("zellen/bild 1.png")
    'zellen/bild 1.png'
    >>> readable("a\nb.png")
    'a\\nb.png'
    """
    name = os.fspath(text)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in name
    )


def short(text: str, most: int = 80) -> str:
    """Text of a file, cut so that a message stays a line.

    Examples
    --------
    >>> short("a" * 200, most=12)
    'aaaaaaaaa...'
    """
    return text if len(text) <= most else text[: most - 3] + "..."


def shown(path: Path) -> str:
    """A file's name in quotes, for messages.

    Examples
    --------
    >>> shown(Path("images/a.png"))
    "'a.png'"
    """
    name = readable(path.name)
    return f"'{name}'" if len(name) <= 120 else f"'{name[:80]}...{name[-30:]}'"


def keep_whole(suffixes: Iterable[str]) -> None:
    """Let :func:`split_suffix` take each of these that has several parts for one suffix.

    Parameters
    ----------
    suffixes : iterable of str
        In lower case, with their dots.
    """
    _LONG_SUFFIXES.update(one for one in suffixes if one.count(".") > 1)


def split_suffix(name: str) -> tuple[str, str]:
    """A file name's stem, and its suffix in lower case.

    A suffix of several parts that a format has, as ``.nii.gz``, is one suffix.

    The stem is brought to Unicode's composed form (NFC), so that a name written on macOS pairs
    with the same name written elsewhere.

    Examples
    --------
    >>> split_suffix("Brain.01.NII.GZ")
    ('Brain.01', '.nii.gz')
    >>> split_suffix("cell.PNG")
    ('cell', '.png')
    """
    long = [suffix for suffix in _LONG_SUFFIXES if name.lower().endswith(suffix)]
    extension = max(long, key=len, default=os.path.splitext(name)[1])
    stem = name[: len(name) - len(extension)]
    return unicodedata.normalize("NFC", stem), extension.lower()


def key_of(relative: Path) -> str:
    """A relative path without its suffix, with forward slashes: what images and masks pair by.

    Examples
    --------
    >>> key_of(Path("ward/p1.tiff"))
    'ward/p1'
    """
    folders = [unicodedata.normalize("NFC", part) for part in relative.parent.parts]
    return "/".join([*folders, split_suffix(relative.name)[0]])


def require_file(path: Path) -> None:
    """Make sure that a path is a file that can be opened without waiting.

    Raises
    ------
    DataError
        If nothing is there, a link leads nowhere, it is a folder, a pipe or a device, it is
        empty, or no file can be called so.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, OSError) and _is_link(path):
            raise DataError(
                f"{shown(path)} is a link to a file that does not exist; mend or remove the link"
            ) from error
        cause = "does not exist" if isinstance(error, FileNotFoundError) else "can't be opened"
        raise DataError(f"{shown(path)} {cause}; check the path and its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{shown(path)} is no regular file; give an image file")
    if status.st_size == 0:
        raise DataError(f"{shown(path)} is empty (0 bytes); write it again")


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def mistaken_for(path: Path) -> str | None:
    """What a file is that only bears the name of data: the end of a sentence, or None.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.png"
    ...     _ = file.write_text("version https://git-lfs.github.com/spec/v1")
    ...     mistaken_for(file)
    'it is a Git LFS pointer and not the data; fetch the file with "git lfs pull"'
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    text = head.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return 'it is a Git LFS pointer and not the data; fetch the file with "git lfs pull"'
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is an HTML page and not the data; download the file itself"
    suffix = split_suffix(path.name)[1]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        head = b"RIFFWEBP"
    known = next((entry for entry in _MAGIC if head.startswith(entry[0])), None)
    if known is None or suffix.endswith(known[2]):
        return None
    return f"it begins like a {known[1]} file; give it the suffix of its kind"


_TIFF: Final = (".tif", ".tiff")
_MAGIC: Final[tuple[tuple[bytes, str, tuple[str, ...]], ...]] = (
    (b"\x89PNG", "PNG", (".png",)),
    (b"\xff\xd8\xff", "JPEG", (".jpg", ".jpeg", ".jfif", ".jpe")),
    (b"II*\0", "TIFF", _TIFF),
    (b"MM\0*", "TIFF", _TIFF),
    (b"II+\0", "TIFF", _TIFF),
    (b"GIF8", "GIF", (".gif",)),
    (b"RIFFWEBP", "WebP", (".webp",)),
    (b"BM", "BMP", (".bmp", ".dib")),
    (b"\x93NUMPY", "NumPy", (".npy",)),
    (b"PK\x03\x04", "zip", (".npz",)),
    (b"NRRD", "NRRD", (".nrrd",)),
    (b"\x1f\x8b", "gzip", (".gz",)),
    (b"\x89HDF", "HDF5", ()),
    (b"%PDF", "PDF", ()),
)


@contextmanager
def decoding(path: Path, kind: str) -> Iterator[None]:
    """Whatever a decoder raises for a damaged file becomes a `DataError` that names the file.

    Decoders of six libraries raise every kind of exception for a file that is damaged. The cause
    stays chained to the error. A slip in this package's own code is not taken for damage.

    Parameters
    ----------
    path : Path
        The file, for the message.
    kind : str
        What it should be.
    """
    try:
        yield
    except UnetcamError as error:
        if shown(path) in str(error):
            raise
        raise DataError(
            f"{shown(path)} can't be read: {error.clause}", option=error.options
        ) from error
    except MemoryError as error:
        raise DataError(f"{shown(path)} does not fit into memory; cut it into tiles") from error
    except Exception as error:
        if is_own_bug(error):
            raise
        try:
            known = mistaken_for(path)
        except OSError:
            known = None
        cause = known or (
            "it is damaged, cut short, or of another format than its name says; write it again"
        )
        raise DataError(f"{shown(path)} can't be read as {kind}; {cause}") from error
