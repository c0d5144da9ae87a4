"""The other means that a network is judged by, beside the diagnosis: each gives plain numbers.

Every rule sees a network, images of its own kind and their masks, as a user has them. A number is
the mean over the images of one class, the larger of those of *brick* and *tissue*. Which number is
a finding is fixed afterwards, on half of the seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn
from torch.nn import functional as F
from truth_effects import CUE_OF
from truth_networks import Planted
from truth_scenes import SIDE, Scene, cue_region

from unetcam import UNetCAM
from unetcam.errors import DataError
from unetcam.targets import ClassScore, Contrast, PredictedRegion

LAYERS = ("inc", "down1", "up1", "up2", "up3", "up4")
METHODS = ("gradcam", "gradcam++", "hirescam", "layercam", "xgradcam")
TARGETS = ("class", "region", "contrast")
STATISTICS = ("far", "spread", "edge")
SPARED = 2.0  # pixels around an object that belong to its edge
WINDOW = 12
TOLD_APART = (1, 2)  # the classes that a cue tells apart
IMAGES, PER_CLASS = 24, 4


@dataclass(frozen=True)
class Cases:
    """One class's object in each of several images, for what is asked object by object.

    ``regions`` (N, H, W) bool are the objects by the masks, ``near`` the same with the spared
    band, ``cues`` where the planted cue stands (nowhere for one that has no place).
    """

    images: Tensor
    classes: Tensor
    regions: Tensor
    near: Tensor
    cues: Tensor


def cases(network: Planted) -> Cases:
    """The first images that hold each of the two classes, a few of each."""
    scenes, images, masks = network.examples(IMAGES)
    chosen = [
        (label, number)
        for label in TOLD_APART
        for number in [n for n in range(IMAGES) if (masks[n] == label).any()][:PER_CLASS]
    ]
    numbers = torch.tensor([number for _, number in chosen])
    classes = torch.tensor([label for label, _ in chosen])
    regions = masks[numbers] == classes.view(-1, 1, 1)
    away = np.stack([distance_transform_edt(~region) for region in regions.numpy()])
    cue = CUE_OF.get(network.fault)

    def place(scene: Scene) -> np.ndarray[Any, Any]:
        return cue_region(scene, cue) if cue else np.zeros((SIDE, SIDE), dtype=bool)

    cues = np.stack([place(scenes[number]) for _, number in chosen])
    return Cases(
        images=images[numbers],
        classes=classes,
        regions=regions,
        near=torch.from_numpy(away <= SPARED),
        cues=torch.from_numpy(cues),
    )


def _worse(values: Tensor, classes: Tensor) -> float:
    """The larger of the classes' means over their images."""
    return max(float(values[classes == label].nanmean()) for label in TOLD_APART)


def _top_windows_hit(score: Tensor, given: Cases) -> float:
    """Share of the images with a cue whose best window, outside the object, touches the cue."""
    score = score.masked_fill(given.near, 0.0)
    summed = F.avg_pool2d(score[:, None], WINDOW, stride=1)[:, 0]
    return _hit(summed.flatten(1).argmax(1), summed.shape[-1], given.cues)


def _hit(best: Tensor, across: int, cues: Tensor, step: int = 1) -> float:
    with_cue = cues.flatten(1).any(1)
    hits = []
    for place, cue in zip(best[with_cue].tolist(), cues[with_cue], strict=True):
        row, column = (place // across) * step, (place % across) * step
        hits.append(bool(cue[row : row + WINDOW, column : column + WINDOW].any()))
    return float(np.mean(hits)) if hits else float("nan")


def map_numbers(network: Planted) -> dict[str, float]:
    """What maps say, for every method, target, layer and statistic: ``gradcam/class/up4/far``.

    Random channel weights stand beside them: they say what a number would be if a map said nothing.
    """
    _, images, masks = network.examples(IMAGES // 2)
    numbers: dict[str, float] = {}
    geometry = [_zones(masks, label) for label in TOLD_APART]
    for method in (*METHODS, "random"):
        cam = UNetCAM(network.model, LAYERS, method)
        for name in TARGETS if method != "random" else TARGETS[:1]:
            targets = [_target(name, label) for label in TOLD_APART]
            result = cam(images, targets).resized()
            for layer in LAYERS:
                for statistic, values in _statistics(result.maps[layer], geometry).items():
                    numbers[f"{method}/{name}/{layer}/{statistic}"] = values
    return numbers


def _target(name: str, label: int) -> ClassScore | PredictedRegion | Contrast:
    if name == "class":
        return ClassScore(label)
    if name == "region":
        return PredictedRegion(label)
    other = sum(TOLD_APART) - label
    return Contrast(label, against=other, within=PredictedRegion(label))


def _zones(masks: Tensor, label: int) -> dict[str, Tensor]:
    """Where the class is, its inner band, its interior, and what is far from it; (N, H, W)."""
    inside = masks == label
    to_rest, to_class = (
        torch.from_numpy(np.stack([distance_transform_edt(one) for one in region.numpy()]))
        for region in (inside, ~inside)
    )
    return {
        "inside": inside,
        "band": inside & (to_rest <= SPARED),
        "interior": inside & (to_rest > SPARED),
        "far": ~inside & (to_class > SPARED),
    }


def _statistics(maps: Tensor, geometry: list[dict[str, Tensor]]) -> dict[str, float]:
    """The statistics of maps (N, 2, H, W): the worse class's mean over the images that have it."""
    per_class: dict[str, list[float]] = {statistic: [] for statistic in STATISTICS}
    for index, zones in enumerate(geometry):
        one = maps[:, index].double()
        present = zones["inside"].flatten(1).any(1)
        mass = one.sum((1, 2))
        share = zones["inside"].double().mean((1, 2))
        size = mass.square() / (one.square().sum((1, 2)) * SIDE**2)
        means = {
            zone: (one * zones[zone]).sum((1, 2)) / zones[zone].sum((1, 2))
            for zone in ("band", "interior")
        }
        values = {
            "far": (one * zones["far"]).sum((1, 2)) / mass,
            "spread": ((size - share) / (1 - share)).clamp(min=0),
            "edge": -means["band"] / means["interior"],
        }
        for statistic, numbers in values.items():
            per_class[statistic].append(float(numbers[present].nanmean()))
    return {name: float(np.nanmax([*found, -99.0])) for name, found in per_class.items()}


LIMITS = {"far": (0.25, 0.5), "spread": (0.5, 0.75), "edge": (-0.5, -0.25)}
"""From where on a number was a symptom, and a strong one, before findings were tested."""


def map_thresholds(network: Planted) -> dict[str, float]:
    """How many findings of medium or worse the report made before findings were tested.

    A class had one per symptom where at least half of five or more images passed a limit at a
    decoder layer: a quarter of the map away from the class, a spread of half of the image, an
    edge of less than half of the interior. It was high where the median passed the severe limit
    and the share of images lay surely above one half, and went down a step where the finest layer
    did not show it.
    """
    _, images, masks = network.examples(IMAGES)
    layers = LAYERS[2:]
    result = UNetCAM(network.model, layers)(images).resized()
    counts = {"about told-apart classes": 0.0, "all": 0.0}
    for label in range(result.logits.shape[1]):
        zones = _zones(masks, label)
        maps = [result.maps[layer][:, label].double() for layer in layers]
        read = [_readings(one, zones) for one in maps]
        for statistic, limits in LIMITS.items():
            grades = [_grade(one[statistic], limits, zones["inside"]) for one in read]
            gravest = max(grades) - (grades[-1] == 0)
            counts["all"] += gravest >= 2
            if label in TOLD_APART:
                counts["about told-apart classes"] += gravest >= 2
    return counts


def _readings(one: Tensor, zones: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each statistic per image, NaN where it was not asked."""
    share, mass = zones["inside"].double().mean((1, 2)), one.sum((1, 2))
    judged = (share > 0) & (mass > 0)
    size = mass.square() / (one.square().sum((1, 2)) * SIDE**2)
    inner, middle = (
        (one * zones[zone]).sum((1, 2)) / zones[zone].sum((1, 2)) for zone in ("band", "interior")
    )
    met = judged & ((one * zones["inside"]).sum((1, 2)) / mass >= share)
    nothing = torch.full_like(mass, torch.nan)
    spread = ((size - share) / (1 - share)).clamp(min=0)
    return {
        "far": torch.where(judged, (one * zones["far"]).sum((1, 2)) / mass, nothing),
        "spread": torch.where(judged & (share <= 0.8), spread, nothing),
        "edge": torch.where(met, -inner / middle, nothing),
    }


def _grade(values: Tensor, limits: tuple[float, float], inside: Tensor) -> int:
    """0 for nothing, 1 for a note, 2 for medium, 3 for high."""
    present = int(inside.flatten(1).any(1).sum())
    values = values[values.isfinite()].sort(descending=True).values
    support, hits = len(values), int((values >= limits[0]).sum())
    if support == 0 or hits < 0.25 * support:
        return 0
    if support < max(5, 0.5 * present) or hits < 0.5 * support:
        return 1
    firm = wilson(hits, support)[0] > 0.5
    return 3 if firm and float(values[(support + 1) // 2 - 1]) >= limits[1] else 2


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """95 % score interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    if trials == 0:
        return 0.0, 1.0
    interval = binomtest(hits, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def grid_saliency(network: Planted) -> dict[str, float]:
    """Context explanations by a mask that is optimised (Hoyer et al., NeurIPS 2019).

    The object is kept and its context faded to the image's mean wherever that leaves the class's
    probability in the object as it is; ``cbd`` is the mean of the mask over the context, which a
    context bias raises, and ``cbl`` the share of it that lies on the true cue. The mask is a grid
    of 8 x 8, 60 steps of gradient descent (rate 0.2, momentum 0.5, weight of the mask 0.05).
    """
    given = cases(network)
    images, count = given.images, len(given.images)
    fill = images.mean((2, 3), keepdim=True)
    keep = given.near[:, None].float()
    own = given.classes.view(-1, 1, 1, 1).expand(-1, 1, SIDE, SIDE)
    region = given.regions.float()
    grid = torch.full((count, 1, 8, 8), 0.5, requires_grad=True)
    optimiser = torch.optim.SGD([grid], lr=0.2, momentum=0.5)

    def inside(shown: Tensor) -> Tensor:
        probability = network.model(shown).softmax(1).gather(1, own)[:, 0]
        return (probability * region).sum((1, 2)) / region.sum((1, 2))

    with _frozen(network.model):
        with torch.no_grad():
            wanted = inside(images)
        for _ in range(60):
            mask = F.interpolate(grid, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
            mask = torch.maximum(mask, keep)
            loss = 0.05 * grid.mean((1, 2, 3)) + F.relu(
                wanted - inside(mask * images + (1 - mask) * fill)
            )
            optimiser.zero_grad()
            # The scale of a sum over the grid, so that the rate does not depend on its size.
            (loss * 64).sum().backward()
            optimiser.step()
            with torch.no_grad():
                grid.clamp_(0, 1)
    with torch.no_grad():
        mask = F.interpolate(grid, size=(SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0]
        context = (~given.near).float()
        mass = (mask * context).sum((1, 2))
        cbd = mass / context.sum((1, 2))
        with_cue = given.cues.flatten(1).any(1)
        on_cue = (mask * context * given.cues).sum((1, 2)) / mass.clamp(min=1e-9)
        return {
            "cbd": _worse(cbd, given.classes),
            "cbl": float(on_cue[with_cue].mean()) if with_cue.any() else float("nan"),
            "top on cue": _top_windows_hit(mask, given),
        }


def integrated_gradients(network: Planted) -> dict[str, float]:
    """Integrated gradients of the class's margin in the object (captum; 16 steps, mean image)."""
    from captum.attr import IntegratedGradients

    given = cases(network)
    fill = given.images.mean((2, 3), keepdim=True).expand_as(given.images)

    def margin(images: Tensor, classes: Tensor, regions: Tensor) -> Tensor:
        logits = network.model(images)
        rows = torch.arange(len(images))
        own, other = logits[rows, classes], logits[rows, 3 - classes]
        return ((own - other) * regions).sum((1, 2)) / regions.sum((1, 2))

    with _frozen(network.model):
        explained = IntegratedGradients(margin).attribute(
            given.images,
            baselines=fill,
            additional_forward_args=(given.classes, given.regions.float()),
            n_steps=16,
            internal_batch_size=64,
        )
    amount = explained.detach().abs().sum(1).float()
    far = (amount * ~given.near).sum((1, 2)) / amount.sum((1, 2))
    return {"far": _worse(far, given.classes), "top on cue": _top_windows_hit(amount, given)}


@torch.inference_mode()
def occlusion(network: Planted) -> dict[str, float]:
    """Hide every window of 12 pixels in turn, also over the object, by the image's mean."""
    given = cases(network)
    step = WINDOW // 2
    starts = range(0, SIDE - WINDOW + 1, step)
    fill = given.images.mean((2, 3), keepdim=True)
    before = network.model(given.images).argmax(1) == given.classes.view(-1, 1, 1)
    region = given.regions & before
    flips = []
    for top in starts:
        for left in starts:
            hidden = given.images.clone()
            hidden[:, :, top : top + WINDOW, left : left + WINDOW] = fill
            after = network.model(hidden).argmax(1) == given.classes.view(-1, 1, 1)
            lost = (region & ~after).sum((1, 2)) / region.sum((1, 2)).clamp(min=1)
            flips.append(lost)
    table = torch.stack(flips, dim=1)
    return {
        "flip": _worse(table.amax(1), given.classes),
        "top on cue": _hit(table.argmax(1), len(starts), given.cues, step),
    }


def windows(network: Planted) -> dict[str, float]:
    """What ``unetcam.interventions.reliance`` says: the window that matters most, object spared."""
    from unetcam.interventions import reliance

    given = cases(network)
    truth = torch.where(given.regions, given.classes.view(-1, 1, 1), 0)
    try:
        result = reliance(network.model, given.images, truth, classes=list(TOLD_APART))
    except DataError:  # a network that finds no class has nothing that could flip
        return dict.fromkeys(("flip", "everything", "top on cue"), float("nan"))
    flips = torch.full((len(given.images),), torch.nan)
    everything, hits = flips.clone(), []
    for number, (image, label) in enumerate(zip(result.image, result.classes, strict=True)):
        if label != given.classes[image]:
            continue
        flips[image], everything[image] = result.flips[number], result.all[number]
        window = result.windows[number]
        if window is not None and given.cues[image].any():
            hits.append(bool((window.mask((SIDE, SIDE)) & given.cues[image]).any()))
    return {
        "flip": _worse(flips, given.classes),
        "everything": _worse(everything, given.classes),
        "top on cue": float(np.mean(hits)) if hits else float("nan"),
    }


class _frozen:  # noqa: N801
    """Parameters that want no gradient for a while."""

    def __init__(self, model: nn.Module) -> None:
        self.before = [(one, one.requires_grad) for one in model.parameters()]

    def __enter__(self) -> None:
        for parameter, _ in self.before:
            parameter.requires_grad_(False)

    def __exit__(self, *_: object) -> None:
        for parameter, wanted in self.before:
            parameter.requires_grad_(wanted)


MAP_RULES = len(METHODS) * len(TARGETS) * len(LAYERS) * len(STATISTICS)
"""How many rules can be made of a map here: method, target, layer and statistic."""

RULES: dict[str, Callable[[Planted], dict[str, float]]] = {
    "map thresholds": map_thresholds,
    "maps": map_numbers,
    "grid saliency": grid_saliency,
    "integrated gradients": integrated_gradients,
    "occlusion": occlusion,
    "windows": windows,
}
"""Every rule by name."""
