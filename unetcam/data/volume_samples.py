"""Volumes as samples: one per axial slice for a network of images, whole for one of volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unetcam.data.files import shown
from unetcam.data.formats import is_volume, may_be_stack
from unetcam.data.samples import Sample, Skipped
from unetcam.data.stacks import STACK_ORIENTATION
from unetcam.data.volumes import Volume, open_volume
from unetcam.data.whole_volumes import AS_STORED, check_orientation, stored_orientation
from unetcam.errors import DataError

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
        if sample.image is None or not is_volume(sample.image):
            expanded.append(sample)
            continue
        try:
            planes = _checked_planes(sample.image, sample.mask_files)
        except DataError as error:
            skipped.append(Skipped(sample.id, sample.file, str(error), error.options))
            continue
        width = max(3, len(str(planes - 1)))
        expanded += [
            replace(sample, id=f"{sample.id}#z{plane:0{width}d}", plane=plane)
            for plane in range(planes)
        ]
    return expanded, skipped


def whole_volumes(
    samples: Sequence[Sample], orientation: str = "RAS", axes: str | None = None
) -> tuple[list[Sample], list[Skipped]]:
    """The volumes that slices come from, each once, to be read whole.

    Parameters
    ----------
    samples : sequence of Sample
        What `find_samples` found.
    orientation : str
        Where the axes shall run to; see :func:`read_whole`. ``"file"`` is that of
        each image, for its masks as well. A TIFF or NumPy file is read as it is stored: depth,
        height and width.
    axes : str, optional
        What the axes of TIFF and NumPy files are; see
        :class:`~unetcam.data.stacks.StackImage`.

    Returns
    -------
    samples : list of Sample
        In their order.
    skipped : list of Skipped
        What is no volume.

    Raises
    ------
    DataError
        For an orientation that is none, and for axes that no file can have.
    """
    check_orientation(orientation)
    if axes is not None and not any(one.image and may_be_stack(one.image) for one in samples):
        raise DataError(
            "axes= tells how volumes lie in TIFF and NumPy files, and there is none: leave it out",
            option="axes",
        )
    volumes: dict[str, Sample] = {}
    skipped: list[Skipped] = []
    for sample in samples:
        if sample.image is not None and may_be_stack(sample.image):
            others = [path for path in sample.mask_files if not may_be_stack(path)]
            if others:
                reason = (
                    f"the image {shown(sample.image)} is a stack of planes and its mask "
                    f"{shown(others[0])} lies in another kind of file; give the mask as TIFF or "
                    "NumPy array"
                )
                skipped.append(Skipped(sample.id, sample.file, reason))
            else:
                stack = replace(sample, orientation=STACK_ORIENTATION, axes=axes)
                volumes[sample.id] = stack
            continue
        if sample.image is None or not is_volume(sample.image):
            reason = (
                f"'{sample.id}' is no volume, and the network is three-dimensional; give NIfTI, "
                "NRRD, a TIFF stack or a NumPy array"
            )
            skipped.append(Skipped(sample.id, sample.file, reason))
            continue
        name = sample.id if sample.plane is None else sample.id.rpartition("#")[0]
        if name not in volumes:
            stored = orientation == AS_STORED
            axes = stored_orientation(sample.image) if stored else orientation.upper()
            volumes[name] = replace(sample, id=name, plane=None, orientation=axes)
    return list(volumes.values()), skipped


def _checked_planes(image_path: Path, masks: Sequence[Path]) -> int:
    image = open_volume(image_path)
    for path in masks:
        if not is_volume(path):
            raise DataError(
                f"the image {shown(image_path)} is a volume and its mask {shown(path)} is not; "
                "give the mask as NIfTI or NRRD"
            )
        _require_same_place(image_path, image, path, open_volume(path))
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
