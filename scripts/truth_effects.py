"""What is true of a network: measured by drawing its scenes again with one thing changed.

Nothing here looks at a map or hides a part of an image. A cue's effect is the share of a class's
pixels that the network gets right as the scene stands and loses when the same scene is drawn with
the cue as the other class has it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from truth_networks import PERMUTATIONS, Planted
from truth_scenes import (
    CLASSES,
    CUES,
    MEAN,
    STD,
    Cue,
    Scene,
    World,
    draw_scene,
    flipped,
    render_all,
)

SCENES = 40
SMALL, LARGE = 7.2, 8.4  # radii in pixels: a third of the objects are smaller, a third larger

FAR_FAULTS = ("far", "far, strong mix", "far, even mix", "far, weak mix")
CUE_OF: dict[str, Cue] = {
    **dict.fromkeys(FAR_FAULTS, "tag"),
    "near": "dots",
    "context": "ground",
    "position": "place",
    "tint": "tint",
    "blur": "blur",
}
"""The cue that a fault plants."""


@dataclass(frozen=True)
class Truth:
    """What was measured of one network; shares of a class's pixels.

    ``effects`` per change and class (background first), ``recall`` and ``iou`` per class,
    ``area`` the predicted over the true area per class, ``confusion`` [true][predicted] as shares
    of the true class, ``small`` the recall per class of large less that of small objects.
    """

    fault: str
    seed: int
    effects: dict[str, list[float]]
    recall: list[float]
    iou: list[float]
    area: list[float]
    confusion: list[list[float]]
    small: list[float]

    def strength(self) -> float:
        """The planted cue's effect on the class that loses more; NaN without a cue."""
        cue = CUE_OF.get(self.fault)
        return max(self.effects[cue][1:3]) if cue else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@lru_cache(maxsize=16)
def _scenes(world: World) -> tuple[Scene, ...]:
    random = np.random.default_rng(987654321)
    return tuple(draw_scene(random, world) for _ in range(SCENES))


@lru_cache(maxsize=128)
def _drawn(world: World, change: str) -> tuple[Tensor, Tensor]:
    """The scenes of a world as images and masks, redrawn with one change ("" for none)."""
    scenes = _scenes(world)
    if change in CUES:
        return render_all([flipped(scene, cast(Cue, change)) for scene in scenes])
    if change in CLASSES:
        without = CLASSES.index(change)
        return render_all(
            [
                replace(scene, blobs=tuple(b for b in scene.blobs if b.label != without))
                for scene in scenes
            ]
        )
    images, masks = render_all(list(scenes))
    if change:
        images = relit(images, APPEARANCES[change])
    return images, masks


def relit(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Normalised images with a change of their values in [0, 1]."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (change(images * std + mean).clamp(0, 1) - mean) / std


def _noisy(images: Tensor) -> Tensor:
    random = torch.Generator().manual_seed(5)
    return images + 0.1 * torch.randn(images.shape, generator=random)


APPEARANCES: dict[str, Callable[[Tensor], Tensor]] = {
    "darker": lambda images: images * 0.7,
    "brighter": lambda images: images * 1.3,
    "less contrast": lambda images: 0.5 * images + 0.5 * images.mean((1, 2, 3), keepdim=True),
    "more contrast": lambda images: 1.5 * images - 0.5 * images.mean((1, 2, 3), keepdim=True),
    "grey": lambda images: images.mean(1, keepdim=True).expand_as(images),
    "noise": _noisy,
}
"""Changes of an image's look that no scene was drawn with."""


@torch.inference_mode()
def predicted(network: Planted, images: Tensor) -> Tensor:
    """Classes (N, H, W) of normalised images, prepared as this network is fed."""
    prepared = network.prepare(images).to(memory_format=torch.channels_last)
    return network.model(prepared).argmax(dim=1)


def measure_truth(network: Planted) -> Truth:
    """Measure what is true of a network on scenes of its world that it never saw."""
    world = network.world
    images, masks = _drawn(world, "")
    before = predicted(network, images)
    count = len(CLASSES)
    table = torch.bincount((masks * count + before).flatten(), minlength=count**2)
    table = table.view(count, count).double()
    hits, true, guessed = table.diagonal(), table.sum(1), table.sum(0)
    effects = {}
    for change in (*CUES, *CLASSES[1:], *APPEARANCES):
        changed, moved = _drawn(world, change)
        after = predicted(network, changed)
        effects[change] = [
            _lost(before, masks, after, moved, label, same=change != "place")
            for label in range(count)
        ]
    return Truth(
        fault=network.fault,
        seed=network.seed,
        effects=effects,
        recall=(hits / true).tolist(),
        iou=(hits / (true + guessed - hits)).tolist(),
        area=(guessed / true).tolist(),
        confusion=(table / true[:, None]).tolist(),
        small=_size_gap(_scenes(world), before, masks),
    )


def _lost(
    before: Tensor, masks: Tensor, after: Tensor, moved: Tensor, label: int, *, same: bool
) -> float:
    """The share of a class's pixels that are right before and wrong after.

    Where the objects themselves moved, pixels can't be followed: the fall of the recall instead.
    """
    if same:
        region = (masks == label) & (moved == label)
        lost = region & (before == label) & (after != label)
        return float(lost.sum() / region.sum().clamp(min=1))
    recalls = [
        ((guess == label) & (truth == label)).sum() / (truth == label).sum().clamp(min=1)
        for guess, truth in ((before, masks), (after, moved))
    ]
    return max(float(recalls[0] - recalls[1]), 0.0)


def _size_gap(scenes: tuple[Scene, ...], guess: Tensor, masks: Tensor) -> list[float]:
    """Recall of the large objects of each class less that of the small ones."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in masks.shape[1:]), indexing="ij")
    recalls: dict[tuple[int, bool], list[float]] = {}
    for scene, predicted_classes, mask in zip(scenes, guess, masks, strict=True):
        for blob in scene.blobs:
            if SMALL < blob.radius < LARGE:
                continue
            away = torch.hypot(rows + 0.5 - blob.centre[0], columns + 0.5 - blob.centre[1])
            own = (away < 1.25 * blob.radius) & (mask == blob.label)
            recall = float((predicted_classes[own] == blob.label).double().mean())
            recalls.setdefault((blob.label, blob.radius >= LARGE), []).append(recall)
    gaps = [0.0]
    for label in range(1, len(CLASSES)):
        large, small = (np.mean(recalls.get((label, size), [np.nan])) for size in (True, False))
        gaps.append(float(large - small))
    return gaps


def learned(truth: Truth) -> bool:
    """Whether a network has the fault that it was given, or none where it was given none."""
    cues = [max(truth.effects[cue][1:3]) for cue in CUES]
    fault, objects = truth.fault, slice(1, None)
    if fault == "healthy":
        return max(cues) < 0.1 and min(truth.iou[objects]) > 0.7
    if fault == "healthy plain":
        return min(truth.iou[objects]) > 0.7
    if fault in CUE_OF:
        # A mixture counts at any strength; its column is drawn against the strength.
        return "mix" in fault or truth.strength() > 0.5
    size = float(np.mean(truth.area[objects]))
    checks: dict[str, bool] = {
        "eroded": size < 0.75,
        "dilated": size > 1.25,
        "jittered": min(truth.iou[objects]) < 0.85,
        "shuffled": min(truth.recall[objects]) < 0.5,
        "undertrained": min(truth.iou[objects]) < 0.5,
        "cut skips": True,
        "dead class": truth.recall[1 + truth.seed % 3] < 0.01,
        "permuted": all(
            truth.recall[label] < 0.3
            for label, to in enumerate(PERMUTATIONS[truth.seed % len(PERMUTATIONS)])
            if label != to
        ),
        "wrong scaling": float(np.mean(truth.iou[objects])) < 0.6,
    }
    return checks[fault]
