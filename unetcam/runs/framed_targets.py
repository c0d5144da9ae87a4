"""Targets that count an image's own pixels and not the border that fills up its frame."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from unetcam.data import Frame, Item
from unetcam.resizing import nearest
from unetcam.runs.spec import TargetKind
from unetcam.targets import (
    BoundaryErrors,
    ClassScore,
    FalseNegatives,
    FalsePositives,
    MissedComponents,
    PredictedRegion,
    RegionScore,
    Score,
    Target,
    TruthRegion,
)

#: What makes a target of a class and its truth, for each kind that needs one.
_OF_TRUTH: Mapping[TargetKind, Callable[[int, Tensor], Target]] = {
    "truth": TruthRegion,
    "false-positives": FalsePositives,
    "false-negatives": FalseNegatives,
    "boundary-errors": BoundaryErrors,
    "missed-components": MissedComponents,
}


def targets_for(
    kind: TargetKind, classes: int, items: Sequence[Item], device: torch.device
) -> list[Target]:
    """One target per class for a batch of images.

    Parameters
    ----------
    kind : TargetKind
        See :class:`~unetcam.runs.spec.Spec`.
    classes : int
    items : sequence of Item
        With their masks for a kind that needs the truth.
    device : torch.device

    Returns
    -------
    list of Target
    """
    if kind in _OF_TRUTH:
        masks = [item.prepared.mask for item in items if item.prepared.mask is not None]
        truth = torch.stack(masks).to(device)
        return [FramedTruth(kind, c, truth) for c in range(classes)]
    plain = ClassScore if kind == "class" else PredictedRegion
    frames = [item.prepared.frame for item in items]
    if all(frame.resized == frame.padded for frame in frames):
        return [plain(c) for c in range(classes)]
    area = torch.stack([image_area(frame) for frame in frames]).to(device)
    return [plain(c, within=ImageArea(c, area=area)) for c in range(classes)]


def image_area(frame: Frame) -> Tensor:
    """(h, w) or (d, h, w) bool at the network's input size: the pixels that are the image's.

    >>> image_area(Frame((1, 2), (1, 2), (0, 1), (2, 3)))
    tensor([[False,  True,  True],
            [False, False, False]])
    """
    area = torch.zeros(frame.padded, dtype=torch.bool)
    area[frame.inside] = True
    return area


@dataclass(frozen=True, eq=False)
class ImageArea(RegionScore):
    """A class's mean score over the images' pixels; `area` is (B, h, w) or (B, d, h, w) bool."""

    _: KW_ONLY
    area: Tensor

    @property
    def title(self) -> str:
        return f"class {self.class_index} in the image"

    @property
    def region_name(self) -> str:
        return "the image"

    def region(self, logits: Tensor) -> Tensor:
        return _at_size_of(logits, self.area)


@dataclass(frozen=True, eq=False)
class FramedTruth(Target):
    """A target of one class and its truth, (B, h, w) or (B, d, h, w), -1 on the border."""

    kind: TargetKind
    class_index: int
    truth: Tensor

    @property
    def name(self) -> str:
        return self._of(self.truth).name

    def check(self, logits: Tensor) -> None:
        self._of(_at_size_of(logits, self.truth)).check(logits)

    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        return self._of(_at_size_of(logits, self.truth)).score(logits, reference)

    def _of(self, truth: Tensor) -> Target:
        return _OF_TRUTH[self.kind](self.class_index, truth)


def _at_size_of(logits: Tensor, mask: Tensor) -> Tensor:
    """The mask, by nearest neighbour, at the size of logits that are smaller than the input."""
    return nearest(mask, logits.shape[2:])
