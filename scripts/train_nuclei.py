#!/usr/bin/env python
"""Train a small smp network on the fluorescence nuclei that the stardist wheel carries.

It makes what ``unetcam report`` needs to be tried on a second kind of data: one image of the 2018
Data Science Bowl (Caicedo et al., Nature Methods 16, 2019) is cut by columns into a training part
and a held-out part with a gap between them. One image is no benchmark; the figures only tell that
the network has learnt something to be explained.

    python scripts/train_nuclei.py --out nuclei
    unetcam report nuclei/model --images nuclei/images --masks nuclei/masks \
        --classes nuclei/classes.csv --out run
"""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Annotated, Any

import albumentations as A
import numpy as np
import segmentation_models_pytorch as smp
import torch
import typer
from PIL import Image, ImageColor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from skimage.segmentation import find_boundaries
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.classification import multiclass_jaccard_index

CLASSES = ("background", "nucleus", "boundary")
COLOURS = ("#7f7f7f", "#0072b2", "#e69f00")
TRAINING_COLUMNS = slice(0, 288)
HELD_OUT_COLUMNS = slice(320, 512)  # 32 columns further on: about the length of one nucleus
TILE = 96
NETWORK: dict[str, Any] = {
    "encoder_name": "tu-tf_mobilenetv3_small_minimal_100",
    "encoder_depth": 4,
    "decoder_channels": (64, 48, 32, 16),
    "in_channels": 1,
    "classes": len(CLASSES),
}


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Random crops of the training part, image and mask cut, turned and relit by one draw."""

    def __init__(self, image: np.ndarray, mask: np.ndarray, count: int, seed: int) -> None:
        self.image, self.mask, self.count = image[..., None], mask, count
        self.augment = A.Compose(
            [
                A.RandomCrop(TILE, TILE),
                A.SquareSymmetry(p=1.0),
                A.Affine(scale=(0.85, 1.2), rotate=(-30, 30), border_mode=2, p=0.5),
                A.RandomBrightnessContrast(
                    brightness_limit=0.03, contrast_limit=0.3, ensure_safe_range=True, p=0.7
                ),
                A.ToFloat(max_value=255),
                A.ToTensorV2(),
            ],
            seed=seed,
        )

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        drawn = self.augment(image=self.image, mask=self.mask)
        return drawn["image"], drawn["mask"].long()


def read_nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Read the image as (512, 512) uint8 and its mask of classes as (512, 512) uint8."""
    try:
        from stardist.data import test_image_nuclei_2d
    except ImportError as error:
        raise typer.BadParameter(
            "the nuclei come with stardist, which is not installed; run: pip install stardist"
        ) from error
    image, instances = test_image_nuclei_2d(return_mask=True)
    mask = (instances > 0).astype(np.uint8)
    # The seam between two touching nuclei is what a network needs telling apart.
    mask[find_boundaries(instances, mode="inner")] = 2
    return image.astype(np.uint8), mask  # stored as 16 bits, but 235 at the most


def held_out_tiles(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut the held-out columns into whole tiles: two (N, 96, 96) uint8 stacks."""

    def tiles(whole: np.ndarray) -> np.ndarray:
        part = whole[:, HELD_OUT_COLUMNS]
        rows, columns = part.shape[0] // TILE, part.shape[1] // TILE
        cut = part[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE)
        return cut.swapaxes(1, 2).reshape(-1, TILE, TILE)

    return tiles(image), tiles(mask)


def write_tiles(out: Path, images: np.ndarray, masks: np.ndarray) -> None:
    """Write tiles as PNG images, palette PNG masks, and the table of the classes."""
    for name in ("images", "masks"):
        (out / name).mkdir(parents=True, exist_ok=True)
    palette = [level for colour in COLOURS for level in ImageColor.getrgb(colour)]
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(out / "images" / f"nuclei_{index:02d}.png")
        indexed = Image.fromarray(mask)
        indexed.putpalette(palette)
        indexed.save(out / "masks" / f"nuclei_{index:02d}.png")
    with (out / "classes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "value", "colour"])
        rows.writerows(zip(CLASSES, range(len(CLASSES)), COLOURS, strict=True))


def held_out_iou(model: torch.nn.Module, images: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """Measure the IoU per class, pooled over the pixels of all held-out tiles."""
    model.eval()
    with torch.inference_mode():
        logits = model(torch.from_numpy(images).unsqueeze(1).float() / 255)
    truth = torch.from_numpy(masks).long()
    iou = multiclass_jaccard_index(logits, truth, num_classes=len(CLASSES), average="none")
    return {name: round(value, 4) for name, value in zip(CLASSES, iou.tolist(), strict=True)}


def main(
    out: Annotated[Path, typer.Option(help="Folder for the network and the held-out tiles.")],
    epochs: Annotated[int, typer.Option(min=3, help="Rounds of random crops.")] = 30,
    crops: Annotated[int, typer.Option(min=8, help="Crops per round.")] = 64,
    batch_size: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 8,
    rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 5e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for torch.")] = 2,
) -> None:
    """Train, measure on the held-out tiles, and write the network in both forms.

    `model/` is what smp's save_pretrained writes; `weights.safetensors` holds the same weights
    for `smp:Unet` with the arguments in `nuclei.json`, and `early.safetensors` those after a
    third of the training, to compare with.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    image, mask = read_nuclei()
    images, masks = held_out_tiles(image, mask)
    write_tiles(out, images, masks)

    training = Crops(image[:, TRAINING_COLUMNS], mask[:, TRAINING_COLUMNS], crops, seed)
    loader = DataLoader(training, batch_size=batch_size, drop_last=True)
    model = smp.Unet(encoder_weights=None, **NETWORK)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * len(loader))
    cross_entropy = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 1.0, 2.0]))
    dice = smp.losses.DiceLoss("multiclass")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    start = time.perf_counter()
    early: dict[str, float] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=epochs)
        for epoch in range(1, epochs + 1):
            losses = []
            model.train()
            for batch, truth in loader:
                logits = model(batch)
                loss = cross_entropy(logits, truth) + dice(logits, truth)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean()
            progress.update(task, advance=1, description=f"training, loss {mean:.3f}")
            if epoch == epochs // 3:
                early = held_out_iou(model, images, masks)
                save_file(model.state_dict(), out / "early.safetensors")
    seconds = time.perf_counter() - start

    iou = held_out_iou(model, images, masks)
    model.save_pretrained(out / "model")
    save_file(model.state_dict(), out / "weights.safetensors")
    record = {
        "model": "smp:Unet",
        "model_args": NETWORK,
        "held_out_iou": iou,
        "early_held_out_iou": early,
        "held_out_tiles": len(images),
        "seed": seed,
        "epochs": epochs,
        "seconds": round(seconds, 1),
    }
    (out / "nuclei.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    summary = ", ".join(f"{name} {value:.3f}" for name, value in iou.items())
    typer.echo(f"Held-out IoU after {seconds:.0f} s: {summary}.")


if __name__ == "__main__":
    typer.run(main)
