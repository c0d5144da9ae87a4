"""The null against the full table of each draw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unetcam.measures import Geometry, MeasureError, measure
from unetcam.measures.columns import column, of_the_map
from unetcam.measures.null import NULL_MEASURES, null_columns, null_numbers, null_sample

from .harness import SHAPES
from .reference import Scene


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_the_null_is_the_draws_mean_and_spread(shape: tuple[int, ...]) -> None:
    scene = Scene(4, shape)
    classes = [0, 1, 2, 3]
    draws = torch.rand(3, 5, *shape, generator=torch.Generator().manual_seed(0)) ** 3
    draws[0, 2] = 0  # an empty draw is left out
    alone = [
        null_numbers(draws[b].split(1), Geometry(scene.truth[b : b + 1], classes, num_classes=4))
        for b in range(3)
    ]
    found = {name: torch.cat([one[name] for one in alone]) for name in alone[0]}
    assert tuple(found) == null_columns()
    rows = [
        measure(
            draws[:, d : d + 1].expand(-1, 4, *shape),
            classes,
            scene.truth,
            scene.prediction,
            num_classes=4,
        )
        for d in range(5)
    ]
    for name in NULL_MEASURES:
        values = np.stack([row[name].numpy() for row in rows])
        absent = np.isnan(values).all(0)
        values[:, absent] = 0.5
        for end, wanted in (
            ("", np.nanmean(values, 0)),
            ("_low", np.nanquantile(values, 0.025, axis=0)),
            ("_high", np.nanquantile(values, 0.975, axis=0)),
        ):
            got = found[f"{name}_null{end}"].numpy()
            np.testing.assert_allclose(got[~absent], wanted[~absent], rtol=1e-10)
            assert np.isnan(got[absent]).all()


def test_the_null_is_of_measures_in_the_table_and_no_property_of_the_map() -> None:
    for name in NULL_MEASURES:
        assert column(name).question != "quality"
        assert of_the_map(name)
    assert not any(of_the_map(name) for name in null_columns())


def test_the_sample_is_spread_over_the_run() -> None:
    assert null_sample(0) == ()
    assert null_sample(3) == (0, 1, 2)
    for images in (8, 9, 50, 1000):
        sample = null_sample(images)
        assert len(set(sample)) == 8
        assert sample[0] == 0
        assert sample[-1] < images


def test_no_draw_and_draws_of_another_shape_are_refused() -> None:
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    geometry = Geometry(truth, [0], num_classes=1)
    with pytest.raises(MeasureError, match="There is no draw"):
        null_numbers([], geometry)
    with pytest.raises(MeasureError, match=r"dtype torch\.int64"):
        null_numbers([truth], geometry)
