from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from unetcam.runs.summary import SUMMARY_COLUMNS, summarise


def rows_of(values: Any, **columns: Any) -> pd.DataFrame:
    count = len(values)
    return pd.DataFrame(
        {
            "image": [f"i{n}" for n in range(count)],
            "layer": "up",
            "stage_stride": 1,
            "class_index": 1,
            "class_name": "cell",
            "target": "class",
            "method": "gradcam",
            "gini": np.asarray(values, dtype=float),
            **columns,
        }
    )


def test_agrees_with_pandas_on_every_group() -> None:
    rng = np.random.default_rng(0)
    images, layers, classes = 12, ["up1", "up2"], [0, 1, 2]
    index = pd.MultiIndex.from_product(
        [range(images), layers, classes], names=["image", "layer", "class_index"]
    )
    rows = pd.DataFrame(
        {"gini": rng.random(len(index)), "entropy": rng.random(len(index))}, index=index
    ).reset_index()
    rows["class_name"] = rows["class_index"].map(lambda i: f"c{i}")
    rows.loc[rng.random(len(rows)) < 0.3, "gini"] = np.nan
    found = summarise(rows).set_index(["class_index", "layer", "metric"])
    expected = rows.melt(
        ["image", "layer", "class_index", "class_name"], var_name="metric"
    ).groupby(["class_index", "layer", "metric"])["value"]
    for name, reference in (
        ("mean", expected.mean()),
        ("median", expected.median()),
        ("support", expected.count()),
    ):
        ours, theirs = found[name].align(reference)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_the_interval_is_that_of_scipys_percentile_bootstrap() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=40)
    found = summarise(rows_of(values), draws=20_000).iloc[0]
    reference = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2)
    ).confidence_interval
    # two independent bootstraps of 20 000 draws: about 1 % of the interval's width apart
    width = reference.high - reference.low
    assert found["low"] == pytest.approx(reference.low, abs=0.03 * width)
    assert found["high"] == pytest.approx(reference.high, abs=0.03 * width)


def test_intervals_cover_the_true_mean_about_as_often_as_they_claim() -> None:
    rng = np.random.default_rng(3)
    rows = pd.concat([rows_of(rng.normal(5.0, 1.0, 60)).assign(class_index=i) for i in range(200)])
    found = summarise(rows, draws=500)
    covered = ((found["low"] <= 5) & (found["high"] >= 5)).mean()
    assert 0.88 <= covered <= 0.99


def test_the_same_seed_gives_the_same_table_and_another_seed_another() -> None:
    rows = rows_of(np.random.default_rng(0).random(20))
    pd.testing.assert_frame_equal(summarise(rows, seed=3), summarise(rows, seed=3))
    assert summarise(rows, seed=3)["low"][0] != summarise(rows, seed=4)["low"][0]


def test_a_number_does_not_depend_on_what_else_is_summarised() -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(rng.random(15), entropy=rng.random(15))
    rows.loc[3, "entropy"] = np.nan
    both = summarise(rows)
    alone = summarise(rows, metrics=["entropy"])
    pd.testing.assert_frame_equal(both[both["metric"] == "entropy"].reset_index(drop=True), alone)


def test_nan_is_not_counted_and_nothing_left_gives_nan_with_support_zero() -> None:
    rows = rows_of([0.5, np.nan, 1.0], entropy=[np.nan] * 3)
    found = summarise(rows).set_index("metric")
    assert found.loc["gini", "mean"] == 0.75
    assert found.loc["gini", "support"] == 2
    assert found.loc["entropy", "support"] == 0
    assert found.loc["entropy", ["mean", "median", "low", "high"]].isna().all()


def test_empty_maps_are_left_out_of_the_maps_numbers_and_counted_apart() -> None:
    rows = rows_of([0.2, 0.0, 0.4], empty=[False, True, False], class_iou=[0.1, 0.2, 0.3])
    found = summarise(rows).set_index("metric")
    assert found.loc["gini", "mean"] == pytest.approx(0.3)
    assert found.loc["gini", "empty"] == 1
    assert found.loc["gini", "support"] == 2
    assert found.loc["class_iou", "support"] == 3
    assert found.loc["class_iou", "empty"] == 0
    assert found.loc["empty", "mean"] == pytest.approx(1 / 3)


def test_classes_come_in_order_and_layers_as_they_are() -> None:
    rows = pd.concat(
        [
            rows_of([0.1, 0.2]).assign(layer=layer, class_index=index, class_name=str(index))
            for layer in ("deep", "a_shallow")
            for index in (1, 0)
        ]
    )
    found = summarise(rows)
    assert list(zip(found["class_index"], found["layer"], strict=True)) == [
        (0, "deep"),
        (0, "a_shallow"),
        (1, "deep"),
        (1, "a_shallow"),
    ]
    assert tuple(found.columns) == SUMMARY_COLUMNS


def test_no_rows_give_an_empty_table() -> None:
    assert list(summarise(rows_of([]))["mean"]) == []


numbers = st.floats(-1e6, 1e6, allow_nan=False) | st.just(float("nan"))


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=25), st.integers(0, 2**32 - 1))
def test_mean_and_interval_stay_within_the_values(values: list[float], seed: int) -> None:
    found = summarise(rows_of(values), seed=seed, draws=50).iloc[0]
    counted = [value for value in values if not np.isnan(value)]
    assert found["support"] == len(counted)
    if not counted:
        assert np.isnan(found["mean"])
        return
    slack = 1e-9 * max(1.0, *map(abs, counted))
    assert min(counted) - slack <= found["low"] <= found["high"] <= max(counted) + slack
    assert min(counted) - slack <= found["mean"] <= max(counted) + slack
    if len(set(counted)) == 1:
        assert found["low"] == found["high"] == pytest.approx(counted[0])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20), st.randoms())
def test_mean_median_and_support_do_not_depend_on_the_images_order(
    values: list[float], random: Any
) -> None:
    shuffled = random.sample(values, len(values))
    one, other = (summarise(rows_of(v), draws=10).iloc[0] for v in (values, shuffled))
    assert one["mean"] == pytest.approx(other["mean"], abs=1e-9)
    assert one["median"] == other["median"]
    assert one["support"] == other["support"]
