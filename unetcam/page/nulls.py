"""A map's number beside its null: what the same layer gives with random channel weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Null:
    """A number and its null, typical of the images in which both were measured.

    Attributes
    ----------
    value, low, high : float
        What random channel weights give, and the range in which 95 % of their draws lie; the
        range is NaN where the run does not hold it.
    own : float
        What the map gives on the same images.
    support : int
        How many images these are.
    """

    value: float
    low: float
    high: float
    own: float
    support: int

    @property
    def apart(self) -> bool:
        """Whether the map's number lies outside the draws' range; True where that isn't known."""
        return not (self.low <= self.own <= self.high)

    def sentence(self, layer: str, write: Callable[[float], str]) -> str:
        """What the null says about the number, in words.

        Examples
        --------
        >>> Null(0.87, 0.8, 0.93, 0.86, 24).sentence("up2", "{:.2f}".format)
        'At up2 random channel weights give 0.87: this number says nothing about the network.'
        >>> Null(0.4, 0.3, 0.6, 0.9, 24).sentence("up4", "{:.2f}".format)
        'At up4 random channel weights give 0.40.'
        """
        said = f"At {layer} random channel weights give {write(self.value)}"
        return f"{said}." if self.apart else f"{said}: this number says nothing about the network."


def null_of(
    rows: pd.DataFrame, column: str, typical: Literal["mean", "median"] = "mean"
) -> Null | None:
    """A measure of one class at one layer held against its null.

    Parameters
    ----------
    rows : DataFrame
        A row per image, with the measure, ``<measure>_null`` and, for the range of the draws,
        ``<measure>_null_low`` and ``<measure>_null_high``; see :mod:`unetcam.measures.null`.
    column : str
        The measure.
    typical : {"mean", "median"}
        What stands for all images.

    Returns
    -------
    Null or None
        None where no image has both numbers.

    Examples
    --------
    >>> rows = pd.DataFrame({"gini": [0.5, 0.7], "gini_null": 0.2, "gini_null_low": 0.1,
    ...                      "gini_null_high": 0.3})
    >>> found = null_of(rows, "gini")
    >>> found.value, found.support, found.apart
    (0.2, 2, True)
    """
    name = f"{column}_null"
    if name not in rows or column not in rows:
        return None
    both = rows[rows[[column, name]].notna().all(axis=1)]
    if both.empty:
        return None
    middle = np.nanmean if typical == "mean" else np.nanmedian

    def of(which: str) -> float:
        values = both[which].to_numpy(np.float64) if which in both else np.array([np.nan])
        return float(middle(values)) if np.isfinite(values).any() else float("nan")

    value, low, high, own = (of(w) for w in (name, f"{name}_low", f"{name}_high", column))
    return Null(value, low, high, own, len(both))
