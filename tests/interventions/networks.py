"""Networks whose reasons are known: each is a formula on the image."""

from __future__ import annotations

import torch
from torch import Tensor

SIZE = (48, 64)


def scenes(count: int = 4, *, seed: int = 0, cue: bool = True) -> tuple[Tensor, Tensor]:
    """Images (N, 2, 48, 64) and truth: a square of class 1 or 2 in channel 0, and what goes along.

    Channel 0 is 1 in the square and 0 elsewhere but for a little noise; the class is the image's
    number, odd or even. With `cue`, channel 1 is 1 in a patch of 6 pixels in the upper left corner
    of the images of class 2.
    """
    generator = torch.Generator().manual_seed(seed)
    images = 0.02 * torch.randn(count, 2, *SIZE, generator=generator)
    truth = torch.zeros(count, *SIZE, dtype=torch.long)
    for number in range(count):
        top, left = 22 + number % 3, 30 + 2 * (number % 4)
        label = 1 + number % 2
        images[number, 0, top : top + 10, left : left + 12] += 1.0
        truth[number, top : top + 10, left : left + 12] = label
        if cue and label == 2:
            images[number, 1, 2:8, 3:9] += 1.0
    return images, truth


def by_corner(images: Tensor) -> Tensor:
    """Logits of 3 classes: the square is class 2 if the corner of channel 1 is bright."""
    inside = images[:, 0] - 0.5
    corner = images[:, 1, 2:8, 3:9].mean(dim=(1, 2)).view(-1, 1, 1) - 0.5
    return torch.stack((-inside, inside - corner, inside + corner), dim=1)


def by_itself(images: Tensor) -> Tensor:
    """Logits of 2 classes that look at the pixel alone."""
    return torch.stack((0.5 - images[:, 0], images[:, 0] - 0.5), dim=1)
