"""A small finished run, made up but measured for real: scenes, predictions and maps with faults.

The maps are built so that each class has a known character: "sound" follows the class, "scattered"
lies evenly over the image, "elsewhere" has a hot spot far from the class, "hollow" fades towards
the edge, "silent" is empty. The rows come from the project's own measures.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy import ndimage

from unetcam.diagnosis import Diagnosis, Evidence, Finding, TestRecord
from unetcam.measures import Geometry, measure
from unetcam.page.gallery import Example, Origin, choose_examples
from unetcam.page.mistakes import Errors, Mistake
from unetcam.runs.sanity import Checked
from unetcam.runs.summary import summarise

PALETTE = ("#888888", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")


@dataclass(frozen=True)
class Classes:
    names: tuple[str, ...]

    def display_colours(self) -> list[str]:
        return [PALETTE[index % len(PALETTE)] for index in range(len(self.names))]


@dataclass(frozen=True)
class Skipped:
    id: str
    file: str
    reason: str


@dataclass
class Run:
    path: Path
    meta: dict[str, Any]
    rows: pd.DataFrame
    summary: pd.DataFrame
    skipped: list[Skipped]
    layers: list[str]
    classes: Classes
    pictures: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    undiagnosed: str = "It was left out, as diagnose=False says."
    checked: Checked = field(
        default_factory=lambda: Checked(None, "It was left out, as check=False says.")
    )

    def examples(self) -> list[Example]:
        """Build the examples that the report chooses, as the report's task does."""
        iou = self.rows.set_index(["image", "layer", "class_index"])["class_iou"]
        examples = []
        for index, role, image in choose_examples(self.rows, self.layers):
            picture, truth, prediction, maps = self.pictures[image]
            scaled = {}
            for layer, stack in maps.items():
                peak = stack[index].max()
                scaled[layer] = stack[index] / peak if peak > 0 else stack[index]
            score = float(iou[image, self.layers[-1], index])
            origin = Origin("down1", 1, scaled[self.layers[-1]])
            examples.append(
                Example(
                    index, role, image, score, picture, truth, prediction, scaled, origin=origin
                )
            )
        return examples

    def mistakes(self) -> list[Mistake]:
        """Build the mistakes that the report shows, as the report's task does."""
        mistakes = []
        for pair in Errors(self).pairs():
            picture, truth, prediction, maps = self.pictures[pair.worst]
            heat = maps[self.layers[-1]][pair.taken_for]
            why = tuple(
                Origin(layer, 1, heat / max(heat.max(), 1e-9)) for layer in ("down1", "up4")
            )
            mistakes.append(Mistake(pair, picture, truth, prediction, why))
        return mistakes

    def diagnosis(self, *, healthy: bool = False) -> Diagnosis:
        """A diagnosis as the tests' engineer would make it, of the class "elsewhere"."""
        index = self.classes.names.index("elsewhere") if "elsewhere" in self.classes.names else 1
        name, image = self.classes.names[index], next(iter(self.pictures))
        tests = tuple(
            TestRecord(
                kind, number, other, len(self.pictures),
                not healthy and (kind, number) == ("leans-on-surroundings", index),
                0.42 if number == index else 0.01, 0.011, 0.08, "Hiding it flips too few pixels.",
            )
            for kind in ("leans-on-surroundings", "outline-too-tight")
            for number, other in enumerate(self.classes.names)
        )  # fmt: skip
        if healthy:
            return Diagnosis((), tests, 3.0, 400)
        picture, truth, prediction, _ = self.pictures[image]
        hidden = np.zeros(truth.shape, bool)
        hidden[5:20, 5:20] = True
        changed = picture.copy()
        changed[hidden] = 128
        evidence = Evidence(
            image, "Hiding the marked corner loses the object.", picture, changed,
            truth == index, prediction == index, np.zeros(truth.shape, bool), hidden,
        )  # fmt: skip
        finding = Finding(
            "leans-on-surroundings", index, name, "high",
            f"Hiding what lies away from {name} flips 42 % of its pixels.",
            0.42, "share of the class's pixels that flip", 0.011, (0.31, 0.55),
            (image,), len(self.pictures), ("the image's mean", "a blur"),
            "Add images in which the corner says nothing about the class.", 0.12, (evidence,),
            {"window_side": 12.0},
        )  # fmt: skip
        return Diagnosis((finding,), tests, 3.0, 400)


def scene(
    rng: np.random.Generator, shape: tuple[int, int], classes: int, absent: float
) -> NDArray[np.int64]:
    """Smooth blobs, one for each class but the background, none too thin."""
    truth = np.zeros(shape, np.int64)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for index in range(1, classes):
        if rng.random() < absent:
            continue
        y, x = rng.uniform(0.2, 0.8, 2) * shape
        radius = rng.uniform(0.13, 0.2) * min(shape)
        stretch = rng.uniform(0.8, 1.3)
        truth[((rows - y) * stretch) ** 2 + ((columns - x) / stretch) ** 2 < radius**2] = index
    return truth


def character_map(
    rng: np.random.Generator, inside: NDArray[np.bool_], character: str, stride: int
) -> NDArray[np.float32]:
    """Make a map of a known character at a layer's resolution, brought to full size."""
    noise = rng.random(inside.shape)
    depth = ndimage.distance_transform_edt(inside)
    if character == "silent":
        return np.zeros(inside.shape, np.float32)
    if character == "scattered":
        values = 0.75 + 0.25 * noise + 0.1 * inside
    elif character == "hollow":
        values = (depth / max(depth.max(), 1)) ** 2.5 + 0.002 * noise
    else:
        values = inside * (0.8 + 0.2 * noise) + 0.002 * noise
    if character == "elsewhere" and inside.any():
        away = ndimage.distance_transform_edt(~inside)
        y, x = np.unravel_index(int(away.argmax()), away.shape)
        rows, columns = np.mgrid[: inside.shape[0], : inside.shape[1]]
        radius = 0.14 * min(inside.shape)
        values = values + 1.3 * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))
    return ndimage.gaussian_filter(values, 0.35 * stride).astype(np.float32)


def make_run(
    folder: Path,
    *,
    names: tuple[str, ...] = ("background", "sound", "elsewhere", "hollow", "scattered"),
    characters: tuple[str, ...] = ("sound", "sound", "elsewhere", "hollow", "scattered"),
    strides: tuple[int, ...] = (16, 8, 4, 2),
    images: int = 8,
    shape: tuple[int, int] = (96, 128),
    absent: float = 0.15,
    seed: int = 7,
    image_names: dict[int, str] | None = None,
    layer_names: tuple[str, ...] | None = None,
    skipped: tuple[Skipped, ...] = (),
) -> Run:
    """Make a run; deterministic in its arguments."""
    rng = np.random.default_rng(seed)
    classes = len(names)
    layers = list(layer_names or (f"up{place + 1}" for place in range(len(strides))))
    ids = [(image_names or {}).get(number, f"plate_{number:03d}") for number in range(images)]
    truths = np.stack([scene(rng, shape, classes, absent) for _ in ids])
    predictions = np.stack([np.roll(t, rng.integers(-4, 5, 2), (0, 1)) for t in truths])
    maps = {
        layer: np.stack(
            [
                [
                    character_map(rng, truth == index, characters[index], stride)
                    for index in range(classes)
                ]
                for truth in truths
            ]
        )
        for layer, stride in zip(layers, strides, strict=True)
    }
    truth, prediction = torch.from_numpy(truths), torch.from_numpy(predictions)
    geometry = Geometry(truth, range(classes), prediction, num_classes=classes)
    found = {
        layer: measure(
            torch.from_numpy(stack), range(classes), truth, prediction,
            num_classes=classes, geometry=geometry,
        )
        for layer, stack in maps.items()
    }  # fmt: skip
    rows = [
        pd.DataFrame(
            {
                "image": name, "layer": layer, "stage_stride": stride,
                "class_index": range(classes), "class_name": names,
                "target": "class", "method": "gradcam",
                **{key: value[number].tolist() for key, value in found[layer].items()},
            }
        )
        for number, name in enumerate(ids)
        for layer, stride in zip(layers, strides, strict=True)
    ]  # fmt: skip
    pictures = {}
    for number, name in enumerate(ids):
        shade = np.linspace(60, 220, classes)[truths[number]] + rng.normal(0, 12, shape)
        grey = ndimage.gaussian_filter(shade, 0.7).clip(0, 255).astype(np.uint8)
        pictures[name] = (
            np.repeat(grey[..., None], 3, 2), truths[number], predictions[number],
            {layer: stack[number] for layer, stack in maps.items()},
        )  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    with_nulls(table, rng)
    with_confusion(table, ids, truths, predictions)
    meta = {
        "schema_version": 1,
        "fingerprint": "0" * 64,
        "started": "2026-01-15T09:30:00+00:00",
        "finished": "2026-01-15T09:41:00+00:00",
        "spec": {
            "model": "plates/unet-small",
            "method": "gradcam",
            "target": "class",
            "layers": layers,
            "threshold": 0.5,
            "seed": seed,
        },
        "versions": {"unetcam": "0.1.0"},
        "skipped": [],
    }
    return Run(
        folder, meta, table, summarise(table, draws=200), list(skipped), layers,
        Classes(names), pictures,
    )  # fmt: skip


def with_nulls(rows: pd.DataFrame, rng: np.random.Generator) -> None:
    """Add what random channel weights would give: near the maps' numbers but for the finest."""
    finest = rows["layer"] == rows["layer"].iloc[-1]
    for name in ("truth_energy", "outside_far_share", "boundary_ratio", "effective_area"):
        noise = rng.normal(0, 0.05, len(rows))
        values = rows[name].astype(float)
        null = (values * (1 + noise)).where(~finest, 2 * values + 0.5)
        rows[f"{name}_null"] = null
        rows[f"{name}_null_low"], rows[f"{name}_null_high"] = 0.8 * null, 1.25 * null


def with_confusion(
    rows: pd.DataFrame,
    ids: list[str],
    truths: NDArray[np.int64],
    predictions: NDArray[np.int64],
) -> None:
    """Add how many pixels of the row's class are predicted as each class."""
    classes = int(rows["class_index"].max()) + 1
    counts = {
        name: np.bincount((truth * classes + prediction).ravel(), minlength=classes**2).reshape(
            classes, classes
        )
        for name, truth, prediction in zip(ids, truths, predictions, strict=True)
    }
    for other in range(classes):
        rows[f"predicted_as_{other}"] = [
            int(counts[image][index, other])
            for image, index in zip(rows["image"], rows["class_index"], strict=True)
        ]
