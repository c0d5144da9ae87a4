"""A number beside what random channel weights give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unetcam.page.nulls import FEWEST_IMAGES, null_of


def rows(values: list[float], nulls: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"gini": values, "gini_null": nulls})


def test_a_number_that_is_its_null_and_noise_says_nothing() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.05, 20)
    found = null_of(rows(list(0.5 + noise), list(0.5 - noise[::-1])), "gini")
    assert found is not None
    assert not found.apart
    assert found.sentence("up2", "{:.2f}".format).endswith("says nothing about the network.")


def test_a_number_above_or_below_its_null_is_apart() -> None:
    for own, other in ((0.9, 0.4), (0.2, 0.4)):
        found = null_of(rows([own + 0.01 * k for k in range(8)], [other] * 8), "gini")
        assert found is not None
        assert found.apart
        assert "says nothing" not in found.sentence("up2", "{:.2f}".format)


def test_only_images_that_have_both_numbers_count() -> None:
    found = null_of(rows([0.5, np.nan, 0.7, 0.1], [0.4, 0.4, 0.4, np.nan]), "gini")
    assert found is not None
    assert found.support == 2
    assert found.own == pytest.approx(0.6)
    assert null_of(rows([np.nan], [0.4]), "gini") is None


def test_too_few_images_decide_nothing() -> None:
    few = FEWEST_IMAGES - 1
    found = null_of(rows([0.5] * few, [0.5] * few), "gini")
    assert found is not None
    assert np.isnan(found.low)
    assert found.apart  # nothing is said against it
    assert null_of(rows([0.5] * (few + 1), [0.5] * (few + 1)), "gini").apart is False


def test_a_median_is_not_moved_by_one_wild_ratio() -> None:
    found = null_of(rows([0.5] * 9 + [1e6], [0.5] * 10), "gini", "median")
    assert found is not None
    assert (found.own, found.value, found.apart) == (0.5, 0.5, False)


def test_without_a_null_there_is_none() -> None:
    assert null_of(pd.DataFrame({"gini": [0.5]}), "gini") is None
