"""Masks that people give by mistake, and what they are told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unetcam.errors import TargetError
from unetcam.targets import FalseNegatives, Region, Target, check_targets

LOGITS = torch.zeros(1, 4, 8, 8)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        (Region(1, torch.full((8, 8), 0.3)), r"threshold it, as with mask > 0\.5"),
        (FalseNegatives(1, torch.zeros(1, 1, 8, 8)), r"take its channel away with mask\[:, 0\]"),
        (FalseNegatives(1, torch.zeros(1, 4, 8, 8)), r"into classes with argmax\(1\)"),
        (FalseNegatives(1, torch.zeros(1, 4, 4)), "resize it with nearest neighbour"),
    ],
)
def test_the_remedy_is_the_right_one(target: Target, told: str) -> None:
    with pytest.raises(TargetError, match=told):
        check_targets([target], LOGITS)


@pytest.mark.parametrize(
    "mask", [torch.ones(8, 8), torch.ones(8, 8).bool(), 7 * torch.ones(8, 8).int()]
)
def test_masks_of_zeros_and_ones_and_labels_are_taken(mask: Tensor) -> None:
    check_targets([Region(1, mask)], LOGITS)
