"""Reliance maps of single images: what flips when the surroundings are hidden, window by window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from unetcam.data import Item, Skipped
from unetcam.errors import DataError, RunError
from unetcam.interventions import Reliance, reliance
from unetcam.page.reliance_files import ImageReliance, write_reliance_image, write_reliance_volume
from unetcam.resizing import interpolated
from unetcam.runs import Plan, Progress, Spec
from unetcam.runs.framed_targets import image_area
from unetcam.runs.prepare import evaluated
from unetcam.targets import predict

#: The name by which `unetcam map` is asked for it.
RELIANCE = "reliance"


def plain_spec(spec: Spec) -> Spec:
    """The spec without its method, as reliance takes no layer, region or tile.

    Raises
    ------
    RunError
        For an option that would do nothing.
    """
    asked = {
        "layers": spec.layers is not None,
        "target": spec.target not in ("class", "predicted"),
        "tile": spec.tiles is not None,
        "amp": spec.amp,
    }
    for option, is_given in asked.items():
        if is_given:
            raise RunError(
                f"A reliance map is made by hiding parts of the whole image and predicting again: "
                f"leave out {option}=.",
                option=option,
            )
    return replace(spec, method="gradcam")


def write_all(
    plan: Plan, folders: Mapping[str, Path], progress: Progress
) -> tuple[list[Path], list[Skipped]]:
    """Write the reliance maps of a plan's images, each into its folder.

    Returns
    -------
    files : list of Path
    skipped : list of Skipped
        Images that can't be read, and those in which nothing is predicted that could flip.
    """
    written: list[Path] = []
    skipped: list[Skipped] = []
    dataset: Dataset[Item | Skipped] = plan.dataset()
    with evaluated(plan.network.module):
        for position in range(len(plan.samples)):
            item = dataset[position]
            made = item if isinstance(item, Skipped) else _of_item(plan, item, progress)
            if isinstance(made, Skipped):
                skipped.append(made)
                progress.skipped(made)
            else:
                folder = folders[made.item.sample.id]
                is_image = made.item.sample.orientation is None
                write = write_reliance_image if is_image else write_reliance_volume
                written += write(made, plan.spec, folder)
            progress.advance(1)
    return written, skipped


def _of_item(plan: Plan, item: Item, progress: Progress) -> ImageReliance | Skipped:
    network, frame = plan.network, item.prepared.frame
    images = item.prepared.image[None].to(network.device, network.dtype)
    head = plan.spec.head or network.head
    prediction = predict(interpolated(network.logits(images), images.shape[2:]), head)
    try:
        found = reliance(
            network,
            images,
            _as_truth(prediction, image_area(frame).to(prediction.device)),
            head=head,
            seed=plan.spec.seed,
            progress=progress.within,
        )
    except DataError as error:
        return Skipped(item.sample.id, str(item.sample.image or item.sample.id), str(error))
    classes = len(plan.spec.class_names)
    maps = frame.restore(found.class_maps(1, classes)[0], "nearest")  # NaN stays where it is
    own = frame.restore(prediction[0], "nearest")
    windows = frame.restore(_windows(found, classes), "nearest")
    return ImageReliance(item, own, maps, windows, *_shares(found))


def _as_truth(prediction: Tensor, area: Tensor) -> Tensor:
    """The prediction in the place of the truth: what may flip is what is predicted."""
    outside = ~area
    if prediction.dtype == torch.bool:
        return prediction.long().masked_fill(outside, -1)
    return prediction.masked_fill(outside, -1)


def _windows(found: Reliance, classes: int) -> Tensor:
    """By class, (T, *spatial) bool: the strongest window, at the size of the network's input."""
    masks = torch.zeros(classes, *found.maps.shape[1:], dtype=torch.bool, device=found.maps.device)
    for index, window in zip(found.classes.tolist(), found.windows, strict=True):
        if window is not None:
            inside = tuple(slice(*ends) for ends in zip(window.start, window.stop, strict=True))
            masks[(index, *inside)] = True
    return masks


def _shares(found: Reliance) -> tuple[dict[int, dict[str, float]], tuple[str, ...], float]:
    """By class what flips when its strongest window, its control, near, far or all is hidden."""
    names = ("flips", "control", "all", "near", "far")
    columns = {name: getattr(found, name).tolist() for name in names}
    shares = {
        index: {name: float(columns[name][row]) for name in names}
        for row, index in enumerate(found.classes.tolist())
    }
    return shares, found.fills, found.band
