"""The contenders: plain forward, unetcam, and its peers as their users would write them.

Run as a script with a JSON request it measures one contender's memory, in its own process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from benchmark_timing import Task, Work, memory_growth
from torch import Tensor

from unetcam import UNetCAM
from unetcam.targets import ClassScore

#: Raw maps (B, T, h, w) by layer; None where a tool gives no raw maps.
Maps = dict[str, Tensor] | None
Run = Callable[[Work, Sequence[int]], Maps]


@dataclass(frozen=True)
class Contender:
    """A tool in one way of using it.

    Attributes
    ----------
    name : str
    run : callable
        Explains the given classes on the work's images and layers.
    how : str
        How it is used, for the page.
    measured_classes : int, optional
        Where all classes would take minutes: on how many it is measured.
    raw : bool
        Whether it gives raw maps.
    """

    name: str
    run: Run
    how: str
    measured_classes: int | None = None
    raw: bool = True


def plain_forward(work: Work, classes: Sequence[int]) -> Maps:
    """What everything is compared with: the network alone."""
    with torch.no_grad():
        work.model(work.images)
    return None


def unetcam(work: Work, classes: Sequence[int], *, shortcuts: bool = True) -> Maps:
    """Every class and layer in one call."""
    cam = UNetCAM(work.model, list(work.layers), shortcuts=shortcuts)
    return dict(cam(work.images, [ClassScore(c) for c in classes]).maps)


def unetcam_plain(work: Work, classes: Sequence[int]) -> Maps:
    """The same, each backward whole."""
    return unetcam(work, classes, shortcuts=False)


def torchcam(work: Work, classes: Sequence[int]) -> Maps:
    """One forward, its graph retained for one backward per class to a list of layers."""
    from torchcam.methods import GradCAM

    found: list[list[Tensor]] = []
    with GradCAM(work.model, list(work.layers)) as extractor:
        scores = work.model(work.images).flatten(2).mean(dim=2)
        for position, c in enumerate(classes):
            retain = position < len(classes) - 1
            found.append(extractor(c, scores, normalized=False, retain_graph=retain))
    return {name: torch.stack(maps, 1) for name, maps in _by_layer(work, found)}


def torchcam_channels_last(work: Work, classes: Sequence[int]) -> Maps:
    """The same on images whose channels are last in memory."""
    images = work.images.contiguous(memory_format=torch.channels_last)
    return torchcam(replace(work, images=images), classes)


def captum(work: Work, classes: Sequence[int]) -> Maps:
    """One call per class and layer, on the logits' means."""
    from captum.attr import LayerGradCam

    def means(images: Tensor) -> Tensor:
        scores: Tensor = work.model(images).flatten(2).mean(dim=2)
        return scores

    modules = dict(work.model.named_modules())
    maps = {}
    for name in work.layers:
        explainer = LayerGradCam(means, modules[name])
        parts = [
            explainer.attribute(work.images, target=c, relu_attributions=True) for c in classes
        ]
        maps[name] = torch.cat(parts, dim=1).detach()
    return maps


def grad_cam_documented(work: Work, classes: Sequence[int]) -> Maps:
    """One object per layer and one call per class, as its segmentation tutorial has it."""
    from pytorch_grad_cam import GradCAM

    modules = dict(work.model.named_modules())
    for name in work.layers:
        with GradCAM(model=work.model, target_layers=[modules[name]]) as cam:
            for c in classes:
                cam(input_tensor=work.images, targets=_whole_image(work, c))
    work.model.zero_grad(set_to_none=True)
    return None


def grad_cam_best(work: Work, classes: Sequence[int]) -> Maps:
    """One call per class for all layers, which an overridden internal keeps apart.

    No parameter collects a gradient: the images do, so that there is a graph.
    """
    from pytorch_grad_cam import GradCAM

    class LayersApart(GradCAM):  # type: ignore[misc]
        def aggregate_multi_layers(self, cam_per_target_layer: Any) -> Any:
            return np.concatenate(cam_per_target_layer, axis=1)

    modules = dict(work.model.named_modules())
    work.model.requires_grad_(False)
    try:
        images = work.images.detach().clone().requires_grad_()
        with LayersApart(model=work.model, target_layers=[modules[n] for n in work.layers]) as cam:
            for c in classes:
                cam(input_tensor=images, targets=_whole_image(work, c))
    finally:
        work.model.requires_grad_(True)
    return None


def _whole_image(work: Work, class_index: int) -> list[Any]:
    from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget

    mask = np.ones(tuple(work.images.shape[2:]), dtype=np.float32)
    target = SemanticSegmentationTarget(class_index, mask)
    target.mask = target.mask.to(work.images.device)
    return [target] * len(work.images)


def _by_layer(work: Work, found: list[list[Tensor]]) -> Any:
    return zip(work.layers, zip(*found, strict=True), strict=True)


CONTENDERS = (
    Contender("plain forward", plain_forward, "the network alone, without a graph", raw=False),
    Contender("unetcam", unetcam, "one call"),
    Contender("unetcam, shortcuts=False", unetcam_plain, "one call, every backward whole"),
    Contender(
        "torchcam, best use", torchcam, "one forward, graph retained, list of layers, raw maps"
    ),
    Contender(
        "torchcam, best use, channels last",
        torchcam_channels_last,
        "the same, its images in the memory format that convolutions like best",
    ),
    Contender(
        "pytorch-grad-cam, best use",
        grad_cam_best,
        "one call per class for all layers, kept apart by an override; parameters frozen",
        1,
        raw=False,
    ),
    Contender("captum LayerGradCam", captum, "one call per class and layer", 1),
    Contender(
        "pytorch-grad-cam, documented",
        grad_cam_documented,
        "one call per class and layer",
        1,
        raw=False,
    ),
)


def named(name: str) -> Contender:
    """The contender of that name."""
    return next(one for one in CONTENDERS if one.name == name)


def measure_memory(request: str) -> int | None:
    """One contender's growth, after the same on a small image, which loads what is loaded once."""
    asked = json.loads(request)
    task, contender = Task(**asked["task"]), named(asked["contender"])
    work = Work.make(task)
    small = replace(work, images=work.images[:1, ..., :64, :64].contiguous())
    contender.run(small, range(min(2, asked["classes"])))
    return memory_growth(lambda: contender.run(work, range(asked["classes"])), task.device)


if __name__ == "__main__":
    print(json.dumps({"bytes": measure_memory(sys.argv[1])}))
