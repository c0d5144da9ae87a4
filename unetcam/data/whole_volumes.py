"""Whole volumes for 3-D networks, and maps that lie where the volume lies."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unetcam.data.formats import is_nrrd, is_volume
from unetcam.data.images import Pixels
from unetcam.data.samples import Sample, Skipped, readable, shown
from unetcam.data.volumes import Volume, open_volume
from unetcam.errors import DataError

AS_STORED: Final = "file"
"""The orientation that leaves the axes of the file as they are."""

_OPPOSITES = ("LR", "PA", "IS")


@dataclass(frozen=True, eq=False)
class WholeVolume:
    """A volume with its axes in a known order, and the way back to the file's own voxels."""

    _volume: Volume
    _turn: NDArray[np.float64]
    _back: NDArray[np.float64]
    _suffix: str
    _indices: bool

    @cached_property
    def values(self) -> Pixels:
        """(D, H, W, C) voxels as the file has them, along the axes that were asked for.

        They are read when they are first asked for.
        """
        voxels = self._volume.whole(indices=self._indices)
        return np.ascontiguousarray(_orientations().apply_orientation(voxels, self._turn))

    @property
    def suffix(self) -> str:
        """What a file of maps ends in: ``.nrrd`` or ``.nii.gz``, as the volume's own kind."""
        return self._suffix

    def encoded(self, maps: NDArray[Any]) -> bytes:
        """A file of a map or of labels (D, H, W) for the voxels of the volume, of their type.

        It has the file's own order of axes, spacing and place, so that a viewer lays it over the
        volume.
        """
        turned = _orientations().apply_orientation(maps, self._back)
        stored = np.ascontiguousarray(turned)
        image: Any = self._volume.image
        if self._suffix == ".nrrd":
            encoded: bytes = image.beside(stored)
            return encoded
        header = image.header.copy()
        header.set_data_dtype(stored.dtype)
        # What tells how to show the volume's values, or what they mean, says nothing of a map's.
        for name in ("cal_max", "cal_min", "intent_code"):
            header[name] = 0
        made = type(image)(stored, image.affine, header)
        return gzip.compress(made.to_bytes(), mtime=0)


def read_whole(path: Path, orientation: str = "RAS", *, indices: bool = False) -> WholeVolume:
    """Read a whole volume.

    Parameters
    ----------
    path : Path
        A ``.nii``, ``.nii.gz`` or ``.nrrd`` file.
    orientation : str
        Where the three axes shall run to, as in ``"RAS"``: right, anterior (front), superior
        (up), or L, P and I for the other way; in any order. ``"file"`` leaves the axes as they
        are stored. Oblique axes are taken for the nearest; no voxel is interpolated.
    indices : bool
        Read class indices: truth values as 0 and 1.

    Returns
    -------
    WholeVolume

    Raises
    ------
    DataError
        If the volume can't be read, or for an orientation that is none.
    """
    check_orientation(orientation)
    volume = Volume(path)
    known = _orientations()
    stored = wanted = _stored(volume)
    if orientation != AS_STORED:
        wanted = known.axcodes2ornt(tuple(orientation.upper()))
    turn, back = known.ornt_transform(stored, wanted), known.ornt_transform(wanted, stored)
    suffix = ".nrrd" if is_nrrd(path) else ".nii.gz"
    return WholeVolume(volume, turn, back, suffix, indices)


def stored_orientation(path: Path) -> str:
    """Where the axes of a volume run to as they are stored, as in ``"LPS"``.

    Raises
    ------
    DataError
        If the volume can't be read.
    """
    codes = _orientations().ornt2axcodes(_stored(open_volume(path)))
    return "".join(codes)


def _stored(volume: Volume) -> NDArray[np.float64]:
    stored: NDArray[np.float64] = _orientations().io_orientation(volume.image.affine)
    return stored


def _orientations() -> Any:
    """What nibabel knows of orientations; that it is installed was seen as the volume opened."""
    from nibabel import orientations

    return orientations


def check_orientation(orientation: str) -> None:
    """Raise a :class:`~unetcam.errors.DataError` for an orientation that is none.

    Examples
    --------
    >>> check_orientation("SPL")
    >>> check_orientation("RAL")
    Traceback (most recent call last):
    ...
    unetcam.errors.DataError: 'RAL' is no orientation: give three letters, one of L and R, one of
    P and A and one of I and S, as in RAS, or 'file' for the axes as they are stored
    """
    letters = orientation.upper()
    axes = sorted("".join(pair) for pair in _OPPOSITES for one in letters if one in pair)
    if orientation != AS_STORED and (len(letters) != 3 or axes != sorted(_OPPOSITES)):
        raise DataError(
            f"'{orientation}' is no orientation: give three letters, one of L and R, one of P and "
            "A and one of I and S, as in RAS, or 'file' for the axes as they are stored"
        )


_SAME_PLACE = 0.5
"""Corners of image and mask may lie this share of a voxel's side apart."""


def expand_volumes(samples: list[Sample]) -> tuple[list[Sample], list[Skipped]]:
    """Replace each sample of a NIfTI or NRRD volume by one per axial slice.

    Parameters
    ----------
    samples : list of Sample
        Samples as they were found.

    Returns
    -------
    samples : list of Sample
        Those of other formats as they were; a volume's slices with the id ``volume#z012``.
    skipped : list of Skipped
        Volumes that can't be read, and those whose mask has another shape or lies elsewhere.
    """
    expanded: list[Sample] = []
    skipped: list[Skipped] = []
    for sample in samples:
        if not is_volume(sample.image):
            expanded.append(sample)
            continue
        try:
            planes = _checked_planes(sample)
        except DataError as error:
            skipped.append(Skipped(sample.id, readable(sample.image), str(error)))
            continue
        width = max(3, len(str(planes - 1)))
        expanded += [
            replace(sample, id=f"{sample.id}#z{plane:0{width}d}", plane=plane)
            for plane in range(planes)
        ]
    return expanded, skipped


def whole_volumes(
    samples: Sequence[Sample], orientation: str = "RAS"
) -> tuple[list[Sample], list[Skipped]]:
    """The volumes that slices come from, each once, to be read whole.

    Parameters
    ----------
    samples : sequence of Sample
        What `find_samples` found.
    orientation : str
        Where the axes shall run to; see :func:`read_whole`. ``"file"`` is that of
        each image, for its masks as well.

    Returns
    -------
    samples : list of Sample
        In their order.
    skipped : list of Skipped
        What is no volume.

    Raises
    ------
    DataError
        For an orientation that is none.
    """
    check_orientation(orientation)
    volumes: dict[str, Sample] = {}
    skipped: list[Skipped] = []
    for sample in samples:
        if not is_volume(sample.image):
            reason = (
                f"{shown(sample.image)} is no volume, and the network is three-dimensional; give "
                "NIfTI or NRRD"
            )
            skipped.append(Skipped(sample.id, readable(sample.image), reason))
            continue
        name = sample.id if sample.plane is None else sample.id.rpartition("#")[0]
        if name not in volumes:
            stored = orientation == AS_STORED
            axes = stored_orientation(sample.image) if stored else orientation.upper()
            volumes[name] = replace(sample, id=name, plane=None, orientation=axes)
    return list(volumes.values()), skipped


def _checked_planes(sample: Sample) -> int:
    image = open_volume(sample.image)
    for path in sample.files[1:]:
        if not is_volume(path):
            raise DataError(
                f"the image {shown(sample.image)} is a volume and its mask {shown(path)} is not; "
                "give the mask as NIfTI or NRRD"
            )
        _require_same_place(sample.image, image, path, open_volume(path))
    return image.planes


def _require_same_place(image_path: Path, image: Volume, mask_path: Path, mask: Volume) -> None:
    if mask.shape != image.shape:
        raise DataError(
            f"the mask {shown(mask_path)} has {mask.shape} voxels and its image "
            f"{shown(image_path)} {image.shape}; resample one to the other"
        )
    apart = image.distance(mask)
    if apart > _SAME_PLACE * image.voxel:
        raise DataError(
            f"the mask {shown(mask_path)} lies up to {apart:.1f} mm away from its image "
            f"{shown(image_path)} by its affine; resample it, or correct its header"
        )
