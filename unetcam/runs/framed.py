"""Targets that count an image's own pixels and not the border that fills up its frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from unetcam.data import Frame, Item
from unetcam.runs.config import TargetKind
from unetcam.targets import ClassScore, PredictedRegion, Target, predict


def targets_for(
    kind: TargetKind, classes: int, items: Sequence[Item], device: torch.device
) -> list[Target]:
    """One target per class for a batch of images.

    Parameters
    ----------
    kind : {"class", "predicted", "truth"}
    classes : int
    items : sequence of Item
        With their masks for "truth".
    device : torch.device

    Returns
    -------
    list of Target
    """
    if kind == "truth":
        masks = [item.prepared.mask for item in items if item.prepared.mask is not None]
        truth = torch.stack(masks).to(device)
        return [FramedTruth(c, truth=truth) for c in range(classes)]
    frames = [item.prepared.frame for item in items]
    if all(frame.resized == frame.padded for frame in frames):
        plain = ClassScore if kind == "class" else PredictedRegion
        return [plain(c) for c in range(classes)]
    area = torch.stack([image_area(frame) for frame in frames]).to(device)
    framed = FramedScore if kind == "class" else FramedPrediction
    return [framed(c, area=area) for c in range(classes)]


def image_area(frame: Frame) -> Tensor:
    """(h, w) bool at the network's input size: the pixels that are the image's.

    >>> image_area(Frame((1, 2), (1, 2), (0, 1), (2, 3)))
    tensor([[False,  True,  True],
            [False, False, False]])
    """
    (top, left), (height, width) = frame.offset, frame.resized
    area = torch.zeros(frame.padded, dtype=torch.bool)
    area[top : top + height, left : left + width] = True
    return area


@dataclass(frozen=True, eq=False)
class FramedScore(Target):
    """A class's mean score over the image's pixels; `area` is (B, h, w) bool."""

    _: KW_ONLY
    area: Tensor

    @property
    def name(self) -> str:
        return f"class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return _at_size_of(logits, self.area)


@dataclass(frozen=True, eq=False)
class FramedPrediction(FramedScore):
    """A class's mean score over those of the image's pixels that are predicted as the class."""

    @property
    def name(self) -> str:
        return f"predicted region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return super().region(logits) & (predict(logits.detach()) == self.class_index)


@dataclass(frozen=True, eq=False)
class FramedTruth(Target):
    """A class's mean score over its true pixels; `truth` is (B, h, w), -1 on the border."""

    _: KW_ONLY
    truth: Tensor

    @property
    def name(self) -> str:
        return f"true region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return _at_size_of(logits, self.truth) == self.class_index


def _at_size_of(logits: Tensor, mask: Tensor) -> Tensor:
    """The mask, by nearest neighbour, at the size of logits that are smaller than the input."""
    size = logits.shape[2:]
    if mask.shape[1:] == size:
        return mask
    resized = F.interpolate(mask[:, None].double(), size=size, mode="nearest-exact")[:, 0]
    return resized.to(mask.dtype)
