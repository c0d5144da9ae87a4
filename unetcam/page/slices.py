"""The slice of a volume that a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_LETTERS: Final = ("LR", "PA", "IS")
"""Where the axes across a sagittal, a coronal and an axial slice run from and to."""

_PLANES: Final = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class Slice:
    """One slice of a volume, as a person looks at it.

    The head is up, in an axial slice the front of the body; the left of the body is at the left,
    in a sagittal slice its back.

    Attributes
    ----------
    orientation : str
        Where the volume's axes run to, as in ``"RAS"``.
    across : {0, 1, 2}
        Which slices: sagittal, coronal or axial.
    number, count : int
        Which one of how many, from 0 at the left, the back or the feet.
    """

    orientation: str
    across: int
    number: int
    count: int

    @property
    def title(self) -> str:
        """What it is called.

        Examples
        --------
        >>> Slice("RAS", across=2, number=0, count=12).title
        'axial slice 1 of 12'
        """
        return f"{_PLANES[self.across]} slice {self.number + 1} of {self.count}"

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The slice of an image, a mask or a map.

        Parameters
        ----------
        values : ndarray, shape (D, H, W, ...)

        Returns
        -------
        ndarray, shape (H', W', ...)

        Examples
        --------
        >>> volume = np.arange(8).reshape(2, 2, 2)
        >>> Slice("RAS", across=2, number=0, count=2).of(volume).tolist()
        [[2, 6], [0, 4]]
        """
        taken = _from_left_back_feet(values, self.orientation).take(self.number, axis=self.across)
        return np.ascontiguousarray(taken.swapaxes(0, 1)[::-1])


def choose_slice(
    masks: Sequence[NDArray[np.bool_]], orientation: str, spacing: Sequence[float]
) -> Slice:
    """The slice that shows most of some regions.

    It lies in the plane in which the volume is finest, so across its longest voxel side, and is
    axial where all sides are alike.

    Parameters
    ----------
    masks : sequence of ndarray of bool, shape (D, H, W)
        Their voxels count together; of several best slices the one nearest to the middle is
        chosen.
    orientation : str
        Where the axes run to.
    spacing : sequence of float
        A voxel's sides from left to right, back to front and feet to head.

    Returns
    -------
    Slice

    Examples
    --------
    >>> mask = np.zeros((4, 3, 2), bool)
    >>> mask[3, 1] = True
    >>> choose_slice([mask], "LPS", spacing=(5.0, 1.0, 1.0)).title
    'sagittal slice 1 of 4'
    """
    longest = np.isclose(spacing, max(spacing), rtol=1e-3)
    across = int(np.flatnonzero(longest)[-1])
    others = tuple(axis for axis in range(3) if axis != across)
    hits = sum(_from_left_back_feet(mask, orientation).sum(axis=others) for mask in masks)
    counts = np.asarray(hits)
    best = np.flatnonzero(counts == counts.max())
    number = int(best[np.abs(best - len(counts) // 2).argmin()])
    return Slice(orientation, across, number, len(counts))


def _from_left_back_feet(values: NDArray[Any], orientation: str) -> NDArray[Any]:
    """The volume with its axes from left to right, back to front and feet to head."""
    order = [
        next(axis for axis, letter in enumerate(orientation) if letter in pair) for pair in _LETTERS
    ]
    backwards = tuple(i for i, pair in enumerate(_LETTERS) if orientation[order[i]] == pair[0])
    turned = values.transpose(*order, *range(3, values.ndim))
    return np.asarray(np.flip(turned, axis=backwards))
