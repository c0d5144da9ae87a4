"""Move an image's contents and predict again: did the network learn where things stand?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unetcam.interventions.effects import Baseline
from unetcam.interventions.prediction import Predictor

#: How far the contents move, as a share of the side, before rounding to the stride.
SHARE = 1 / 4


@dataclass(frozen=True)
class Shift:
    """A move of an image's contents along one axis.

    Attributes
    ----------
    axis : int
        Of the spatial axes.
    pixels : int
        Towards higher indices where positive. What leaves the image is lost; what enters
        continues its border.
    """

    axis: int
    pixels: int

    def moved(self, images: Tensor) -> Tensor:
        """The images (B, C, *spatial) with their contents moved.

        Examples
        --------
        >>> import torch
        >>> Shift(1, 1).moved(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
        tensor([[[[1., 1., 2.]]]])
        """
        side = images.shape[2 + self.axis]
        at = torch.arange(side, device=images.device) - self.pixels
        return images.index_select(2 + self.axis, at.clamp(0, side - 1))

    def unmoved(self, images: Tensor) -> Tensor:
        """What :meth:`moved` shows, with the contents where they were: the control.

        The border that :meth:`moved` loses continues here what is beside it.

        Examples
        --------
        >>> import torch
        >>> Shift(1, 1).unmoved(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
        tensor([[[[1., 2., 2.]]]])
        """
        side = images.shape[2 + self.axis]
        at = torch.arange(side, device=images.device)
        low, high = max(0, -self.pixels), side - 1 - max(0, self.pixels)
        return images.index_select(2 + self.axis, at.clamp(low, high))

    def kept(self, size: Sequence[int], margin: int = 0) -> tuple[slice, ...]:
        """Where the contents are that stay in view, but for a margin at the lost border.

        >>> Shift(1, 2).kept((4, 8), margin=1)
        (slice(None, None, None), slice(0, 5, None))
        """
        side = size[self.axis]
        low = max(0, -self.pixels) + (margin if self.pixels < 0 else 0)
        high = side - max(0, self.pixels) - (margin if self.pixels > 0 else 0)
        inside = [slice(None)] * len(size)
        inside[self.axis] = slice(low, max(low, high))
        return tuple(inside)

    def arrived(self, size: Sequence[int], margin: int = 0) -> tuple[slice, ...]:
        """Where those contents are once moved."""
        kept = list(self.kept(size, margin))
        inside = kept[self.axis]
        kept[self.axis] = slice(inside.start + self.pixels, inside.stop + self.pixels)
        return tuple(kept)


def quarter_shifts(size: Sequence[int], stride: int = 1) -> tuple[Shift, ...]:
    """A quarter of the side back and forth along each axis, in whole strides.

    A network that samples its maps down may treat a move by less than its stride otherwise, which
    is no matter of where things stand. An axis that has no room for a stride is left out.

    Examples
    --------
    >>> [(shift.axis, shift.pixels) for shift in quarter_shifts((64, 24), stride=8)]
    [(0, 16), (0, -16), (1, 8), (1, -8)]
    """
    moves = [(axis, round(side * SHARE / stride) * stride) for axis, side in enumerate(size)]
    return tuple(
        Shift(axis, sign * pixels)
        for axis, pixels in moves
        if 0 < pixels <= size[axis] // 2
        for sign in (1, -1)
    )


def shift_effects(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    shift: Shift,
    *,
    margin: int = 0,
    least: int = 1,
) -> tuple[Tensor, Tensor]:
    """How much of each class flips when the contents move, and when the border alone is lost.

    Parameters
    ----------
    predictor, baseline, image, shift, margin, least
        See :func:`shift_flips`.

    Returns
    -------
    flips, control : Tensor
        (N, classes) float64 each.
    """
    flips, control = (
        shift_flips(predictor, baseline, image, shift, moving=moving, margin=margin, least=least)
        for moving in (True, False)
    )
    return flips, control


def shift_flips(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    shift: Shift,
    *,
    moving: bool = True,
    margin: int = 0,
    least: int = 1,
) -> Tensor:
    """How much of each class flips when the contents move or, without, when the border is lost.

    Parameters
    ----------
    predictor, baseline
    image : Tensor
        (N,) which images are moved.
    shift : Shift
    moving : bool
        False for the control: the same border is lost, and the contents stay.
    margin : int
        Pixels at the lost border that are not looked at.
    least : int
        Right pixels that a class must have in what stays in view.

    Returns
    -------
    Tensor
        (N, classes) float64, the share of the right pixels that stay in view which are no longer
        predicted as the class; NaN where there are too few.
    """
    size = baseline.images.shape[2:]
    kept: tuple[Any, ...] = (..., *shift.kept(size, margin))
    where: tuple[Any, ...] = (..., *shift.arrived(size, margin)) if moving else kept
    change = shift.moved if moving else shift.unmoved

    def one_chunk(numbers: Tensor) -> Tensor:
        region = baseline.correct[numbers][kept]
        after = predictor(change(baseline.images[numbers])).masks[where]
        count = region.flatten(2).sum(2).double()
        lost = (region & ~after).flatten(2).sum(2).double()
        return torch.where(count >= least, lost / count, torch.nan)

    if not len(image):
        return baseline.images.new_zeros((0, baseline.classes), dtype=torch.float64)
    return torch.cat(predictor.in_chunks(one_chunk, image, baseline.images))
