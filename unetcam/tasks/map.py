"""Maps of single images: explained one by one, and written for a person or a viewer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from unetcam import methods
from unetcam.data import Item, Sample, Skipped, Source, find_samples, open_source
from unetcam.data.options import DataOptions
from unetcam.data.sources import FileSource
from unetcam.errors import DataError, RunError
from unetcam.models import LoadedModel
from unetcam.page.map_files import write_image, write_volume
from unetcam.page.text import file_names
from unetcam.runs import Plan, Progress, Silent, Spec, evaluated, open_network, settle
from unetcam.runs.explain import Explainer
from unetcam.runs.spec import TRUTH_KINDS
from unetcam.tasks.map_reliance import RELIANCE, plain_spec, write_all
from unetcam.tasks.options import named, shows_options


@dataclass(frozen=True)
class MapFiles:
    """What :func:`write_maps` made.

    Attributes
    ----------
    folder : Path
    files : list of Path
    skipped : list of Skipped
        Images that could not be used.
    remarks : list of str
        What a person should know of the network.
    """

    folder: Path
    files: list[Path]
    skipped: list[Skipped]
    remarks: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {
            "out": str(self.folder),
            "files": [str(path) for path in self.files],
            "skipped": [{"file": one.file, "reason": one.reason} for one in self.skipped],
            "remarks": list(self.remarks),
        }

    def sentence(self) -> str:
        """What a person is told at the end."""
        more = f"; {len(self.skipped)} images were skipped" if self.skipped else ""
        return "\n".join([*self.remarks, f"{len(self.files)} files in {self.folder}{more}."])


@shows_options
def map(  # its name on the command line and in `unetcam.map`
    model: str | os.PathLike[str] | nn.Module | LoadedModel,
    images: Any,
    *,
    out: str | os.PathLike[str],
    force: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> MapFiles:
    """Explain single images and write what is seen, as ``unetcam map`` does.

    Parameters
    ----------
    model : str, path, nn.Module or LoadedModel
        What MODEL is on the command line, or a network in memory.
    images : path, sequence of paths, Tensor or sequence of Tensor
        Files or folders; or images (C, H, W) in memory, prepared for the network.
    out : path
        The folder; is made where it is missing.
    force : bool
        Replace the files of an image that is there already.
    progress : Progress, optional
        Is told how it goes on.
    **options
        `classes` and the fields of :class:`unetcam.runs.Spec`.

    Returns
    -------
    MapFiles

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    name, module = named(model)
    spec = Spec.of(model=name, **options)
    return write_maps(spec, images, Path(out), model=module, force=force, progress=progress)


def write_maps(
    spec: Spec,
    images: Any,
    out: Path,
    *,
    model: nn.Module | LoadedModel | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> MapFiles:
    """Explain single images and write what is seen.

    For every image there is a folder, see :func:`unetcam.page.map_files.write_image`; a network of
    volumes explains NIfTI, NRRD, TIFF and NumPy files whole, see
    :func:`unetcam.page.map_files.write_volume`.

    Parameters
    ----------
    spec : Spec
        What is asked for; its target is "class" or "predicted": the others need masks.
    images : path, sequence of paths, Tensor or sequence of Tensor
        See :func:`map`.
    out : Path
        Is made where it is missing.
    model : nn.Module, optional
        A network in memory; by default the one that the spec names.
    force : bool
        Replace the files of an image that is there already.
    progress : Progress, optional

    Returns
    -------
    MapFiles

    Raises
    ------
    UnetcamError
        One sentence: what is wrong, and what to do.
    """
    progress = progress or Silent()
    if spec.target in TRUTH_KINDS:
        raise RunError(
            f"Maps of the target '{spec.target}' need masks: use target='class' or 'predicted', "
            "or `unetcam report` for images with masks.",
            option="target",
        )
    is_reliance = spec.method == RELIANCE
    if is_reliance:
        spec = plain_spec(spec)
    methods.get(spec.method).check()
    source = _source(images, spec)
    network = open_network(spec, model, source=source)
    if network.dims == 3:
        if source.in_memory:
            raise RunError(
                "Maps of volumes in memory have no file to lie beside: give NIfTI or NRRD files, "
                "or explain the tensors with UNetCAM."
            )
        source = source.volumes(spec.orientation or "RAS")
    plan = Plan(network, source, settle(spec, network, source))
    ids = [sample.id for sample in plan.samples]
    folders = {one: out / name for one, name in zip(ids, file_names(ids), strict=True)}
    taken = [folder for folder in folders.values() if folder.exists()]
    if taken and not force:
        raise RunError(
            f"'{taken[0]}' is there already: choose another out=, or add force=True to replace it.",
            option=("out", "force"),
        )
    for one in plan.skipped:
        progress.skipped(one)
    progress.begin(len(plan.samples), 0)
    if is_reliance:
        files, unread = write_all(plan, folders, progress)
    else:
        with (
            evaluated(network.module),
            Explainer(network, plan.spec, progress.within) as explainer,
        ):
            files, unread = _write_all(explainer, plan, folders, progress)
    skipped = [*plan.skipped, *unread]
    if not files:
        raise DataError(
            f"No image could be explained, the first, '{skipped[0].file}', because: "
            f"{skipped[0].reason}",
            option=tuple(skipped[0].options),
        )
    remark = network.output_sentence
    return MapFiles(out, files, skipped, [] if remark is None else [remark])


def _write_all(
    explainer: Explainer, plan: Plan, folders: Mapping[str, Path], progress: Progress
) -> tuple[list[Path], list[Skipped]]:
    written: list[Path] = []
    skipped: list[Skipped] = []
    dataset: Dataset[Item | Skipped] = plan.dataset()
    for position in range(len(plan.samples)):
        item = dataset[position]
        if isinstance(item, Skipped):
            skipped.append(item)
            progress.skipped(item)
        else:
            write = write_image if item.sample.orientation is None else write_volume
            written += write(explainer, item, folders[item.sample.id])
        progress.advance(1)
    return written, skipped


def _source(images: Any, spec: Spec) -> Source:
    if isinstance(images, (str, os.PathLike)):
        return _files([Path(images)], spec)
    if isinstance(images, Sequence) and all(isinstance(one, (str, os.PathLike)) for one in images):
        return _files([Path(one) for one in images], spec)
    return open_source([(image, None) for image in images])


def _files(paths: Sequence[Path], spec: Spec) -> Source:
    samples: dict[str, Sample] = {}
    skipped: list[Skipped] = []
    for path in paths:
        here, failed = find_samples(path)
        skipped += failed
        for sample in here:
            if sample.id in samples and samples[sample.id].files != sample.files:
                raise DataError(
                    f"Two images are called '{sample.id}': explain them one at a time, into "
                    "folders of their own."
                )
            samples[sample.id] = sample
    if not samples:
        reason = f": {skipped[0].reason}" if skipped else "."
        raise DataError(f"There is no image to explain{reason}")
    return FileSource(list(samples.values()), skipped, None, DataOptions(**spec.data_options))
