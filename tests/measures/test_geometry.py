"""Regions, bands and the signed distance to the contour."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unetcam.measures import Geometry, MeasureError
from unetcam.measures.regions import INNER_BAND, OUTER_BAND

from .reference import Scene, contour_distance


@pytest.mark.parametrize("shape", [(40, 30), (12, 14, 10)])
@pytest.mark.parametrize("band", [None, 1.0, 3.3])
def test_signed_distance_is_that_of_scipy_up_to_four_bands(
    shape: tuple[int, ...], band: float | None
) -> None:
    scene = Scene(5, shape)
    geometry = Geometry(scene.truth, scene.classes, num_classes=4, band=band)
    for b, truth in enumerate(scene.truth.numpy()):
        for t, c in enumerate(scene.classes):
            wanted = contour_distance(truth, c)
            wanted = np.where(wanted > 4 * geometry.band, np.inf, wanted)
            wanted = np.where(truth == c, -wanted, wanted)
            wanted[truth < 0] = np.nan
            found = geometry.signed_distance[b, t].numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_default_band_is_two_percent_of_the_diagonal_and_at_least_one_pixel() -> None:
    large = torch.zeros(1, 300, 400, dtype=torch.long)
    small = torch.zeros(1, 30, 40, dtype=torch.long)
    volume = torch.zeros(1, 60, 60, 60, dtype=torch.long)
    assert Geometry(large, [0], num_classes=1).band == pytest.approx(10.0)
    assert Geometry(small, [0], num_classes=1).band == 1.0
    assert Geometry(volume, [0], num_classes=1).band == pytest.approx(0.02 * 60 * math.sqrt(3))


def test_bands_take_the_pixels_at_exactly_their_width() -> None:
    truth = torch.zeros(1, 1, 20, dtype=torch.long)
    truth[..., 10:] = 1
    geometry = Geometry(truth, [1], num_classes=2, band=3.0)
    assert geometry.zone_pixels[0, 0, INNER_BAND].sum() == 3
    assert geometry.zone_pixels[0, 0, OUTER_BAND].sum() == 3
    assert geometry.zone_pixels.sum() == 20


def test_the_border_of_the_image_is_no_contour() -> None:
    truth = torch.zeros(1, 30, 30, dtype=torch.long)
    truth[:, :, :15] = 1  # cut off by three borders
    geometry = Geometry(truth, [1], num_classes=2, band=2.0)
    inner = (geometry.signed_distance[0, 0] < 0) & (geometry.signed_distance[0, 0] >= -2)
    assert inner.nonzero()[:, 1].unique().tolist() == [13, 14]


def test_ignored_pixels_are_no_side_and_no_contour() -> None:
    truth = torch.tensor([[[1, 1, 1, -1, -1, -1, 1, 1, 0, 0]]])
    geometry = Geometry(truth, [1], num_classes=2, band=2.0)
    nan = torch.nan
    wanted = torch.tensor([-8.0, -7, -6, nan, nan, nan, -2, -1, 1, 2])
    torch.testing.assert_close(geometry.signed_distance[0, 0, 0], wanted, equal_nan=True)
    assert geometry.zone_pixels.sum() == 7


def test_a_class_without_an_outside_has_no_contour() -> None:
    truth = torch.ones(1, 8, 8, dtype=torch.long)
    geometry = Geometry(truth, [0, 1], num_classes=2)
    assert geometry.has_contour.tolist() == [[False, False]]
    assert geometry.present.tolist() == [[False, True]]
    assert geometry.signed_distance[0, 1].eq(-torch.inf).all()


def test_a_class_named_twice_is_worked_out_once_and_given_twice() -> None:
    scene = Scene(6, (24, 24))
    twice = Geometry(scene.truth, [2, 0, 2], num_classes=4)
    once = Geometry(scene.truth, [2, 0], num_classes=4)
    assert twice._inside.shape[1] == 2
    assert torch.equal(twice.zones, once.zones[:, [0, 1, 0]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": torch.full((1, 4, 4), 3)}, "holds values from 3 to 3, but 2 classes"),
        ({"truth": torch.full((1, 4, 4), -2)}, "holds values from -2 to -2"),
        ({"truth": torch.zeros(1, 4, 4)}, "dtype torch.float32"),
        ({"truth": torch.zeros(4, 4, dtype=torch.long)}, r"shape \(4, 4\)"),
        ({"prediction": torch.full((1, 4, 4), -1)}, "The prediction holds values from -1"),
        ({"prediction": torch.zeros(1, 4, 5, dtype=torch.long)}, "bring both to the same"),
        ({"classes": [2]}, "Class 2 is out of range"),
        ({"classes": []}, "No class was named"),
        ({"band": 0.5}, "The band is 0.5 pixels"),
        ({"band": math.nan}, "The band is nan pixels"),
        ({"tolerance": -1.0}, "The tolerance is -1.0"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    change: dict[str, object], message: str
) -> None:
    arguments: dict[str, object] = {
        "truth": torch.zeros(1, 4, 4, dtype=torch.long),
        "classes": [0],
        "num_classes": 2,
    }
    with pytest.raises(MeasureError, match=message):
        Geometry(**(arguments | change))


def test_the_prediction_is_asked_for_where_it_is_needed() -> None:
    geometry = Geometry(torch.zeros(1, 4, 4, dtype=torch.long), [0], num_classes=1)
    with pytest.raises(MeasureError, match="No prediction was given"):
        _ = geometry.predicted_pixels
