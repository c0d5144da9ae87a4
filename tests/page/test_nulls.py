"""A number beside what random channel weights give."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unetcam.page.nulls import null_of


def rows(values: list[float], null: float, low: float, high: float) -> pd.DataFrame:
    return pd.DataFrame(
        {"gini": values, "gini_null": null, "gini_null_low": low, "gini_null_high": high}
    )


@pytest.mark.parametrize("own", [0.31, 0.45, 0.59])
def test_a_number_within_the_range_of_the_draws_says_nothing(own: float) -> None:
    found = null_of(rows([own - 0.01, own + 0.01], 0.4, 0.3, 0.6), "gini")
    assert found is not None
    assert not found.apart
    assert found.sentence("up2", "{:.2f}".format).endswith("says nothing about the network.")


@pytest.mark.parametrize("own", [0.2, 0.9])
def test_a_number_outside_the_range_is_apart(own: float) -> None:
    found = null_of(rows([own - 0.01, own + 0.01], 0.4, 0.3, 0.6), "gini")
    assert found is not None
    assert found.apart
    assert "says nothing" not in found.sentence("up2", "{:.2f}".format)


def test_only_images_that_have_both_numbers_count() -> None:
    table = rows([0.5, np.nan, 0.7, 0.1], 0.4, 0.3, 0.6)
    table.loc[3, "gini_null"] = np.nan
    found = null_of(table, "gini")
    assert found is not None
    assert found.support == 2
    assert found.own == pytest.approx(0.6)
    assert null_of(table.iloc[[1]], "gini") is None


def test_without_the_range_nothing_is_said_against_a_number() -> None:
    found = null_of(rows([0.4], 0.4, 0.3, 0.6).drop(columns="gini_null_low"), "gini")
    assert found is not None
    assert found.apart


def test_a_median_is_not_moved_by_one_wild_ratio() -> None:
    found = null_of(rows([0.5] * 9 + [1e6], 0.5, 0.4, 0.6), "gini", "median")
    assert found is not None
    assert (found.own, found.value, found.apart) == (0.5, 0.5, False)


def test_without_a_null_there_is_none() -> None:
    assert null_of(pd.DataFrame({"gini": [0.5]}), "gini") is None
