"""Volumes are measured as images are: an axis more changes nothing that it does not stand for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from unetcam.measures import measure

CLASSES = (0, 1, 2)
SETTINGS = {"num_classes": 3, "band": 1.5, "tolerance": 2.0}
PLACES = ("hot_z", "hot_y", "hot_x")


def scene(size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Maps, truth and prediction of two images, in blobs rather than noise."""
    generator = torch.manual_seed(3)
    coarse = [-(-side // 3) for side in size]

    def labels() -> Tensor:
        found = torch.randint(0, 3, (2, *coarse), generator=generator)
        for axis in range(1, found.ndim):
            found = found.repeat_interleave(3, dim=axis)
        return found[(slice(None), *(slice(side) for side in size))]

    maps = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64) ** 4
    return maps, labels(), labels()


def measured(maps: Tensor, truth: Tensor, prediction: Tensor) -> dict[str, Tensor]:
    return measure(maps, CLASSES, truth, prediction, **SETTINGS)


def test_a_volume_of_one_slice_is_measured_as_the_image() -> None:
    maps, truth, prediction = scene((14, 11))
    image = measured(maps, truth, prediction)
    volume = measured(maps[:, :, None], truth[:, None], prediction[:, None])
    assert set(volume) == {*image, "hot_z"}
    for name, value in image.items():
        torch.testing.assert_close(volume[name], value, equal_nan=True, msg=name)
    assert (volume["hot_z"][volume["hot_count"] > 0] == 0).all()


@pytest.mark.parametrize("order", [o for o in itertools.permutations(range(3)) if o != (0, 1, 2)])
def test_the_order_of_the_axes_does_not_matter(order: tuple[int, ...]) -> None:
    maps, truth, prediction = scene((9, 12, 7))
    plain = measured(maps, truth, prediction)
    turned = measured(
        maps.permute(0, 1, *(2 + axis for axis in order)),
        truth.permute(0, *(1 + axis for axis in order)),
        prediction.permute(0, *(1 + axis for axis in order)),
    )
    for name, value in plain.items():
        if name not in PLACES:
            torch.testing.assert_close(turned[name], value, equal_nan=True, msg=name)
    for new, old in enumerate(order):
        torch.testing.assert_close(turned[PLACES[new]], plain[PLACES[old]], equal_nan=True)
