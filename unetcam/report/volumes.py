"""Maps of volumes as volumes: a viewer lays them over the input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from unetcam.data import ClassTable, Item
from unetcam.data.whole import read_whole
from unetcam.errors import RunError
from unetcam.report.naming import file_names
from unetcam.runs.explain import Explainer
from unetcam.runs.files import replacing


def write_volume(explainer: Explainer, item: Item, folder: Path, table: ClassTable) -> list[Path]:
    """Explain a whole volume and write maps that lie where the volume lies.

    The folder gets ``prediction`` and one file per layer and class, the raw map in float32, of
    the volume's own kind (``.nii.gz`` or ``.nrrd``), voxels and place.

    Parameters
    ----------
    explainer : Explainer
    item : Item
        A whole volume.
    folder : Path
        Is made where it is missing.
    table : ClassTable

    Returns
    -------
    list of Path

    Raises
    ------
    RunError
        If the volume does not fit on the device.
    """
    sample = item.sample
    assert sample.orientation is not None
    whole = read_whole(sample.image, sample.orientation)
    try:
        (view,) = explainer.views([item])
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"The device ran out of memory on {' x '.join(map(str, item.truth.shape))} voxels: "
            f"explain them in {'smaller ' if explainer.settings.tiles else ''}tiles, as with "
            "--tile 96."
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.uint8 if len(table.names) <= 256 else np.int16
    prediction = view.prediction[0].cpu().numpy().astype(labels)
    written = [_put(folder / f"prediction{whole.suffix}", whole.encoded(prediction))]
    for layer, layer_file in zip(explainer.layers, file_names(list(explainer.layers)), strict=True):
        maps = view.maps(layer)[0].float().cpu().numpy()
        for one, map_file in zip(maps, file_names(view.names), strict=True):
            path = folder / f"{layer_file}.{map_file}{whole.suffix}"
            written.append(_put(path, whole.encoded(one)))
    return written


def _put(path: Path, content: bytes) -> Path:
    with replacing(path) as draft:
        draft.write_bytes(content)
    return path
