"""The values of many maps in descending order, and which of them lie in the class's regions."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from unetcam.morphology import nonzero

_INT_MAX = torch.iinfo(torch.int32).max
_EXPONENT = 23
_LARGEST_EXPONENT = 127
"""Bits of a float32 below 2.0 leave the two highest bits of 32 free."""


class Ranking:
    """The positive values of R maps in descending order, with their place in two regions.

    Parameters
    ----------
    values : Tensor
        ``(R, N)`` float32 or float64, finite and >= 0; 0 on ignored pixels.
    peak : Tensor
        ``(R,)``, each map's maximum.
    membership : Tensor
        ``(R, N)`` int32: 2 in the first region, 1 in the second, 3 in both, 0 in neither and on
        ignored pixels.

    Attributes
    ----------
    weights : Tensor
        ``(R, P)`` float64: each map's values, descending, 0 behind its last positive one. P is
        the largest number of positive values of a map.
    positive : Tensor
        ``(R,)`` int64: how many positive values each map has.

    Notes
    -----
    Non-negative floats order as their bits do when read as integers. A float32 map that is
    brought below 2 by a power of two leaves two bits free, which carry the membership through the
    sort: one sort of integers, no indices, nothing to be gathered. Where bringing it there would
    lose values (below 2 ** -126 of the maximum), and in float64, values are sorted with their
    indices.
    """

    def __init__(self, values: Tensor, peak: Tensor, membership: Tensor) -> None:
        offset = _offset(peak) if values.dtype == torch.float32 else None
        if offset is not None and not _loses(values, offset):
            ordered, inside = _sorted_with_membership(values, offset, membership)
        else:
            ordered, inside = _sorted_with_indices(values, membership)
        self._descending, self._negated = ordered, -ordered
        self.positive = self.above(torch.zeros_like(peak)[:, None])[:, 0]
        count = int(self.positive.amax())
        self._values, inside = ordered[:, :count], inside[:, :count]
        self.weights = self._values.double()
        inside = inside * (self._values > 0)
        self._inside = torch.empty(2, *inside.shape, dtype=torch.float64, device=inside.device)
        self._inside[0], self._inside[1] = inside >> 1, inside & 1

    @cached_property
    def hits(self) -> Tensor:
        """``(2, R, P)`` float64: how many of the positive values so far lie in each region."""
        return self._inside.cumsum(-1)

    @cached_property
    def place(self) -> Tensor:
        """``(P,)`` float64: how many values there are so far."""
        count = self._values.shape[-1]
        return torch.arange(1, count + 1, device=self._values.device, dtype=torch.float64)

    @cached_property
    def _tied(self) -> Tensor:
        """Where the next value is the same, and positive: positions in ``(R, P)``, ascending."""
        tied = torch.zeros_like(self._values, dtype=torch.bool)
        torch.eq(self._values[:, 1:], self._values[:, :-1], out=tied[:, :-1])
        tied &= self._values > 0
        return nonzero(tied)

    def at_least(self, level: Tensor) -> Tensor:
        """How many values of each map are at least ``level`` ``(R, Q)``, which is positive."""
        return torch.searchsorted(self._negated, -level.contiguous(), right=True)

    def above(self, level: Tensor) -> Tensor:
        """How many values of each map are larger than ``level`` ``(R, Q)``."""
        return torch.searchsorted(self._negated, -level.contiguous())

    def value_at(self, place: Tensor) -> Tensor:
        """The values ``(R, Q)`` at places ``(R, Q)`` from 0."""
        return self._descending.gather(-1, place)

    def hits_up_to(self, count: Tensor) -> Tensor:
        """How many of the first ``count`` ``(2, R)`` values lie in each region, float64."""
        if self._values.shape[-1] == 0:
            return torch.zeros_like(count, dtype=torch.float64)
        index = (count.clamp(max=self._values.shape[-1]) - 1).clamp(min=0)
        return torch.where(count > 0, self.hits.gather(-1, index[..., None])[..., 0], 0.0)

    def best_cut(self, size: Tensor) -> tuple[Tensor, Tensor]:
        """The largest IoU of a region with the values above a cut, and the last value above it.

        Parameters
        ----------
        size : Tensor
            ``(2, R)`` float64, how many pixels the regions have.

        Returns
        -------
        iou, value : Tensor
            ``(2, R)`` float64.
        """
        if self._values.shape[-1] == 0:
            return torch.zeros_like(size), torch.zeros_like(size)
        iou = self.place + size[..., None]
        iou.sub_(self.hits)
        torch.div(self.hits, iou, out=iou)
        # Equal values share a cut: it lies behind the last of them.
        iou.flatten(1)[:, self._tied] = 0.0
        best, where = iou.max(-1)
        return best, self.weights.gather(-1, where.T).T

    def precision_gained(self) -> Tensor:
        """Sum over the cuts of the hits gained times the precision there, ``(2, R)`` float64."""
        gained = (self._inside * self.hits) @ self.place.reciprocal()
        tied = self._tied
        if len(tied) == 0:
            return gained
        # Among equal values each hit has the precision behind the last of them.
        count = self._values.shape[-1]
        breaks = torch.ones_like(tied, dtype=torch.bool)
        torch.ne(tied[1:], tied[:-1] + 1, out=breaks[:-1])
        group = breaks.cumsum(0) - breaks.long()
        end = tied[nonzero(breaks)][group] + 1
        hits, row = self.hits.flatten(1), tied // count
        here, there = self.place[tied - row * count], self.place[end - row * count]
        change = self._inside.flatten(1)[:, tied] * (hits[:, end] / there - hits[:, tied] / here)
        return gained.index_add_(1, row, change)


def _offset(peak: Tensor) -> Tensor:
    """What is taken off a map's bits, (R, 1) int32, so that its maximum lies below 2."""
    exponent = peak.view(torch.int32) >> _EXPONENT
    return (exponent - _LARGEST_EXPONENT).clamp(min=0)[:, None] << _EXPONENT


def _loses(values: Tensor, offset: Tensor) -> bool:
    """Whether a positive value would become 0 when the offset is taken off."""
    if not bool(offset.any()):
        return False
    bits = values.view(torch.int32)
    return bool(((bits > 0) & (bits <= offset)).any())


def _sorted_with_membership(
    values: Tensor, offset: Tensor, membership: Tensor
) -> tuple[Tensor, Tensor]:
    # adding 0 turns -0, whose bits are those of a negative integer, into 0
    bits = (values + 0.0).view(torch.int32)
    if bool(offset.any()):
        bits = (bits - offset).clamp_(min=0)
    # The key falls where the value rises, as sorting ascends; its highest bit is the sign's.
    key = bits.bitwise_left_shift(2).bitwise_or_(membership).bitwise_xor_(_INT_MAX)
    if key.device.type == "cpu":
        key.numpy().sort(axis=-1)  # torch sorts indices along, which takes twenty times as long
    else:
        key = key.sort(dim=-1).values
    key = key.bitwise_xor_(_INT_MAX)
    inside = key & 3
    bits = (key >> 2) & (_INT_MAX >> 1)
    if bool(offset.any()):
        bits = torch.where(bits > 0, bits + offset, 0)
    return bits.view(torch.float32), inside


def _sorted_with_indices(values: Tensor, membership: Tensor) -> tuple[Tensor, Tensor]:
    ordered, pixels = (values + 0.0).sort(dim=-1, descending=True)
    return ordered, membership.gather(-1, pixels)
