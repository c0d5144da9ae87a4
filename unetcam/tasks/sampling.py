"""The images of a run that a diagnosis is made on: some of them, of one size, cut where need be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.data import Item, Skipped
from unetcam.runs import Plan

#: Images that a diagnosis is made on, and values of their tensors: bounds time and memory.
MOST_IMAGES = 24
MOST_VALUES = 1 << 27
#: Images of other sizes are left out where those of the commonest size are this share of all.
_MOST_OF_THEM = 0.5


@dataclass(frozen=True)
class Sampled:
    """Images of one size, as the network takes them, with their masks.

    Attributes
    ----------
    names : tuple of str
        Ids; of images that were cut with the part that was kept, as ``"im01 (0:64, 32:96)"``.
    images : Tensor
        (N, C, *spatial) float32.
    truth : Tensor
        (N, *spatial) int64; -1 where a pixel counts nowhere.
    """

    names: tuple[str, ...]
    images: Tensor
    truth: Tensor


@dataclass(frozen=True)
class _Part:
    """An image, or a part of one, with its mask."""

    name: str
    image: Tensor
    truth: Tensor

    @property
    def size(self) -> tuple[int, ...]:
        return tuple(self.truth.shape)

    def cut(self, size: Sequence[int]) -> _Part:
        """The part of that size in which most is seen of what isn't the commonest class."""
        if self.size == tuple(size):
            return self
        start = _fullest(self.truth, size)
        where = tuple(slice(low, low + side) for low, side in zip(start, size, strict=True))
        text = ", ".join(f"{one.start}:{one.stop}" for one in where)
        return _Part(f"{self.name} ({text})", self.image[(slice(None), *where)], self.truth[where])


def sample(plan: Plan, usable: Sequence[str] | None = None) -> Sampled | None:
    """Up to 24 images spread evenly over a data set, of one size.

    Of images that are explained in tiles one tile each is taken. Where images differ in size those
    of the commonest are taken, if they are half of all; otherwise parts of the size that fits into
    all of them, in whole strides of the network.

    Parameters
    ----------
    plan : Plan
    usable : sequence of str, optional
        Ids of the images that may be taken; all by default.

    Returns
    -------
    Sampled or None
        None where fewer than two are left.
    """
    allowed = None if usable is None else set(usable)
    positions = [n for n, one in enumerate(plan.samples) if allowed is None or one.id in allowed]
    count = min(MOST_IMAGES, len(positions))
    chosen = [positions[number * len(positions) // count] for number in range(count)]
    parts = _read(plan, chosen)
    if not parts:
        return None
    size = _common_size([one.size for one in parts], plan.network.stride)
    fitting = [one.cut(size) for one in parts if _fits(size, one.size)]
    if len(fitting) < 2:
        return None
    return Sampled(
        tuple(one.name for one in fitting),
        torch.stack([one.image for one in fitting]),
        torch.stack([one.truth for one in fitting]),
    )


def _read(plan: Plan, chosen: Sequence[int]) -> list[_Part]:
    """The chosen images, cut to tiles where the run has tiles, as far as memory may hold them."""
    dataset = plan.dataset(chosen)
    parts: list[_Part] = []
    values = 0
    for number in range(len(chosen)):
        entry: Item | Skipped = dataset[number]
        if isinstance(entry, Skipped) or entry.prepared.mask is None:
            continue
        part = _Part(entry.sample.id, entry.prepared.image, entry.prepared.mask)
        if plan.spec.tile is not None:
            tile = [min(pair) for pair in zip(plan.spec.tile, part.size, strict=True)]
            part = part.cut(tile)
        values += part.image.numel()
        if values > MOST_VALUES and len(parts) > 1:
            break
        # A view would keep the whole image in memory.
        parts.append(_Part(part.name, part.image.clone(), part.truth.clone()))
    return parts


def _common_size(sizes: Sequence[tuple[int, ...]], stride: int) -> tuple[int, ...]:
    size, times = Counter(sizes).most_common(1)[0]
    if times >= _MOST_OF_THEM * len(sizes):
        return size
    smallest = [min(sides) for sides in zip(*sizes, strict=True)]
    return tuple(max(1, side // stride) * min(stride, side) for side in smallest)


def _fits(size: Sequence[int], whole: Sequence[int]) -> bool:
    return all(side <= given for side, given in zip(size, whole, strict=True))


def _fullest(truth: Tensor, size: Sequence[int]) -> list[int]:
    """Where the part begins that holds most pixels of other classes than the commonest.

    Parts begin at every half of their side, and where they end with the image.
    """
    known = truth[truth >= 0]
    commonest = known.mode().values if len(known) else -1
    counts = ((truth >= 0) & (truth != commonest)).double()
    starts = []
    for axis, side in enumerate(size):
        last = truth.shape[axis] - side
        at = sorted({*range(0, last + 1, max(1, side // 2)), last})
        starts.append(at)
        sums = torch.cat((torch.zeros_like(counts.narrow(axis, 0, 1)), counts.cumsum(axis)), axis)
        low = torch.tensor(at)
        counts = sums.index_select(axis, low + side) - sums.index_select(axis, low)
    best = int(counts.flatten().argmax())
    corner = torch.unravel_index(torch.tensor(best), counts.shape)
    return [at[int(number)] for at, number in zip(starts, corner, strict=True)]
