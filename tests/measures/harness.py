"""One check for every measure: as function, as class, across processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unetcam.measures import PerClassMean

from .reference import Array, Scene

# Sums of non-negative numbers in float64 on both sides; what is left is the order of summation.
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}
SHAPES = [(33, 47), (9, 12, 14)]


def assert_rows(found: Mapping[str, Tensor], wanted: Mapping[str, Array]) -> None:
    assert set(found) == set(wanted)
    for name, reference in wanted.items():
        np.testing.assert_allclose(
            found[name].double().numpy(), reference, err_msg=name, equal_nan=True, **TOLERANCE
        )


def check_measure(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    function: Callable[[Scene], Mapping[str, Tensor]],
    reference: Callable[..., Mapping[str, float]],
    make_metric: Callable[[], PerClassMean],
    arguments: Callable[[Scene], tuple[Any, ...]],
) -> None:
    """Compare a question's function and class with its reference on two awkward batches.

    ``function(scene)`` gives the numbers, ``reference(values, class, truth, prediction)`` those
    of one map, and ``arguments(scene)`` what the class's update takes.
    """
    scenes = [Scene(seed, shape, dtype=dtype, ignored=seed == 1) for seed in (1, 2)]
    rows = [scene.rows(reference) for scene in scenes]
    for scene, wanted in zip(scenes, rows, strict=True):
        before = scene.maps.clone(), scene.truth.clone(), scene.prediction.clone()
        found = function(scene)
        assert_rows(found, wanted)
        assert all(v.shape == (3, len(scene.classes)) for v in found.values())
        # The inputs are read, never written.
        torch.testing.assert_close(scene.maps, before[0], rtol=0, atol=0, equal_nan=True)
        assert torch.equal(scene.truth, before[1])
        assert torch.equal(scene.prediction, before[2])

    one, other, whole = make_metric(), make_metric(), make_metric()
    one.update(*arguments(scenes[0]))
    other.update(*arguments(scenes[1]))
    for scene in scenes:
        whole.update(*arguments(scene))
    # Two processes, without starting them: what the other one would send is handed over.
    sent = iter((other.total, other.support, other.empty))
    one.dist_sync_fn = lambda state, group: [state, next(sent)]
    one.distributed_available_fn = lambda: True
    classes = np.array(scenes[0].classes)
    for metric in (whole, one):
        means = metric.compute()
        for name in rows[0]:
            cells = np.concatenate([r[name] for r in rows])
            for c in range(scenes[0].num_classes):
                known = cells[:, classes == c]
                known = known[~np.isnan(known)]
                wanted_mean = known.mean() if known.size else np.nan
                np.testing.assert_allclose(
                    means[name][c].item(), wanted_mean, err_msg=name, **TOLERANCE
                )
                assert means[f"{name}_support"][c].item() == known.size
        assert means["empty"].tolist() == [0, 0, 2, 0]
    whole.reset()
    assert not whole.support.any()
    assert not whole.total.any()
