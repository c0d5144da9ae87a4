"""Each question against its independent reference, as function and as class."""

from __future__ import annotations

import pytest
import torch
from torchmetrics import MetricCollection

from unetcam.measures import (
    BackgroundActivation,
    BoundaryActivation,
    MapConcentration,
    MapOverlap,
    background_activation,
    boundary_activation,
    map_concentration,
    map_overlap,
    map_stats,
    measure,
    segmentation_quality,
)

from . import reference
from .harness import SHAPES, assert_rows, check_measure
from .reference import Scene

DTYPES = [torch.float32, torch.float64]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).split(".")[1])


@every_shape
@every_dtype
@pytest.mark.parametrize("band", [None, 2.5])
def test_boundary_activation(
    shape: tuple[int, ...], dtype: torch.dtype, band: float | None
) -> None:
    check_measure(
        shape,
        dtype,
        lambda s: boundary_activation(s.maps, s.classes, s.truth, num_classes=4, band=band),
        lambda v, c, t, _: reference.boundary(v, c, t, band),
        lambda: BoundaryActivation(4, band=band),
        lambda s: (s.maps, s.classes, s.truth),
    )


@every_shape
@every_dtype
@pytest.mark.parametrize("band", [None, 2.5])
def test_background_activation(
    shape: tuple[int, ...], dtype: torch.dtype, band: float | None
) -> None:
    check_measure(
        shape,
        dtype,
        lambda s: background_activation(s.maps, s.classes, s.truth, num_classes=4, band=band),
        lambda v, c, t, _: reference.background(v, c, t, 4, band),
        lambda: BackgroundActivation(4, band=band, spatial_dims=len(shape)),
        lambda s: (s.maps, s.classes, s.truth),
    )


@every_shape
@every_dtype
@pytest.mark.parametrize(("threshold", "tolerance"), [(0.5, 15.0), (0.25, 2.0)])
def test_map_overlap(
    shape: tuple[int, ...], dtype: torch.dtype, threshold: float, tolerance: float
) -> None:
    check_measure(
        shape,
        dtype,
        lambda s: map_overlap(
            s.maps,
            s.classes,
            s.truth,
            s.prediction,
            num_classes=4,
            threshold=threshold,
            tolerance=tolerance,
        ),
        lambda v, c, t, p: reference.overlap(v, c, t, p, threshold, tolerance),
        lambda: MapOverlap(4, threshold=threshold, tolerance=tolerance),
        lambda s: (s.maps, s.classes, s.truth, s.prediction),
    )


@every_shape
@every_dtype
def test_map_concentration(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_measure(
        shape,
        dtype,
        lambda s: map_concentration(s.maps, s.classes, s.truth, num_classes=4),
        lambda v, _, t, __: reference.concentration(v, t),
        lambda: MapConcentration(4),
        lambda s: (s.maps, s.classes, s.truth),
    )


@every_shape
def test_segmentation_quality(shape: tuple[int, ...]) -> None:
    scene = Scene(1, shape)
    found = segmentation_quality(scene.classes, scene.truth, scene.prediction, num_classes=4)
    assert_rows(found, scene.rows(lambda _, c, t, p: reference.quality(c, t, p)))
    assert found["truth_pixels"].dtype == torch.int64
    assert found["present"].dtype == torch.bool


@pytest.mark.parametrize("at_once", [1, 900, 2000])
def test_large_batches_are_measured_in_blocks(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    scene = Scene(3, (20, 21))

    def numbers() -> dict[str, torch.Tensor]:
        return measure(scene.maps, scene.classes, scene.truth, scene.prediction, num_classes=4)

    whole = numbers()
    monkeypatch.setitem(map_stats.VALUES_AT_ONCE, "cpu", at_once)
    for name, value in numbers().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-13, atol=1e-13, equal_nan=True)


def test_the_classes_work_in_a_collection_by_keyword() -> None:
    scene = Scene(4, (24, 24))
    collection = MetricCollection([BoundaryActivation(4), MapOverlap(4), MapConcentration(4)])
    collection.update(
        maps=scene.maps, classes=scene.classes, truth=scene.truth, prediction=scene.prediction
    )
    found = collection.compute()
    alone = map_overlap(scene.maps[:, 2:3], [2], scene.truth, scene.prediction, num_classes=4)
    wanted = alone["truth_ap"].nanmean()
    assert wanted > 0
    torch.testing.assert_close(found["MapOverlap_truth_ap"][2], wanted)
    assert {"BoundaryActivation_boundary_inner", "MapConcentration_gini"} <= set(found)


def test_pointing_game_counts_a_maximum_within_the_tolerance() -> None:
    truth = torch.zeros(1, 40, 60, dtype=torch.long)
    truth[:, 10:20, 5:10] = 1
    maps = torch.zeros(1, 3, 40, 60)
    maps[0, 0, 15, 24] = 1.0  # 15 pixels from column 9
    maps[0, 1, 15, 25] = 1.0  # 16 pixels
    maps[0, 2, 15, 24] = maps[0, 2, 15, 25] = maps[0, 2, 12, 7] = 1.0  # three share it, two hit
    found = map_overlap(maps, [1, 1, 1], truth, truth, num_classes=2)["truth_pointing"]
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 2 / 3]], dtype=torch.float64))
