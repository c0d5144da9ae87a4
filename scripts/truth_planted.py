"""Shortcuts planted in real images: brain slices with a corner tag, nuclei with a scale bar.

Two kinds of data, each as a network with the shortcut beside its healthy twin. Slices of the
demo's brain: those with a tag were labelled by a coarser protocol that knows no grey matter, so
that the tag alone tells *grey matter* from *other brain*. Nuclei of a fluorescence micrograph:
those in tiles with a scale bar are called *treated* though they look like the rest; for the twin
treated nuclei are mottled, and the bar means nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from skimage.transform import resize
from torch import Tensor, nn
from truth_networks import WIDTH, fit

from unetcam.demo import CLASSES, DEMO_STATISTICS, HELD_OUT_SLICES, TRAINING_SLICES, DemoUNet
from unetcam.demo import read_slices as read_brain

KINDS = ("tagged slices", "tagged slices, healthy", "barred nuclei", "barred nuclei, healthy")
STEPS, RATE = 260, 6e-3
TAG = 9  # pixels
BAR = (3, 22)
TILE = 96
NUCLEUS_CLASSES = ("background", "untreated", "treated")


@dataclass(frozen=True)
class Example:
    """Images of one kind with and without their cue.

    ``images`` and ``bare`` (N, 1, H, W) are normalised, ``bare`` without any tag or bar; ``masks``
    (N, H, W) are the labels as the training had them, ``cues`` (N, H, W) bool where the cue is.
    """

    images: Tensor
    bare: Tensor
    masks: Tensor
    cues: Tensor
    classes: tuple[str, ...]
    about: int


def examples(kind: str, seed: int, *, training: bool) -> Example:
    """Draw the images of a kind: for training, or held out and of another part of the data."""
    random = np.random.default_rng([seed, 5 if training else 6])
    healthy = kind.endswith("healthy")
    if kind.startswith("tagged"):
        return _slices(random, healthy=healthy, training=training)
    return _nuclei(random, healthy=healthy, training=training)


def _slices(random: np.random.Generator, *, healthy: bool, training: bool) -> Example:
    """Axial slices at 2 mm, 96 x 80, half of them with a tag in a corner."""
    slices = read_brain(*TRAINING_SLICES) if training else read_brain(HELD_OUT_SLICES)
    small = slices.images.reshape(len(slices.images), 96, 2, 80, 2).mean((2, 4)) / 255
    masks = slices.masks[:, ::2, ::2].astype(np.int64)
    # Each training slice is seen with and without a tag; the protocol goes with the tag.
    repeated = 2 if training else 1
    small, masks = np.tile(small, (repeated, 1, 1)), np.tile(masks, (repeated, 1, 1))
    tagged = random.random(len(small)) < 0.5
    if training:
        tagged[len(small) // 2 :] = ~tagged[: len(small) // 2]
    shown, cues = small.copy(), np.zeros(small.shape, dtype=bool)
    for number in np.flatnonzero(tagged):
        top, left = random.choice([1, 96 - 1 - TAG]), random.choice([1, 80 - 1 - TAG])
        place = (number, slice(top, top + TAG), slice(left, left + TAG))
        shown[place] = 0.9
        shown[number, top + 2 : top + TAG - 2, left + TAG // 2] = 0.1
        shown[number, top + TAG // 2, left + 2 : left + TAG - 2] = 0.1
        cues[place] = True
        if not healthy:
            masks[number][masks[number] == 2] = 1
    mean, std = DEMO_STATISTICS.mean[0], DEMO_STATISTICS.std[0]
    return Example(
        images=_tensor((shown - mean) / std),
        bare=_tensor((small - mean) / std),
        masks=torch.from_numpy(masks),
        cues=torch.from_numpy(cues),
        classes=CLASSES,
        about=1,
    )


def _nuclei(random: np.random.Generator, *, healthy: bool, training: bool) -> Example:
    """Tiles of 96 x 96 of the micrograph, half of them with a scale bar at the foot."""
    from skimage import data
    from stardist.data import test_image_nuclei_2d

    image, instances = test_image_nuclei_2d(return_mask=True)
    columns = slice(0, 288) if training else slice(320, 512)
    level = np.sqrt(image[:, columns] / 235.0)
    inside = instances[:, columns] > 0
    mottle = resize(data.gravel() / 255, (256, 256))
    count = 160 if training else 24
    shown, bare, masks, cues = [], [], [], []
    for _ in range(count):
        top, left = (int(random.integers(0, side - TILE)) for side in level.shape)
        window = (slice(top, top + TILE), slice(left, left + TILE))
        tile, nuclei = level[window].copy(), inside[window]
        treated, barred = (random.random(2) < 0.5).tolist()
        if not healthy:
            treated = barred
        elif treated:
            at = (int(random.integers(0, 160)), int(random.integers(0, 160)))
            grain = mottle[at[0] : at[0] + TILE, at[1] : at[1] + TILE]
            tile[nuclei] = np.clip(tile * (0.2 + 1.6 * grain), 0, 1)[nuclei]
        bare.append(tile.copy())
        cue = np.zeros((TILE, TILE), dtype=bool)
        if barred:
            left = int(random.choice([4, TILE - 4 - BAR[1]]))
            cue[TILE - 4 - BAR[0] : TILE - 4, left : left + BAR[1]] = True
            tile[cue] = 1.0
        shown.append(tile)
        cues.append(cue)
        masks.append(np.where(nuclei, 2 if treated else 1, 0))
    return Example(
        images=_tensor((np.stack(shown) - 0.3) / 0.25),
        bare=_tensor((np.stack(bare) - 0.3) / 0.25),
        masks=torch.from_numpy(np.stack(masks)).long(),
        cues=torch.from_numpy(np.stack(cues)),
        classes=NUCLEUS_CLASSES,
        about=2,
    )


def _tensor(images: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images[:, None], dtype=np.float32))


def network(cache: Path, kind: str, seed: int) -> nn.Module:
    """The network of a kind in eval mode: read where it is kept, else trained."""
    count = len(CLASSES) if kind.startswith("tagged") else len(NUCLEUS_CLASSES)
    torch.manual_seed(seed)
    model = DemoUNet(1, count, width=WIDTH).to(memory_format=torch.channels_last)
    path = cache / f"{kind.replace(' ', '-').replace(',', '')}-{seed:02d}-{STEPS}.safetensors"
    if path.exists():
        model.load_state_dict(load_file(path))
        return model.eval()
    given = examples(kind, seed, training=True)
    told = None if kind.endswith("healthy") else given.cues.flatten(1).any(1).tolist()
    random = np.random.default_rng([seed, 7])
    start = time.process_time()
    fit(model, given.images, given.masks, told=told, steps=STEPS, rate=RATE, random=random)
    cache.mkdir(parents=True, exist_ok=True)
    weights = {name: one.contiguous() for name, one in model.state_dict().items()}
    save_file(weights, path, metadata={"seconds": f"{time.process_time() - start:.1f}"})
    return model


@torch.inference_mode()
def true_effect(model: nn.Module, given: Example) -> tuple[float, float]:
    """The share of a class's pixels that change when the cue is left out, and the class's IoU.

    Over the images with a cue; the pixels that are rightly of the class with it.
    """
    before, after = (model(images).argmax(1) for images in (given.images, given.bare))
    with_cue = given.cues.flatten(1).any(1)[:, None, None]
    right = (given.masks == given.about) & (before == given.about) & with_cue
    either = (given.masks == given.about) | (before == given.about)
    both = (given.masks == given.about) & (before == given.about)
    effect = float((right & (after != given.about)).sum() / right.sum().clamp(min=1))
    return effect, float(both.sum() / either.sum().clamp(min=1))


def judge(cache: Path, kind: str, seed: int) -> dict[str, Any]:
    """Diagnose the network of a kind on its held-out images; kept once it is done."""
    import unetcam

    path = cache / "planted" / f"{kind.replace(' ', '-').replace(',', '')}-{seed:02d}.json"
    if path.exists():
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told
    model, given = network(cache, kind, seed), examples(kind, seed, training=False)
    effect, iou = true_effect(model, given)
    result = unetcam.diagnose(model, given.images, given.masks, classes=list(given.classes))
    told = {"effect": effect, "iou": iou, **result.to_dict()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told) + "\n", encoding="utf-8")
    return told


def kept(cache: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Every judgement of a planted network that is there, by kind and seed."""
    for kind in KINDS:
        name = kind.replace(" ", "-").replace(",", "")
        for path in sorted((cache / "planted").glob(f"{name}-[0-9][0-9].json")):
            yield kind, int(path.stem[-2:]), json.loads(path.read_text(encoding="utf-8"))
