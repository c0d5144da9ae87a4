"""Maps of single images as files: overlays to look at, raw numbers to go on with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unetcam.data import Item
from unetcam.data.options import DataOptions
from unetcam.data.whole_volumes import read_whole
from unetcam.errors import RunError
from unetcam.page.overlays import overlay
from unetcam.page.text import file_names
from unetcam.runs.explain import Explainer, scaled
from unetcam.runs.files import replacing


def write_image(explainer: Explainer, item: Item, folder: Path) -> list[Path]:
    """Explain an image and write its maps: one PNG per layer and class, and ``maps.npz``.

    The PNG shows the map, scaled by its own maximum, over the image. ``maps.npz`` holds
    ``classes``, ``layers`` (L,), ``explained`` (T,), what the maps are of (the classes),
    ``prediction`` (H, W) int64 (under a sigmoid head (T, H, W) bool), and for every layer
    ``map:<layer>`` (T, H, W), raw, float32. All in the image's own frame.

    Parameters
    ----------
    explainer : Explainer
    item : Item
        An image.
    folder : Path
        Is made where it is missing.

    Returns
    -------
    list of Path
    """
    (batch,) = explainer.explained([item])
    maps = {layer: batch.maps(layer)[0].float().cpu().numpy() for layer in batch.layers}
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "classes": np.array(explainer.spec.class_names),
        "layers": np.array(batch.layers),
        "explained": np.array(batch.names),
        "prediction": batch.prediction[0].cpu().numpy(),
        **{f"map:{layer}": raw for layer, raw in maps.items()},
    }
    archive = folder / "maps.npz"
    with replacing(archive) as draft, draft.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    written = [archive]
    names = file_names(batch.names)
    for layer, layer_file in zip(maps, file_names(list(maps)), strict=True):
        for index, name in enumerate(names):
            drawn = overlay(item.image, scaled(maps[layer][index]))
            path = folder / f"{layer_file}.{name}.png"
            with replacing(path) as draft, draft.open("wb") as handle:
                Image.fromarray(drawn).save(handle, "PNG")
            written.append(path)
    return written


def write_volume(explainer: Explainer, item: Item, folder: Path) -> list[Path]:
    """Explain a whole volume and write maps that lie where the volume lies.

    The folder gets ``prediction`` (under a sigmoid head one for each class, of 0 and 1) and one
    file per layer and class, the raw map in float32, of the volume's own kind (``.nii.gz``,
    ``.nrrd``, ``.tif`` or ``.npy``), voxels and place.

    Parameters
    ----------
    explainer : Explainer
    item : Item
        A whole volume.
    folder : Path
        Is made where it is missing.

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
    assert sample.image is not None
    limit = DataOptions(**explainer.spec.data_options).limit
    whole = read_whole(sample.image, sample.orientation, max_pixels=limit, axes=sample.axes)
    try:
        (batch,) = explainer.explained([item])
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"The device ran out of memory on {' x '.join(map(str, item.truth.shape))} voxels: "
            f"explain them in {'smaller ' if explainer.spec.tiles else ''}tiles, as with tile=96.",
            option="tile",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    labels = np.uint8 if len(explainer.spec.class_names) <= 256 else np.int16
    prediction = batch.prediction[0].cpu().numpy().astype(labels)
    if prediction.ndim == item.truth.ndim:
        predicted = {"prediction": prediction}
    else:
        kinds = file_names(explainer.spec.class_names)
        predicted = {f"prediction.{kind}": one for kind, one in zip(kinds, prediction, strict=True)}
    written = [
        _put(folder / f"{name}{whole.suffix}", whole.encoded(one))
        for name, one in predicted.items()
    ]
    for layer, layer_file in zip(explainer.layers, file_names(list(explainer.layers)), strict=True):
        maps = batch.maps(layer)[0].float().cpu().numpy()
        for one, map_file in zip(maps, file_names(batch.names), strict=True):
            path = folder / f"{layer_file}.{map_file}{whole.suffix}"
            written.append(_put(path, whole.encoded(one)))
    return written


def _put(path: Path, content: bytes) -> Path:
    with replacing(path) as draft:
        draft.write_bytes(content)
    return path
