"""What is to be read, and what could not be: the two records that every later step hands on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from unetcam.errors import DataError

IGNORE: Final = -1
"""The class index of a pixel that no number may stand on."""


@dataclass(frozen=True)
class Sample:
    """One image and where its ground truth lies; nothing is read yet.

    Attributes
    ----------
    id : str
        Unique name within the data set: the path below the image folder without its suffix,
        with ``#z012`` behind it for a slice of a volume.
    image : Path
        The image's file.
    mask : Path, tuple of Path or None
        One mask, or one binary file per class, or no ground truth.
    plane : int or None
        The axial slice of a NIfTI or NRRD volume, counted from the feet; None for any other file,
        and for a whole volume.
    mask_classes : tuple of int
        Class index of each file when `mask` is a tuple; empty otherwise.
    unlabelled : int
        With one file per class: the class index of the pixels that no file claims. It is 0 where
        class 0 has no files in the data set (a background), and ``IGNORE`` otherwise.
    orientation : str or None
        Where the three axes of a whole volume run to, as in ``"RAS"``; None for anything else.
    """

    id: str
    image: Path
    mask: Path | tuple[Path, ...] | None = None
    plane: int | None = None
    mask_classes: tuple[int, ...] = ()
    unlabelled: int = 0
    orientation: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the sample is read from, the image first.

        Examples
        --------
        >>> [str(file) for file in Sample("a", Path("a.png"), Path("m/a.png")).files]
        ['a.png', 'm/a.png']
        """
        if self.mask is None:
            return (self.image,)
        return (self.image, *(self.mask if isinstance(self.mask, tuple) else (self.mask,)))


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used.

    Attributes
    ----------
    id : str
        The sample's id, or the file's name where there is no sample yet.
    file : str
        The file's path as it was given.
    reason : str
        One sentence: what was wrong, and what to do.
    """

    id: str
    file: str
    reason: str


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


def shown(path: Path) -> str:
    """A file's name in quotes, for messages.

    Examples
    --------
    >>> shown(Path("images/a.png"))
    "'a.png'"
    """
    return f"'{readable(path.name)}'"


def require_any(samples: Sequence[Sample], skipped: Sequence[Skipped]) -> None:
    """Fail when nothing is left to work on.

    Parameters
    ----------
    samples : sequence of Sample
        What can still be used.
    skipped : sequence of Skipped
        What could not, for the message.

    Raises
    ------
    DataError
        If `samples` is empty; the message counts what was skipped and gives the first three
        reasons.

    Examples
    --------
    >>> require_any([], [Skipped("a", "a.png", "'a.png' is empty")])
    Traceback (most recent call last):
    ...
    unetcam.errors.DataError: no image is left to work on: 1 was skipped ('a.png' is empty)
    """
    if samples:
        return
    if not skipped:
        raise DataError(
            "no image was found; give a folder with PNG, JPEG, TIFF, NPY, NPZ, NIfTI or NRRD files"
        )
    first = "; ".join(entry.reason for entry in skipped[:3])
    rest = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    was = "was" if len(skipped) == 1 else "were"
    raise DataError(f"no image is left to work on: {len(skipped)} {was} skipped ({first}{rest})")
