"""What to hide: everything but an object, near it, far from it, and the same shape elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from unetcam.errors import UnetcamError
from unetcam.morphology.distance import default_width, distance_transform

#: How many bands' widths away from an object is far.
_FAR = 5.0
#: Distances are told apart up to this share of the longest side.
_REACH = 0.25
#: A moved shape that keeps less of its pixels than this is no control.
_LEAST_KEPT = 0.5


@dataclass(frozen=True, eq=False)
class Surroundings:
    """How far every pixel lies from the regions that are to be spared.

    Attributes
    ----------
    distance : Tensor
        (N, *spatial) float32 in pixels, 0 inside; infinite farther away than a quarter of the
        longest side (or ten bands' widths, where that is more).
    band : float
        The spared band's width in pixels.
    """

    distance: Tensor
    band: float

    @classmethod
    def of(cls, spared: Tensor, band: float | None = None) -> Surroundings:
        """The surroundings of regions (N, *spatial) bool.

        Parameters
        ----------
        spared : Tensor
        band : float, optional
            In pixels; 2 % of the image's diagonal, at least 1, by default.

        Raises
        ------
        UnetcamError
            For a negative band.
        """
        size = spared.shape[1:]
        width = default_width(size) if band is None else float(band)
        if not width >= 0:
            raise UnetcamError(f"band={band!r} is no width in pixels: give a number of 0 or more.")
        reach = max(2 * _FAR * width, _REACH * max(size))
        return cls(distance_transform(spared, spatial_dims=len(size), reach=reach), width)

    @property
    def all(self) -> Tensor:
        """Everything but the regions and the band around them, (N, *spatial) bool."""
        return self.distance > self.band

    @property
    def near(self) -> Tensor:
        """The ring from the band's edge to five times its width."""
        return self.all & (self.distance <= _FAR * self.band)

    @property
    def far(self) -> Tensor:
        """What lies beyond the near ring."""
        return self.all & (self.distance > _FAR * self.band)

    @property
    def edge(self) -> Tensor:
        """The first pixel of the surroundings: a fill's border with hardly anything behind it."""
        return self.all & (self.distance <= self.band + 1.0)


def moved(hidden: Tensor, surroundings: Surroundings) -> Tensor:
    """The same shapes where nothing is claimed: mirrored, turned or moved, at a like distance.

    Of the image's mirror images, half turns and moves by half a side, the one is taken that keeps
    most of the shape outside what is spared and outside the shape itself and, among those that
    keep as much, lies at the most similar distance from the region.

    Parameters
    ----------
    hidden : Tensor
        (N, *spatial) bool.
    surroundings : Surroundings
        Of the same N.

    Returns
    -------
    Tensor
        (N, *spatial) bool; empty where no place keeps half of the shape.

    Examples
    --------
    >>> import torch
    >>> spared = torch.tensor([[[0, 0, 0, 1, 0, 0, 0]]]).bool()
    >>> hidden = torch.tensor([[[0, 1, 0, 0, 0, 0, 0]]]).bool()
    >>> moved(hidden, Surroundings.of(spared, band=1)).int()
    tensor([[[0, 0, 0, 0, 0, 1, 0]]], dtype=torch.int32)
    """
    allowed = surroundings.all & ~hidden
    area = hidden.flatten(1).sum(1).clamp(min=1)
    distance = surroundings.distance.clamp(max=_REACH * max(hidden.shape[1:]))
    mean = _mean_where(distance, hidden)
    best = torch.zeros_like(hidden)
    best_cost = torch.full_like(mean, torch.inf)
    scale = float(max(hidden.shape[1:]))
    for change in _moves(hidden.shape[1:]):
        candidate = change.applied(hidden) & allowed
        kept = candidate.flatten(1).sum(1) / area
        off = (_mean_where(distance, candidate) - mean).abs() / scale
        cost = torch.where(kept >= _LEAST_KEPT, 1.0 - kept + 0.5 * off, torch.inf)
        better = cost < best_cost
        best_cost = torch.where(better, cost, best_cost)
        best = torch.where(better.view(-1, *[1] * (hidden.ndim - 1)), candidate, best)
    return best


@dataclass(frozen=True)
class _Move:
    """Some axes mirrored, then all moved, over the border to the other side."""

    mirrored: tuple[int, ...]
    shifts: tuple[int, ...]

    def applied(self, masks: Tensor) -> Tensor:
        axes = tuple(range(1, masks.ndim))
        flipped = masks.flip(self.mirrored) if self.mirrored else masks
        return flipped.roll(self.shifts, axes) if any(self.shifts) else flipped


def _moves(size: Sequence[int]) -> list[_Move]:
    """Mirror images and half turns first, for of equally good places the first is taken."""
    choices = list(product((False, True), repeat=len(size)))
    moves = []
    for halves, flips in product(choices, choices):
        mirrored = tuple(axis for axis, flip in enumerate(flips, start=1) if flip)
        shifts = tuple(side // 2 if half else 0 for side, half in zip(size, halves, strict=True))
        if mirrored or any(shifts):
            moves.append(_Move(mirrored, shifts))
    return moves


def _mean_where(values: Tensor, masks: Tensor) -> Tensor:
    """The mean of (N, *spatial) where a mask is True, in each of N; 0 where it never is."""
    return (values * masks).flatten(1).sum(1) / masks.flatten(1).sum(1).clamp(min=1)
