"""What a run says per class and layer: mean, median, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unetcam.measures import of_the_map
from unetcam.runs.parts import KEYS

DRAWS = 2000
LEVEL = 0.95

SUMMARY_COLUMNS = (
    "class_index",
    "class_name",
    "layer",
    "metric",
    "mean",
    "median",
    "support",
    "low",
    "high",
    "empty",
)

_BLOCK = 1 << 22


def summarise(
    rows: pd.DataFrame,
    *,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
    level: float = LEVEL,
) -> pd.DataFrame:
    """Mean, median and a bootstrap interval of each measure, per class and layer.

    Parameters
    ----------
    rows : DataFrame
        As a run writes them: one per image, layer and class.
    metrics : sequence of str, optional
        The columns to summarise; every measure by default.
    seed : int
        Seed of the bootstrap.
    draws : int
        Resamples of the images.
    level : float
        Coverage of the interval.

    Returns
    -------
    DataFrame
        class_index, class_name, layer, metric, mean, median, support (how many images the numbers
        stand on), low and high (the interval of the mean), empty (how many maps without any
        positive evidence were left out). NaN is never counted; where nothing is left, support is
        0 and the numbers are NaN. A measure of the map leaves empty maps out, as their numbers
        say nothing about where the evidence lies; measures of the network itself keep them, and
        ``empty`` has its own line, the share of maps that are empty.

    Notes
    -----
    The interval is the percentile bootstrap of the mean (Efron, *Bootstrap methods: another look
    at the jackknife*, Annals of Statistics 7, 1979; Efron and Tibshirani, *An Introduction to the
    Bootstrap*, 1993, section 13.3): images are drawn with replacement among those that count.
    Measures that stand on equally many images share their draws.

    Examples
    --------
    >>> rows = pd.DataFrame({
    ...     "image": ["a", "b", "c"], "layer": "up", "class_index": 1, "class_name": "cell",
    ...     "empty": [False, False, True], "gini": [0.2, 0.4, 0.0],
    ... })
    >>> summarise(rows)[["metric", "mean", "support", "empty"]]
      metric      mean  support  empty
    0  empty  0.333333        3      0
    1   gini  0.300000        2      1
    """
    names = [n for n in rows.columns if n not in KEYS] if metrics is None else list(metrics)
    resample = _Resampler(seed, draws, level)
    tables = []
    # a stable sort: classes in their order, and layers as they come, deepest first
    ordered = rows.sort_values("class_index", kind="stable")
    groups = ordered.groupby(["class_index", "class_name", "layer"], sort=False)
    for (index, name, layer), group in groups:
        values = group[names].to_numpy(dtype=np.float64, na_value=np.nan)
        empty = np.zeros(len(group), dtype=bool)
        if "empty" in group:
            empty = group["empty"].to_numpy(dtype=bool)
        of_map = np.array([of_the_map(n) for n in names], dtype=bool)
        values = np.where(empty[:, None] & of_map, np.nan, values)
        table = resample.table(values)
        keys = pd.DataFrame(
            {"class_index": index, "class_name": name, "layer": layer, "metric": names}
        )
        table["empty"] = np.where(of_map, empty.sum(), 0)
        tables.append(pd.concat([keys, table], axis=1))
    if not tables:
        return pd.DataFrame(columns=list(SUMMARY_COLUMNS))
    return pd.concat(tables, ignore_index=True)


class _Resampler:
    """Percentile bootstrap of the means of many columns at once."""

    def __init__(self, seed: int, draws: int, level: float) -> None:
        self._seed, self._draws = seed, draws
        self._tails = [50 * (1 - level), 50 * (1 + level)]

    def table(self, values: NDArray[np.float64]) -> pd.DataFrame:
        """Mean, median, support, low and high of each column of (images, measures)."""
        valid = ~np.isnan(values)
        support = valid.sum(axis=0)
        out = np.full((4, values.shape[1]), np.nan)
        patterns, which = np.unique(valid, axis=1, return_inverse=True)
        for number in range(patterns.shape[1]):
            rows, columns = patterns[:, number], np.flatnonzero(which.reshape(-1) == number)
            if rows.any():
                chosen = values[np.ix_(rows, columns)]
                out[0, columns] = chosen.mean(axis=0)
                out[1, columns] = np.median(chosen, axis=0)
                out[2:, columns] = self._interval(chosen)
        return pd.DataFrame(
            {
                "mean": out[0],
                "median": out[1],
                "support": support.astype(np.int64),
                "low": out[2],
                "high": out[3],
            }
        )

    def _interval(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        count = len(values)
        # centred, so that a column of equal values keeps its mean exactly
        centre = values.mean(axis=0)
        offsets = values - centre
        generator = np.random.default_rng([self._seed, count])
        means = np.empty((self._draws, values.shape[1]))
        step = max(1, _BLOCK // count)
        for start in range(0, self._draws, step):
            size = min(step, self._draws - start)
            times = generator.multinomial(count, np.full(count, 1 / count), size=size)
            means[start : start + size] = times @ offsets / count
        found: NDArray[np.float64] = np.percentile(means, self._tails, axis=0) + centre
        return np.clip(found, values.min(axis=0), values.max(axis=0))
