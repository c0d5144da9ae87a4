"""A run's targets count the image's own pixels and not the border around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from unetcam.data import Frame, Item, Preprocessing, Sample
from unetcam.runs.framed_targets import image_area, targets_for
from unetcam.runs.spec import ERROR_KINDS, ErrorKind
from unetcam.targets import (
    BoundaryErrors,
    ClassScore,
    FalseNegatives,
    FalsePositives,
    MissedComponents,
    PredictedRegion,
)

CPU = torch.device("cpu")


def item(height: int, width: int, size: tuple[int, int] | None = None) -> Item:
    pixels = np.full((height, width, 1), 128, np.uint8)
    truth = np.zeros((height, width), np.int64)
    truth[:2] = 1
    prepared = Preprocessing(channels=1, size=size, stride=4)(pixels, truth)
    return Item(Sample("a", Path("a.png")), prepared, np.repeat(pixels, 3, axis=2), truth)


def logits_for(items: list[Item]) -> Tensor:
    size = items[0].prepared.image.shape[1:]
    return torch.randn(len(items), 2, *size, generator=torch.manual_seed(0), dtype=torch.float64)


def test_without_a_border_the_plain_targets_serve() -> None:
    items = [item(8, 12)]
    assert targets_for("class", 2, items, CPU) == [ClassScore(0), ClassScore(1)]
    assert targets_for("predicted", 2, items, CPU) == [PredictedRegion(0), PredictedRegion(1)]


@pytest.mark.parametrize("shrink", [1, 4])
def test_with_a_border_only_the_images_pixels_count(shrink: int) -> None:
    items = [item(8, 32, (32, 32)), item(32, 8, (32, 32))]
    logits = logits_for(items)[:, :, ::shrink, ::shrink]
    areas = torch.stack([image_area(i.prepared.frame) for i in items])[:, ::shrink, ::shrink]
    assert areas.flatten(1).sum(1).tolist() == [8 * 32 // shrink**2] * 2
    for class_index in (0, 1):
        target = targets_for("class", 2, items, CPU)[class_index]
        assert target.name == f"class {class_index} within the image"
        score = targets_for("class", 2, items, CPU)[class_index].score(logits)
        predicted = targets_for("predicted", 2, items, CPU)[class_index].score(logits)
        for image, area in enumerate(areas):
            expected = logits[image, class_index, area].mean()
            torch.testing.assert_close(score.value[image], expected)
            region = area & (logits[image].argmax(0) == class_index)
            torch.testing.assert_close(
                predicted.value[image], logits[image, class_index, region].mean()
            )


def test_a_class_predicted_on_the_border_only_is_absent() -> None:
    items = [item(8, 32, (32, 32))]
    logits = torch.zeros(1, 2, 32, 32)
    logits[:, 1] = torch.where(image_area(items[0].prepared.frame), -1.0, 1.0)
    found = [t.score(logits).defined.item() for t in targets_for("predicted", 2, items, CPU)]
    assert found == [True, False]


def test_the_truth_has_no_border() -> None:
    items = [item(8, 32, (32, 32))]
    logits = logits_for(items)
    target = targets_for("truth", 2, items, CPU)[1]
    (top, left) = items[0].prepared.frame.offset
    expected = logits[0, 1, top : top + 2, left : left + 32].mean()
    torch.testing.assert_close(target.score(logits).value[0], expected)


@pytest.mark.parametrize("kind", ERROR_KINDS)
@pytest.mark.parametrize("shrink", [1, 2])
def test_errors_are_those_of_the_truth_at_the_logits_size(kind: ErrorKind, shrink: int) -> None:
    make = {
        "false-positives": FalsePositives,
        "false-negatives": FalseNegatives,
        "boundary-errors": BoundaryErrors,
        "missed-components": MissedComponents,
    }[kind]
    items = [item(8, 32, (32, 32)), item(32, 8, (32, 32))]
    logits = logits_for(items)[:, :, ::shrink, ::shrink]
    masks = torch.stack([i.prepared.mask for i in items])
    there = torch.nn.functional.interpolate(
        masks[:, None].float(), size=logits.shape[2:], mode="nearest-exact"
    )[:, 0].long()
    assert (there == -1).any()
    for c, target in enumerate(targets_for(kind, 2, items, CPU)):
        target.check(logits)
        ours, expected = target.score(logits), make(c, there).score(logits)
        assert torch.equal(ours.defined, expected.defined)
        torch.testing.assert_close(ours.value, expected.value)
        assert target.name == make(c, there).name


def test_the_area_is_that_of_the_frame() -> None:
    frame = Frame((2, 2), (4, 4), (1, 0), (6, 4))
    assert image_area(frame).sum(1).tolist() == [0, 4, 4, 4, 4, 0]
