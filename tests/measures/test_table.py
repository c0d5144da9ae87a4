"""All numbers in one call, and the dictionary of their columns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unetcam.measures import COLUMNS, Geometry, MeasureError, column, columns, measure

from . import reference
from .harness import SHAPES, assert_rows
from .reference import Row, Scene


def measured(scene: Scene, **options: object) -> dict[str, Tensor]:
    return measure(
        scene.maps, scene.classes, scene.truth, scene.prediction, num_classes=4, **options
    )


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_the_table_holds_the_numbers_of_every_question(shape: tuple[int, ...]) -> None:
    scene = Scene(7, shape)

    def row(v: reference.Array, c: int, t: reference.Array, p: reference.Array) -> Row:
        empty = bool((v[t >= 0] == 0).all())
        return {
            **reference.quality(c, t, p),
            "empty": empty,
            **reference.boundary(v, c, t),
            **reference.background(v, c, t, 4),
            **reference.overlap(v, c, t, p),
            **reference.concentration(v, t),
        }

    found = measured(scene)
    assert_rows(found, scene.rows(row))
    described = [c.name for c in columns(4, len(shape))]
    assert list(found) == described, "unetcam/measures/columns.py has one entry for each number"
    assert found["empty"].sum() == 1


def test_one_geometry_serves_all_layers() -> None:
    scene, other = Scene(8, (30, 22)), Scene(9, (30, 22))
    geometry = Geometry(scene.truth, scene.classes, scene.prediction, num_classes=4)
    for maps in (scene.maps, other.maps):
        scene.maps = maps
        alone = measured(scene)
        for name, value in measured(scene, geometry=geometry).items():
            torch.testing.assert_close(value, alone[name], rtol=0, atol=0, equal_nan=True)


def test_layers_side_by_side_are_measured_in_one_call() -> None:
    scene, other = Scene(8, (30, 22)), Scene(9, (30, 22))
    alone = [
        measure(m, scene.classes, scene.truth, scene.prediction, num_classes=4)
        for m in (scene.maps, other.maps)
    ]
    together = measure(
        torch.cat([scene.maps, other.maps], dim=1),
        scene.classes * 2,
        scene.truth,
        scene.prediction,
        num_classes=4,
    )
    for name, value in together.items():
        wanted = torch.cat([a[name] for a in alone], dim=1)
        torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize(
    ("made_with", "used_with"),
    [
        ({"band": 2.0}, {}),
        ({"tolerance": 3.0}, {}),
        ({}, {"band": 2.0}),
        ({"truth": torch.zeros(3, 20, 20, dtype=torch.long)}, {}),
        ({"classes": [0, 1, 2, 3, 1, 1]}, {}),
        ({"prediction": None}, {}),
    ],
)
def test_a_geometry_of_something_else_is_refused(
    made_with: dict[str, object], used_with: dict[str, object]
) -> None:
    scene = Scene(10, (20, 20))
    arguments: dict[str, object] = {
        "truth": scene.truth,
        "classes": scene.classes,
        "prediction": scene.prediction,
        "num_classes": 4,
    }
    with pytest.raises(MeasureError, match="made for other masks"):
        measured(scene, geometry=Geometry(**(arguments | made_with)), **used_with)


def test_maps_that_do_not_fit_are_refused_with_the_remedy() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.long)
    maps = torch.ones(1, 1, 8, 8)
    cases = [
        (maps[..., :4], {}, "resize the maps"),
        (-maps, {}, "negative values"),
        (maps.long(), {}, "floating-point"),
        (maps, {"threshold": 0.0}, "share of the map's maximum"),
        (maps, {"threshold": 1.5}, "share of the map's maximum"),
    ]
    for bad, options, message in cases:
        with pytest.raises(MeasureError, match=message):
            measure(bad, [0], truth, truth, num_classes=1, **options)


def test_an_image_of_ignored_pixels_alone_has_no_numbers() -> None:
    truth = torch.full((1, 8, 8), -1)
    found = measure(torch.rand(1, 2, 8, 8), [0, 1], truth, truth.clamp(min=0), num_classes=2)
    assert not found["empty"].any()
    assert not found["present"].any()
    assert all(v.isnan().all() for v in found.values() if v.dtype == torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_before_anything_is_summed(dtype: torch.dtype) -> None:
    half, wide = Scene(12, (40, 40), dtype=dtype), Scene(12, (40, 40), dtype=dtype)
    half.maps *= 400  # a sum over this image would overflow float16
    wide.maps = half.maps.float()
    wanted = measured(wide)
    for name, value in measured(half).items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=0, equal_nan=True)
    assert (wanted["leak_1"] > 0).any()


def test_maps_with_a_graph_are_measured_without_it() -> None:
    truth = torch.zeros(1, 8, 8, dtype=torch.long)
    found = measure(torch.rand(1, 1, 8, 8, requires_grad=True), [0], truth, truth, num_classes=1)
    assert not any(v.requires_grad for v in found.values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_a_gpu_gives_the_numbers_of_the_cpu(shape: tuple[int, ...]) -> None:
    scene = Scene(11, shape)
    wanted = measured(scene)
    for name in ("maps", "truth", "prediction"):
        setattr(scene, name, getattr(scene, name).cuda())
    for name, value in measured(scene).items():
        assert value.is_cuda
        torch.testing.assert_close(
            value.cpu(), wanted[name], rtol=1e-10, atol=1e-12, equal_nan=True
        )


def test_every_column_is_described_once() -> None:
    names = [c.name for c in COLUMNS]
    assert len(set(names)) == len(names)
    titles = [c.title for c in columns(5, 3)]
    assert len(set(titles)) == len(titles)
    assert {c.name for c in columns(5, 3)} == {
        *names,
        *(f"{stem}_{c}" for stem in ("leak", "predicted_as") for c in range(5)),
    }
    for c in COLUMNS:
        assert column(c.name) is c
        assert c.explanation
        assert "{" not in c.explanation
        assert c.direction in ("higher", "lower", None)


@pytest.mark.parametrize("name", ["nonsense", "leak_", "leak_x", "leak", "predicted_as_"])
def test_an_unknown_column_is_refused(name: str) -> None:
    with pytest.raises(MeasureError, match="No number is called"):
        column(name)
