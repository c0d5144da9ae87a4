"""Maps of volumes as volumes: a viewer lays them over the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from unetcam.data import ClassTable, Sample, Skipped
from unetcam.data.files import is_volume
from unetcam.data.samples import readable, shown
from unetcam.data.whole import WholeVolume, check_orientation, read_whole
from unetcam.errors import DataError
from unetcam.report.naming import file_names
from unetcam.runs import Explanation, Network, Progress
from unetcam.runs.files import replacing
from unetcam.runs.volumes import ExplainedVolume, explain_volume, normalised


def whole_volumes(samples: Sequence[Sample]) -> tuple[list[Sample], list[Skipped]]:
    """The volumes that slices come from, each once, and what is no volume."""
    volumes: dict[Path, Sample] = {}
    skipped = []
    for sample in samples:
        if is_volume(sample.image):
            name = sample.id if sample.plane is None else sample.id.rpartition("#")[0]
            volumes.setdefault(sample.image, Sample(name, sample.image))
        else:
            reason = (
                f"{shown(sample.image)} is no volume, and the network is three-dimensional; give "
                "NIfTI or NRRD"
            )
            skipped.append(Skipped(sample.id, readable(sample.image), reason))
    return list(volumes.values()), skipped


def write_volume_maps(
    network: Network,
    layers: Sequence[str],
    folders: Mapping[str, Path],
    samples: Sequence[Sample],
    table: ClassTable,
    how: Explanation,
    progress: Progress,
) -> tuple[list[Path], list[Skipped]]:
    """Explain whole volumes and write maps that lie where the volumes lie.

    For every volume there is a folder with ``prediction`` and one file per layer and class, the
    raw map in float32, of the volume's own kind (``.nii.gz`` or ``.nrrd``), voxels and place.

    Parameters
    ----------
    network : Network
    layers : sequence of str
    folders : Mapping of str to Path
        Each sample's folder, by its id.
    samples : sequence of Sample
        Whole volumes.
    table : ClassTable
    how : Explanation
    progress : Progress

    Returns
    -------
    files : list of Path
    skipped : list of Skipped
        Volumes that could not be read.
    """
    check_orientation(how.orientation)
    written: list[Path] = []
    skipped: list[Skipped] = []
    for sample in samples:
        try:
            whole, volume = _read(sample.image, network, how)
        except DataError as error:
            skipped.append(Skipped(sample.id, readable(sample.image), str(error)))
            progress.skipped(skipped[-1])
        else:
            explained = explain_volume(volume, network, layers, how, progress.within)
            written += _write(folders[sample.id], whole, explained, layers, table)
        progress.advance(1)
    return written, skipped


def _read(path: Path, network: Network, how: Explanation) -> tuple[WholeVolume, Tensor]:
    whole = read_whole(path, how.orientation)
    try:
        return whole, normalised(whole.values, network, how)
    except DataError as error:
        raise DataError(f"{shown(path)} {error}") from error


def _write(
    folder: Path,
    whole: WholeVolume,
    explained: ExplainedVolume,
    layers: Sequence[str],
    table: ClassTable,
) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.uint8 if len(table.names) <= 256 else np.int16
    prediction = explained.prediction.cpu().numpy().astype(labels)
    written = [_put(folder / f"prediction{whole.suffix}", whole.encoded(prediction))]
    for layer, layer_file in zip(layers, file_names(list(layers)), strict=True):
        maps = explained.maps(layer).float().cpu().numpy()
        for one, class_file in zip(maps, file_names(table.names), strict=True):
            path = folder / f"{layer_file}.{class_file}{whole.suffix}"
            written.append(_put(path, whole.encoded(one)))
    return written


def _put(path: Path, content: bytes) -> Path:
    with replacing(path) as draft:
        draft.write_bytes(content)
    return path
