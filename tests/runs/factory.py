"""A tiny data set and a tiny network, made anew for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from unetcam.runs import Plan, Spec, prepare

CLASSES = "background,cell,border"

SOURCE = """
import torch
from torch import nn
from tests.runs.factory import TinyUNet


def build(classes=3, seed=2):
    torch.manual_seed(seed)
    return TinyUNet(classes)
"""


class TinyUNet(nn.Module):
    """Two strides, one skip; three channels in."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.inc = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU())
        self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.up1 = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU())
        self.up2 = nn.Sequential(nn.Conv2d(12, 6, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(6, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.inc(x)
        second = self.down(first)
        up = nn.functional.interpolate(self.low(second), scale_factor=2)
        up = self.up1(torch.cat([up, second], dim=1))
        up = nn.functional.interpolate(up, scale_factor=2)
        return self.out(self.up2(torch.cat([up, first], dim=1)))


class GatedTinyUNet(TinyUNet):
    """The same with a gate behind the first upsampling, before both decoder layers."""

    def forward(self, x: Tensor) -> Tensor:
        first = self.inc(x)
        second = self.down(first)
        up = nn.functional.interpolate(self.low(second), scale_factor=2)
        up = up * torch.sigmoid(up.mean(dim=1, keepdim=True))
        up = self.up1(torch.cat([up, second], dim=1))
        up = nn.functional.interpolate(up, scale_factor=2)
        return self.out(self.up2(torch.cat([up, first], dim=1)))


def write_network(folder: Path) -> str:
    """Write the network's code; gives its MODEL."""
    path = folder / "net.py"
    path.write_text(SOURCE)
    return f"{path}:build"


def write_data(
    folder: Path, count: int = 5, size: Callable[[int], tuple[int, int]] = lambda i: (24, 20)
) -> tuple[Path, Path]:
    """Write images and masks of blobs; gives their folders."""
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        height, width = size(index)
        y, x = np.mgrid[:height, :width]
        radius = 3 + 4 * rng.random()
        distance = np.hypot(y - height * rng.uniform(0.3, 0.7), x - width * rng.uniform(0.3, 0.7))
        mask = np.where(distance < radius, 1, np.where(distance < radius + 2, 2, 0))
        noise = rng.integers(0, 60, (height, width, 3))
        image = np.clip(80 * mask[..., None] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(image).save(images / f"im{index:02d}.png")
        Image.fromarray(mask.astype(np.uint8)).save(masks / f"im{index:02d}.png")
    return images, masks


def plan(folder: Path, count: int = 5, **options: Any) -> Plan:
    """A run that can start, over data written into `folder`."""
    size = options.pop("size", lambda i: (24, 20))
    if not (folder / "images").exists():
        write_data(folder, count, size)
    spec = Spec.of(
        model=write_network(folder),
        images=folder / "images",
        masks=folder / "masks",
        **{"device": "cpu", "classes": CLASSES, "batch_size": 2, **options},
    )
    return prepare(spec)
