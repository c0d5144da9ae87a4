"""Which files of a folder are images, and what they are called."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection
from pathlib import Path

from unetcam.data.samples import Skipped, readable, shown
from unetcam.errors import DataError

PILLOW_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
TIFF_SUFFIXES = frozenset({".tif", ".tiff"})
NUMPY_SUFFIXES = frozenset({".npy", ".npz"})
VOLUME_SUFFIXES = frozenset({".nii", ".nii.gz", ".nrrd"})
IMAGE_SUFFIXES = PILLOW_SUFFIXES | TIFF_SUFFIXES | NUMPY_SUFFIXES | VOLUME_SUFFIXES

# Images of another kind are named in the report; anything else in the folder (notes, tables,
# system files) is no business of ours.
_OTHER_IMAGES = frozenset(
    {".bmp", ".gif", ".webp", ".heic", ".avif", ".jp2", ".dcm", ".nhdr", ".mha", ".mhd"}
    | {".svs", ".czi", ".lif", ".h5", ".hdr", ".img"}
)
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir"})


def split_suffix(name: str) -> tuple[str, str]:
    """A file name's stem, and its suffix in lower case; ``.nii.gz`` is one suffix.

    The stem is brought to Unicode's composed form (NFC), so that a name written on macOS pairs
    with the same name written elsewhere.

    Examples
    --------
    >>> split_suffix("Brain.01.NII.GZ")
    ('Brain.01', '.nii.gz')
    >>> split_suffix("cell.PNG")
    ('cell', '.png')
    """
    if name.lower().endswith(".nii.gz"):
        stem, suffix = name[:-7], ".nii.gz"
    else:
        stem, extension = os.path.splitext(name)
        suffix = extension.lower()
    return unicodedata.normalize("NFC", stem), suffix


def is_volume(path: Path) -> bool:
    """Whether a file is a NIfTI or NRRD volume, by its name.

    Examples
    --------
    >>> is_volume(Path("t1.nii.gz")), is_volume(Path("t1.png"))
    (True, False)
    """
    return split_suffix(path.name)[1] in VOLUME_SUFFIXES


def is_nrrd(path: Path) -> bool:
    """Whether a file is an NRRD volume, by its name.

    Examples
    --------
    >>> is_nrrd(Path("t1.NRRD")), is_nrrd(Path("t1.nii"))
    (True, False)
    """
    return split_suffix(path.name)[1] == ".nrrd"


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
        If nothing is there, a link leads nowhere, it is a folder, a pipe or a device, or it is
        empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        if path.is_symlink():
            raise DataError(
                f"{shown(path)} is a link to a file that does not exist; mend or remove the link"
            ) from error
        cause = "does not exist" if isinstance(error, FileNotFoundError) else "can't be opened"
        raise DataError(f"{shown(path)} {cause}; check the path and its permissions") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{shown(path)} is no regular file; give an image file")
    if status.st_size == 0:
        raise DataError(f"{shown(path)} is empty (0 bytes); write it again")


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
            if suffix in IMAGE_SUFFIXES:
                files.append(path)
            elif suffix in _OTHER_IMAGES:
                reason = (
                    f"{shown(path)} is of a kind that isn't read ({suffix}); convert it to PNG, "
                    "TIFF, NPY, NIfTI or NRRD"
                )
                skipped.append(
                    Skipped(readable(key_of(path.relative_to(folder))), readable(path), reason)
                )
    return sorted(files), skipped
