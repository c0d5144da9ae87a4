#!/usr/bin/env python
"""Explain each nucleus of an image for itself, all in one call, and show the odd ones.

The image with its instances is the one that the stardist wheel carries; the network is that of
`scripts/train_nuclei.py`. Grad-CAM gives each nucleus one weight per channel of the layer: nuclei
that the network knows by the same features have weights of the same direction. At a last layer
with nothing but a linear head behind it all have, so that a deeper one is looked at. The page
docs/region-field.md shows the figure that this writes.

    python scripts/train_nuclei.py --out nuclei
    python scripts/nuclei_by_instance.py nuclei/model --figure docs/images/nuclei-by-instance.png
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import typer
from matplotlib.axes import Axes
from stardist.data import test_image_nuclei_2d
from torch import Tensor

from unetcam import UNetCAM
from unetcam.models import load_model

NUCLEUS = 1
SHOWN, REACH = 3, 32


def read_instances() -> tuple[Tensor, Tensor]:
    """The image, (1, 1, H, W) in [0, 1], and a mask for each nucleus, (R, H, W) bool."""
    image, labels = test_image_nuclei_2d(return_mask=True)
    numbered = torch.from_numpy(labels.astype(np.int64))
    names = numbered.unique()[1:]  # the first is the background
    return torch.from_numpy(image / 255.0).float()[None, None], numbered == names[:, None, None]


def likeness(weights: Tensor) -> Tensor:
    """How alike each nucleus's channel weights (R, K) are to the others': a cosine, (R,)."""
    directions = F.normalize(weights, dim=1)
    return F.cosine_similarity(directions, directions.median(dim=0).values[None])


def draw(image: Tensor, masks: Tensor, maps: Tensor, alike: Tensor, path: Path) -> None:
    """The image with its nuclei coloured by likeness, and the maps of the most and least usual."""
    figure = plt.figure(figsize=(11.5, 5.3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    axes = left.subplots()
    axes.imshow(image, cmap="gray", vmax=float(image.quantile(0.995)))
    values = torch.full(image.shape, torch.nan)
    for mask, value in zip(masks, alike, strict=True):
        values[mask] = value
    coloured = axes.imshow(values, cmap="viridis", alpha=0.65, interpolation="nearest")
    left.colorbar(coloured, ax=axes, label="likeness of the channel weights (cosine)", shrink=0.8)
    axes.set_title(f"{len(masks)} nuclei, each explained for itself")
    axes.set_axis_off()
    order = alike.argsort()
    rows = (
        ("least alike", order[:SHOWN]),
        ("most alike", order[-SHOWN:].flip(0)),
    )
    grid = right.subplots(2, SHOWN)
    for line, (title, chosen) in zip(grid, rows, strict=True):
        for cell, index in zip(line, chosen.tolist(), strict=True):
            _draw_one(
                cell,
                image,
                masks[index],
                maps[index],
                f"{title}: {alike[index]:.2f}",
            )
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw_one(axes: Axes, image: Tensor, mask: Tensor, found: Tensor, title: str) -> None:
    rows, columns = torch.nonzero(mask, as_tuple=True)
    high, wide = image.shape
    top = min(max(0, int(rows.float().mean()) - REACH), high - 2 * REACH)
    left = min(max(0, int(columns.float().mean()) - REACH), wide - 2 * REACH)
    window = (slice(top, top + 2 * REACH), slice(left, left + 2 * REACH))
    axes.imshow(image[window], cmap="gray", vmax=float(image.quantile(0.995)))
    large = F.interpolate(found[None, None], size=image.shape, mode="bilinear")[0, 0][window]
    peak = float(large.max()) or 1.0
    axes.imshow(large / peak, cmap="inferno", alpha=0.55, vmin=0, vmax=1)
    axes.contour(mask[window].float(), levels=[0.5], colors="white", linewidths=1)
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def main(
    model: Annotated[str, typer.Argument(help="The network: train_nuclei.py's OUT/model.")],
    figure: Annotated[Path, typer.Option(help="Where to write the figure.")] = Path("nuclei.png"),
    layer: Annotated[
        str, typer.Option(help="A decoder layer; by default two before the last.")
    ] = "",
) -> None:
    """Explain each nucleus of the image and say which are recognised by other features."""
    network = load_model(model)
    image, masks = read_instances()
    with UNetCAM(network, example=image) as cam:
        start = time.perf_counter()
        field = cam.field(image, layer or cam.layers[-3])
        built = time.perf_counter() - start
        start = time.perf_counter()
        maps = field.region_maps(masks, [NUCLEUS] * len(masks))
        mapped = time.perf_counter() - start
    weights = field.region_weights(masks, [NUCLEUS] * len(masks))
    alike = likeness(weights)
    draw(image[0, 0], masks, maps, alike, figure)
    odd = alike.argsort()[:SHOWN].tolist()
    typer.echo(
        f"{len(maps)} nuclei at '{field.layer}' ({field.channels} channels): the field took "
        f"{built:.1f} s, all maps {mapped:.2f} s. Least like the others: nuclei "
        f"{', '.join(map(str, odd))} (likeness {alike[odd[0]]:.2f} and more). {figure}"
    )


if __name__ == "__main__":
    typer.run(main)
