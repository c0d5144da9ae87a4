#!/usr/bin/env python3
"""Draw docs/images/targets.png: one image, one class, one layer, and what each target shows.

python scripts/picture_targets.py      (needs the extra "demo")
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unetcam import UNetCAM
from unetcam.demo import CLASSES, DEMO_STATISTICS, load_demo_model, read_slices
from unetcam.page.overlays import Bytes, outlined, overlay, resized
from unetcam.targets import (
    Band,
    ClassScore,
    Component,
    Contrast,
    FalseNegatives,
    FalsePositives,
    PredictedRegion,
    RegionScore,
    TruthRegion,
)

OUT = Path(__file__).resolve().parent.parent / "docs" / "images" / "targets.png"
SLICE, LAYER, WIDTH = 90, "up2", 640
CLASS = CLASSES.index("grey matter")
COLUMNS = 5


def panels(truth: Tensor) -> list[tuple[str, RegionScore]]:
    """What is drawn beside the image itself."""
    made_up, missed = FalsePositives(CLASS, truth), FalseNegatives(CLASS, truth)
    return [
        ("ClassScore(c)", ClassScore(CLASS)),
        ("PredictedRegion(c)", PredictedRegion(CLASS)),
        ("Band(c, of=TruthRegion(c, truth))", Band(CLASS, of=TruthRegion(CLASS, truth))),
        ("Contrast(c)", Contrast(CLASS)),
        ("FalsePositives(c, truth)", made_up),
        (
            "Contrast(c, truth, within=\nFalsePositives(c, truth))",
            Contrast(CLASS, truth, within=made_up),
        ),
        ("FalseNegatives(c, truth)", missed),
        ("Contrast(c, within=\nFalseNegatives(c, truth))", Contrast(CLASS, within=missed)),
        ("Component(c, of=\nFalsePositives(c, truth))", Component(CLASS, of=made_up)),
    ]


def main() -> None:
    """Explain the slice and write the picture."""
    slices = read_slices(range(SLICE, SLICE + 1))
    truth = torch.from_numpy(slices.masks.astype(np.int64))
    scaled = torch.from_numpy(slices.images[:, None] / np.float32(255))
    image = (scaled - DEMO_STATISTICS.mean[0]) / DEMO_STATISTICS.std[0]
    drawn = panels(truth)
    result = UNetCAM(load_demo_model(), [LAYER], "hirescam")(image, [target for _, target in drawn])
    maps = result.resized().scaled()[LAYER][0].numpy()
    picture = np.repeat(slices.images[0][..., None], 3, axis=2)
    predicted = result.logits[0].argmax(0).numpy() == CLASS
    true = truth[0].numpy() == CLASS
    outlines = outlined(resized(picture, WIDTH), true, predicted)
    shown: list[tuple[str, Bytes, NDArray[np.bool_] | None]] = [
        ("the truth (white) and\nthe prediction (blue)", outlines, None)
    ]
    for (title, target), heat in zip(drawn, maps, strict=True):
        pixels = target.pixels(result.logits)
        region = None if pixels is None else pixels[0].numpy()
        shown.append((title, overlay(picture, heat, width=WIDTH), region))
    rows, (height, width) = -(-len(shown) // COLUMNS), picture.shape[:2]
    figure = Figure(figsize=(2.9 * COLUMNS, 3.95 * rows), dpi=90, layout="constrained")
    for axes, (title, colours, region) in zip(
        figure.subplots(rows, COLUMNS).flat, shown, strict=True
    ):
        axes.imshow(colours, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        if region is not None:
            axes.contour(region, [0.5], colors="white", linewidths=0.5)
        axes.set_title(title, fontsize=11)
        axes.axis("off")
    buffer = io.BytesIO()
    figure.savefig(buffer)
    Image.open(buffer).convert("RGB").quantize(256).save(OUT, optimize=True)


if __name__ == "__main__":
    main()
