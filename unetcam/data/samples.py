"""What is to be read, and what could not be: the two records that every later step hands on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from unetcam.data.files import readable
from unetcam.errors import DataError, sentence

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
    image : Path or None
        The image's file; None for an image that lies in memory.
    mask : Path, tuple of Path or None
        One mask, or one binary file per class, or no ground truth.
    plane : int or None
        The slice of a volume: of NIfTI and NRRD axial, counted from the feet; None for any other
        file, and for a whole volume.
    mask_classes : tuple of int
        Class index of each file when `mask` is a tuple; empty otherwise.
    unlabelled : int
        With one file per class: the class index of the pixels that no file claims. It is 0 where
        class 0 has no files in the data set (a background), and ``IGNORE`` otherwise.
    orientation : str or None
        Where the three axes of a whole volume run to, as in ``"RAS"``; None for anything else.
    axes : str or None
        What the axes of a whole volume in a TIFF or NumPy file are, where that was said.
    """

    id: str
    image: Path | None
    mask: Path | tuple[Path, ...] | None = None
    plane: int | None = None
    mask_classes: tuple[int, ...] = ()
    unlabelled: int = 0
    orientation: str | None = None
    axes: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the sample is read from, the image first; empty in memory.

        Examples
        --------
        >>> [str(file) for file in Sample("a", Path("a.png"), Path("m/a.png")).files]
        ['a.png', 'm/a.png']
        """
        return (() if self.image is None else (self.image,)) + self.mask_files

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """Every file that the ground truth is read from."""
        if self.mask is None:
            return ()
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)

    @property
    def file(self) -> str:
        """The image's path as text that can be printed; its id where it lies in memory."""
        return self.id if self.image is None else readable(self.image)


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
    options : tuple of str
        The options that the reason speaks of, as an error has them.
    """

    id: str
    file: str
    reason: str
    options: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", sentence(self.reason))


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
    unetcam.errors.DataError: No image is left to work on: 1 was skipped ('a.png' is empty).
    """
    if samples:
        return
    if not skipped:
        raise DataError(
            "no image was found; give a folder with images (PNG, JPEG, TIFF and so on), NumPy "
            "arrays or volumes"
        )
    first = "; ".join(entry.reason.rstrip(".") for entry in skipped[:3])
    rest = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    was = "was" if len(skipped) == 1 else "were"
    raise DataError(
        f"no image is left to work on: {len(skipped)} {was} skipped ({first}{rest})",
        option=tuple(dict.fromkeys(name for entry in skipped[:3] for name in entry.options)),
    )
