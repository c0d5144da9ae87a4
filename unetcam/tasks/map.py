"""Maps of single images: explained one by one, and written for a person or a viewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unetcam import methods
from unetcam.data import Sample, SegmentationDataset, Skipped, find_samples
from unetcam.data.volume_samples import whole_volumes
from unetcam.errors import DataError, RunError
from unetcam.page.map_files import write_image, write_volume
from unetcam.page.text import file_names
from unetcam.runs import Progress, Silent, Spec, open_network, settle
from unetcam.runs.explain import Explainer
from unetcam.runs.loop import dataset_of
from unetcam.runs.spec import TRUTH_KINDS


@dataclass(frozen=True)
class MapFiles:
    """What :func:`write_maps` made.

    Attributes
    ----------
    folder : Path
    files : list of Path
    skipped : list of Skipped
        Images that could not be used.
    """

    folder: Path
    files: list[Path]
    skipped: list[Skipped]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for scripts."""
        return {
            "out": str(self.folder),
            "files": [str(path) for path in self.files],
            "skipped": [{"file": one.file, "reason": one.reason} for one in self.skipped],
        }

    def sentence(self) -> str:
        """What a person is told at the end."""
        more = f"; {len(self.skipped)} images were skipped" if self.skipped else ""
        return f"{len(self.files)} files in {self.folder}{more}."


def write_maps(
    spec: Spec,
    images: Sequence[Path],
    out: Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> MapFiles:
    """Explain single images and write what is seen: what ``unetcam map`` does.

    For every image there is a folder, see :func:`unetcam.page.map_files.write_image`; a network of
    volumes explains NIfTI and NRRD files whole, see :func:`unetcam.page.map_files.write_volume`.

    Parameters
    ----------
    spec : Spec
        What is asked for; its target is "class" or "predicted": the others need masks.
    images : sequence of Path
        Files or folders.
    out : Path
        Is made where it is missing.
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
    methods.get(spec.method).check()
    samples, skipped = _samples(images)
    network = open_network(spec)
    spec = settle(spec, network)
    if network.dims == 3:
        samples, others = whole_volumes(samples, spec.orientation or "RAS")
        skipped += others
    ids = [sample.id for sample in samples]
    folders = {one: out / name for one, name in zip(ids, file_names(ids), strict=True)}
    taken = [folder for folder in folders.values() if folder.exists()]
    if taken and not force:
        raise RunError(
            f"'{taken[0]}' is there already: choose another out=, or add force=True to replace it.",
            option=("out", "force"),
        )
    for one in skipped:
        progress.skipped(one)
    progress.begin(len(samples), 0)
    with Explainer(network.module, spec, progress.within) as explainer:
        files, unread = _write_all(explainer, dataset_of(samples, spec), folders, progress)
    skipped += unread
    if not files:
        raise DataError(
            f"No image could be explained, the first, '{skipped[0].file}', because: "
            f"{skipped[0].reason}"
        )
    return MapFiles(out, files, skipped)


def _write_all(
    explainer: Explainer,
    dataset: SegmentationDataset,
    folders: Mapping[str, Path],
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
            write = write_image if item.sample.orientation is None else write_volume
            written += write(explainer, item, folders[item.sample.id])
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
