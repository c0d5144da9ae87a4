#!/usr/bin/env python
"""Train the demo's network on axial slices of the MNI152 T1 template.

The template is one averaged volume: the slices held out come from the same volume, 10 mm or more
away from the training slices, so the figures say nothing about patients.

    python scripts/train_demo.py --out unetcam/demo
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Annotated, Any

import albumentations as A
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unetcam.demo import (
    CLASSES,
    DEMO_STATISTICS,
    HELD_OUT_SLICES,
    TRAINING_SLICES,
    DemoUNet,
    held_out_iou,
    read_slices,
)


class AugmentedSlices(Dataset[tuple[Tensor, Tensor]]):
    """Training slices, each flipped, moved and relit anew, image and mask by the same draw."""

    def __init__(self, images: np.ndarray, masks: np.ndarray, seed: int) -> None:
        self.images, self.masks = images, masks
        self.augment = A.Compose(
            [
                A.HorizontalFlip(p=0.5),
                A.Affine(
                    scale=(0.8, 1.15),
                    rotate=(-12, 12),
                    shear=(-4, 4),
                    translate_percent=0.04,
                    p=0.8,
                ),
                A.RandomBrightnessContrast(brightness_limit=0.05, contrast_limit=0.06, p=0.5),
                A.Normalize(mean=DEMO_STATISTICS.mean, std=DEMO_STATISTICS.std),
                A.ToTensorV2(),
            ],
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        drawn = self.augment(image=self.images[index][..., None], mask=self.masks[index])
        return drawn["image"], drawn["mask"].long()


def train(
    model: torch.nn.Module, loader: DataLoader[tuple[Tensor, Tensor]], epochs: int, rate: float
) -> None:
    """Minimise cross-entropy plus Dice loss, with a learning rate that warms up and decays."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, epochs * len(loader))
    cross_entropy, dice = torch.nn.CrossEntropyLoss(), DiceLoss("multiclass")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    model.train()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("training", total=epochs)
        for _ in range(epochs):
            losses = []
            for images, masks in loader:
                logits = model(images)
                loss = cross_entropy(logits, masks) + dice(logits, masks)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
            mean = torch.stack(losses).mean()
            progress.update(task, advance=1, description=f"training, loss {mean:.3f}")
    model.eval()


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights.safetensors and weights.json.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training slices.")] = 24,
    batch_size: Annotated[int, typer.Option(min=2, help="Slices per step.")] = 8,
    rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 6e-3,
    seed: Annotated[int, typer.Option(help="Seed of weights, order and augmentation.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for torch.")] = 2,
) -> None:
    """Train the demo's U-Net on the CPU, measure it on the held-out slices, write both."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    slices = read_slices(*TRAINING_SLICES)
    loader = DataLoader(
        AugmentedSlices(slices.images, slices.masks, seed),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        generator=torch.Generator().manual_seed(seed),
    )
    model = DemoUNet(in_channels=1, classes=len(CLASSES))
    start = time.perf_counter()
    train(model, loader, epochs, rate)
    seconds = time.perf_counter() - start
    iou = held_out_iou(model).tolist()

    out.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), out / "weights.safetensors")
    metadata: dict[str, Any] = {
        "data": "MNI152 T1 template (ICBM 2009a, one averaged volume), 1 mm axial slices",
        "statistics": DEMO_STATISTICS._asdict(),
        "training_slices": [[part.start, part.stop] for part in TRAINING_SLICES],
        "held_out_slices": [HELD_OUT_SLICES.start, HELD_OUT_SLICES.stop],
        "held_out_iou": {name: round(value, 4) for name, value in zip(CLASSES, iou, strict=True)},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": rate,
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    (out / "weights.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    summary = ", ".join(f"{name} {value:.3f}" for name, value in metadata["held_out_iou"].items())
    typer.echo(f"Held-out IoU after {seconds:.0f} s: {summary}.")


if __name__ == "__main__":
    typer.run(main)
