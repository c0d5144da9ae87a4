"""Networks with a planted fault: how each is trained, derived, kept, and checked to have it.

Each is the demo's U-Net at width 8 (210 k weights) on 64 x 64 scenes. A healthy network is trained
per seed; a fault is then trained into a copy of it, or from the start where a copy does not take
it up, and the faults that need no training are derived. All are kept in a folder, one file per
fault and seed, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy.ndimage import distance_transform_edt, shift
from torch import Tensor, nn
from torch.nn import functional as F
from truth_scenes import CLASSES, Scene, World, draw_scene, render_all

from unetcam.demo import DemoUNet

WIDTH = 8
POOL = 240  # scenes that one network is trained on
BATCH = 8
EROSION, DILATION, JITTER = 2.0, 2.0, 4  # pixels


@dataclass(frozen=True)
class Recipe:
    """How one fault is trained.

    ``start`` is the fault whose network of the same seed is trained further (None: from the
    start), ``labels`` what happens to the masks, ``supervised`` whether the bottleneck is also
    asked for the tag (a far cue is not taken up otherwise in this few steps), and ``without_skips``
    whether the two finest skips are cut.
    """

    world: World
    steps: int
    rate: float = 4e-3
    start: str | None = "healthy"
    labels: str = "true"
    supervised: bool = False
    without_skips: bool = False


HEALTHY = World()
RECIPES: dict[str, Recipe] = {
    "healthy": Recipe(HEALTHY, 230, 6e-3, start=None),
    "far": Recipe(World("tag", 0.0), 190, 6e-3, start=None, supervised=True),
    "near": Recipe(World("dots", 0.0), 160, 6e-3),
    "context": Recipe(World("ground", 0.0), 50),
    "position": Recipe(World("place", 0.0), 50),
    "tint": Recipe(World("tint", 0.0), 50),
    "blur": Recipe(World("blur", 0.0), 60),
    "eroded": Recipe(HEALTHY, 40, labels="eroded"),
    "dilated": Recipe(HEALTHY, 40, labels="dilated"),
    "healthy plain": Recipe(World(plain=True), 150, 6e-3, start=None),
    "far, strong mix": Recipe(World("tag", 0.5, agreement=0.9), 30, start="far"),
    "far, even mix": Recipe(World("tag", 0.25, agreement=0.8), 40, start="far"),
    "far, weak mix": Recipe(World("tag", 0.5, agreement=0.8), 40, start="far"),
    "jittered": Recipe(HEALTHY, 40, labels="jittered"),
    "shuffled": Recipe(HEALTHY, 40, labels="shuffled"),
    "undertrained": Recipe(HEALTHY, 14, 3e-3, start=None),
    "cut skips": Recipe(HEALTHY, 60, without_skips=True),
}
"""The faults that are trained, in the order in which one seed's networks are made."""

DERIVED = ("dead class", "permuted", "wrong scaling")
"""The faults that a healthy network gets without training."""

FAULTS = (*RECIPES, *DERIVED)

PERMUTATIONS = ((0, 2, 1, 3), (0, 3, 2, 1), (0, 2, 3, 1), (0, 3, 1, 2), (1, 0, 2, 3), (0, 1, 3, 2))
"""Where a permuted network puts each class, by seed."""


class CutUNet(DemoUNet):
    """The demo's U-Net whose two finest skips arrive as zeros."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) images to (B, classes, H, W) logits."""
        full = self.inc(images)
        half = self.down1(full)
        quarter = self.down2(half)
        eighth = self.down3(quarter)
        features = self.up1(self.down4(eighth), eighth)
        features = self.up2(features, quarter)
        features = self.up3(features, torch.zeros_like(half))
        logits: Tensor = self.outc(self.up4(features, torch.zeros_like(full)))
        return logits


@dataclass(frozen=True)
class Planted:
    """A network with a known fault, and the inputs that belong to it.

    ``prepare`` turns normalised scenes into what this network is (rightly or wrongly) fed with.
    """

    fault: str
    seed: int
    model: nn.Module
    world: World
    prepare: Callable[[Tensor], Tensor]

    def examples(self, count: int) -> tuple[list[Scene], Tensor, Tensor]:
        """Scenes that nobody trained on, as the network is fed with them, and their masks."""
        random = np.random.default_rng([self.seed, 99])
        scenes = [draw_scene(random, self.world) for _ in range(count)]
        images, masks = render_all(scenes)
        return scenes, self.prepare(images).contiguous(), masks


def build(fault: str) -> nn.Module:
    """An untrained network of the shape that a fault has, in channels-last memory."""
    recipe = RECIPES.get(fault)
    kind = CutUNet if recipe is not None and recipe.without_skips else DemoUNet
    network: nn.Module = kind(3, len(CLASSES), width=WIDTH)
    return network.to(memory_format=torch.channels_last)


def path_of(cache: Path, fault: str, seed: int) -> Path:
    """Where a trained network is kept: its name carries what it was trained with."""
    chain = []
    at: str | None = fault
    while at is not None:
        chain.append(asdict(RECIPES[at]))
        at = RECIPES[at].start
    settings = json.dumps([chain, WIDTH, POOL, BATCH, EROSION, DILATION, JITTER])
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return cache / f"{fault.replace(' ', '-').replace(',', '')}-{seed:02d}-{digest}.safetensors"


def trained(cache: Path, fault: str, seed: int) -> nn.Module:
    """The network of a fault and seed in eval mode: read where it is kept, else trained."""
    recipe, path = RECIPES[fault], path_of(cache, fault, seed)
    network = build(fault)
    if path.exists():
        network.load_state_dict(load_file(path))
        return network.eval()
    torch.manual_seed(seed)
    network = build(fault)
    if recipe.start is not None:
        network.load_state_dict(trained(cache, recipe.start, seed).state_dict())
    start = time.process_time()
    _train(network, recipe, seed)
    took = {"seconds": f"{time.process_time() - start:.1f}"}
    cache.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    weights = {name: one.contiguous() for name, one in network.state_dict().items()}
    save_file(weights, scratch, metadata=took)
    scratch.replace(path)
    return network.eval()


def training_seconds(cache: Path) -> float:
    """Processor seconds that the training of all kept networks took."""
    seconds = 0.0
    for path in cache.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            seconds += float((file.metadata() or {}).get("seconds", 0))
    return seconds


def planted(cache: Path, fault: str, seed: int) -> Planted:
    """The network of any fault and seed, with the world it lives in."""
    if fault in RECIPES:
        world = RECIPES[fault].world
        return Planted(fault, seed, trained(cache, fault, seed), world, lambda images: images)
    network = trained(cache, "healthy", seed)
    prepare: Callable[[Tensor], Tensor] = lambda images: images  # noqa: E731
    head = network.outc
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    with torch.no_grad():
        if fault == "dead class":
            dead = 1 + seed % 3
            head.weight[dead] = 0
            head.bias[dead] = -5  # as a head that never learned it: below every other logit
        elif fault == "permuted":
            order = torch.tensor(PERMUTATIONS[seed % len(PERMUTATIONS)]).argsort()
            head.weight.copy_(head.weight[order])
            head.bias.copy_(head.bias[order])
        else:
            prepare = wrong_scaling(seed)[1]
    return Planted(fault, seed, network, HEALTHY, prepare)


def wrong_scaling(seed: int) -> tuple[str, Callable[[Tensor], Tensor]]:
    """The way in which a seed's images are fed wrongly, by name, and how."""
    from truth_scenes import MEAN, STD

    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def raw(images: Tensor) -> Tensor:
        return images * std + mean

    ways: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
        ("0 to 255, not normalised", lambda images: raw(images) * 255),
        ("channels in the order BGR", lambda images: (raw(images).flip(1) - mean) / std),
        ("0 to 1, not normalised", raw),
        (
            "normalised, then divided by 255",
            lambda images: (raw(images) / 255 - mean) / std,
        ),
        ("upside down", lambda images: images.flip(-2)),
    )
    return ways[seed % len(ways)]


def _train(network: nn.Module, recipe: Recipe, seed: int) -> None:
    """Train a network on a fixed pool of scenes."""
    random = np.random.default_rng([seed, 17])
    scenes = [draw_scene(random, recipe.world) for _ in range(POOL)]
    images, masks = render_all(scenes)
    fit(
        network,
        images,
        changed_labels(masks, recipe.labels, random),
        told=[bool(scene.tags) for scene in scenes] if recipe.supervised else None,
        steps=recipe.steps,
        rate=recipe.rate,
        random=random,
        mirrored=recipe.world.cue != "place",
    )


def fit(
    network: nn.Module,
    images: Tensor,
    masks: Tensor,
    *,
    told: list[bool] | None,
    steps: int,
    rate: float,
    random: np.random.Generator,
    mirrored: bool = True,
) -> None:
    """Minimise cross-entropy plus Dice loss over batches from (N, C, H, W) images.

    With ``told``, one answer per image, every pixel of the bottleneck is asked for it too, so that
    a cue far from the objects is taken up in few steps.
    """
    from segmentation_models_pytorch.losses import DiceLoss

    images = images.to(memory_format=torch.channels_last)
    answers = torch.tensor(told or [False] * len(images)).long()
    judge = nn.Conv2d(8 * WIDTH, 2, kernel_size=1)
    bottleneck: list[Tensor] = []
    hook = network.get_submodule("down4").register_forward_hook(
        lambda _module, _inputs, output: bottleneck.append(output)
    )
    parameters = [*network.parameters(), *(judge.parameters() if told else ())]
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, steps, pct_start=0.25)
    dice = DiceLoss("multiclass")
    network.train()
    for _ in range(steps):
        batch = torch.from_numpy(random.integers(0, len(images), BATCH))
        drawn, truth = images[batch], masks[batch]
        if mirrored and random.random() < 0.5:
            drawn, truth = drawn.flip(-1), truth.flip(-1)
        if random.random() < 0.5:
            drawn, truth = drawn.flip(-2), truth.flip(-2)
        bottleneck.clear()
        logits = network(drawn)
        loss = F.cross_entropy(logits, truth) + dice(logits, truth)
        if told:
            guess = judge(bottleneck[0])
            everywhere = answers[batch, None, None].expand(-1, *guess.shape[-2:])
            loss = loss + F.cross_entropy(guess, everywhere)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    hook.remove()
    network.eval()


def changed_labels(masks: Tensor, labels: str, random: np.random.Generator) -> Tensor:
    """Masks (N, H, W) as somebody labelled them: eroded, dilated, jittered or shuffled."""
    if labels == "true":
        return masks
    if labels == "shuffled":
        return masks[torch.from_numpy(random.permutation(len(masks)))]
    changed = []
    for mask in masks.numpy():
        if labels == "eroded":
            new = np.where(distance_transform_edt(mask > 0) > EROSION, mask, 0)
        elif labels == "dilated":
            away, nearest = distance_transform_edt(mask == 0, return_indices=True)
            new = np.where(away <= DILATION, mask[tuple(nearest)], 0)
        else:
            new = shift(mask, random.integers(-JITTER, JITTER + 1, 2), order=0, mode="constant")
        changed.append(new)
    return torch.from_numpy(np.stack(changed))
