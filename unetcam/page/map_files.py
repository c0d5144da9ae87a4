"""Maps of single images as files: overlays to look at, raw numbers to go on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unetcam import methods
from unetcam.data import ClassTable, Item, Sample, SegmentationDataset, Skipped, find_samples
from unetcam.data.whole_volumes import read_whole, whole_volumes
from unetcam.errors import DataError, RunError
from unetcam.page.overlays import overlay
from unetcam.page.text import file_names
from unetcam.runs import Explanation, ModelRequest, Progress, Silent, open_network
from unetcam.runs.explain import Explainer, Settings
from unetcam.runs.files import replacing
from unetcam.runs.model_inputs import tiles_of
from unetcam.runs.prepare import check_class_count, choose_layers, preprocessing_of
from unetcam.runs.spec import TRUTH_KINDS


def write_maps(
    model: ModelRequest,
    images: Sequence[Path],
    how: Explanation,
    out: Path,
    *,
    classes: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[list[Path], list[Skipped]]:
    """Explain single images and write what is seen: what ``unetcam map`` does.

    For every image there is a folder with one PNG per layer and class, the map (scaled by its own
    maximum) over the image, and ``maps.npz``: ``classes``, ``layers`` (L,), ``explained`` (T,),
    what the maps are of (the classes, or the ranks of the method "channels"), ``prediction``
    (H, W) int64, and for every layer ``map:<layer>`` (T, H, W), raw, float32. All in the image's
    own frame. A network of volumes explains NIfTI and NRRD files whole: see
    :func:`unetcam.page.map_files.write_volume`.

    Parameters
    ----------
    model : ModelRequest
    images : sequence of Path
        Files or folders.
    how : Explanation
        Its target is "class" or "predicted": the others need masks.
    out : Path
        Is made where it is missing.
    classes : str, optional
        Names or a class table; "class 0" and so on by default.
    force : bool
        Replace the files of an image that is there already.
    progress : Progress, optional

    Returns
    -------
    files : list of Path
    skipped : list of Skipped
        Images that could not be used.

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    progress = progress or Silent()
    if how.target in TRUTH_KINDS:
        raise RunError(
            f"Maps of the target '{how.target}' need masks: use --target class or predicted, or "
            "`unetcam report` for images with masks."
        )
    method = methods.get(how.method)
    method.check()
    samples, skipped = _samples(images)
    network = open_network(model)
    names = tuple(f"class {index}" for index in range(network.classes))
    table = ClassTable(names) if classes is None else ClassTable.parse(classes)
    check_class_count(network, table)
    layers, strides = choose_layers(network, how.layers, method)
    tiles = tiles_of(how.tile, how.overlap, network.dims, network.stride)
    if network.dims == 3:
        samples, others = whole_volumes(samples, how.orientation)
        skipped += others
    ids = [sample.id for sample in samples]
    folders = {one: out / name for one, name in zip(ids, file_names(ids), strict=True)}
    taken = [folder for folder in folders.values() if folder.exists()]
    if taken and not force:
        raise RunError(
            f"'{taken[0]}' is there already: choose another --out, or add --force to replace it."
        )
    for one in skipped:
        progress.skipped(one)
    progress.begin(len(samples), 0)
    dataset = SegmentationDataset(samples, table, preprocessing_of(network, model.size, how))
    settings = Settings(
        table.names,
        method=how.method,
        seed=model.seed,
        target=how.target,
        amp=how.amp,
        tiles=tiles,
    )
    with Explainer(network.module, layers, strides, settings, progress.within) as explainer:
        written, unread = _write_all(explainer, dataset, folders, table, progress)
    skipped += unread
    if not written:
        raise DataError(
            f"No image could be explained, the first, '{skipped[0].file}', because: "
            f"{skipped[0].reason}"
        )
    return written, skipped


def _write_all(
    explainer: Explainer,
    dataset: SegmentationDataset,
    folders: Mapping[str, Path],
    table: ClassTable,
    progress: Progress,
) -> tuple[list[Path], list[Skipped]]:
    written: list[Path] = []
    skipped: list[Skipped] = []
    for position in range(len(dataset)):
        item = dataset[position]
        if isinstance(item, Skipped):
            skipped.append(item)
            progress.skipped(item)
        else:
            write = _write if item.sample.orientation is None else write_volume
            written += write(explainer, item, folders[item.sample.id], table)
        progress.advance(1)
    return written, skipped


def _samples(images: Sequence[Path]) -> tuple[list[Sample], list[Skipped]]:
    samples: dict[str, Sample] = {}
    skipped: list[Skipped] = []
    for path in images:
        found, failed = find_samples(path)
        skipped += failed
        for sample in found:
            if sample.id in samples and samples[sample.id].files != sample.files:
                raise DataError(
                    f"Two images are called '{sample.id}': explain them one at a time, into "
                    "folders of their own."
                )
            samples[sample.id] = sample
    if not samples:
        reason = f": {skipped[0].reason}" if skipped else "."
        raise DataError(f"There is no image to explain{reason}")
    return list(samples.values()), skipped


def _write(explainer: Explainer, item: Item, folder: Path, table: ClassTable) -> list[Path]:
    (picture,) = explainer.pictures([item])
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "classes": np.array(table.names),
        "layers": np.array(list(picture.maps)),
        "explained": np.array(picture.names),
        "prediction": picture.prediction,
        **{f"map:{layer}": maps for layer, maps in picture.maps.items()},
    }
    raw = folder / "maps.npz"
    with replacing(raw) as draft, draft.open("wb") as handle:
        np.savez_compressed(handle, allow_pickle=False, **arrays)
    written = [raw]
    names = file_names(picture.names)
    for layer, layer_file in zip(picture.maps, file_names(list(picture.maps)), strict=True):
        for index, name in enumerate(names):
            drawn = overlay(item.image, picture.scaled(layer, index))
            path = folder / f"{layer_file}.{name}.png"
            with replacing(path) as draft, draft.open("wb") as handle:
                Image.fromarray(drawn).save(handle, "PNG")
            written.append(path)
    return written


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
