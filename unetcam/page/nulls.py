"""A map's number beside its null: what the same layer gives with random channel weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

#: With fewer images than this, nothing is said about whether a number differs from its null.
FEWEST_IMAGES = 5
_DRAWS = 1000


@dataclass(frozen=True)
class Null:
    """A number and its null on the same images.

    Attributes
    ----------
    value, own : float
        What random channel weights give, and what the map gives, typical of the same images.
    support : int
        How many images have both.
    low, high : float
        The 95 % bootstrap interval over images of the typical difference, the map's number less
        its null; NaN below ``FEWEST_IMAGES``.
    """

    value: float
    own: float
    support: int
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether the interval of the difference spares zero; True where it was not asked."""
        return not (self.low <= 0 <= self.high)

    def sentence(self, layer: str, write: Callable[[float], str]) -> str:
        """What the null says about the number, in words.

        Examples
        --------
        >>> Null(0.87, 0.86, 24, -0.03, 0.02).sentence("up2", "{:.2f}".format)
        'At up2 random channel weights give 0.87: this number says nothing about the network.'
        >>> Null(0.4, 0.9, 24, 0.45, 0.55).sentence("up4", "{:.2f}".format)
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
        A row per image, with the measure and ``<measure>_null``.
    column : str
        The measure.
    typical : {"mean", "median"}
        What stands for all images.

    Returns
    -------
    Null or None
        None where no image has both numbers.

    Notes
    -----
    The interval is a percentile bootstrap (2.5 % to 97.5 %, 1000 draws, seeded) of the paired
    difference over images.

    Examples
    --------
    >>> rows = pd.DataFrame({"gini": [0.5, 0.6, 0.7, 0.5, 0.6], "gini_null": 0.2})
    >>> found = null_of(rows, "gini")
    >>> found.value, found.support, found.apart
    (0.2, 5, True)
    """
    name = f"{column}_null"
    if name not in rows or column not in rows:
        return None
    pair = rows[[column, name]].astype(float).to_numpy()
    pair = pair[np.isfinite(pair).all(axis=1)]
    if not len(pair):
        return None
    middle = np.mean if typical == "mean" else np.median
    low = high = float("nan")
    if len(pair) >= FEWEST_IMAGES:
        drawn = np.random.default_rng(0).integers(len(pair), size=(_DRAWS, len(pair)))
        differences = middle((pair[:, 0] - pair[:, 1])[drawn], axis=1)
        low, high = (float(one) for one in np.percentile(differences, (2.5, 97.5)))
    own, value = (float(one) for one in middle(pair, axis=0))
    return Null(value, own, len(pair), low, high)
