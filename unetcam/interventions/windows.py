"""Hide one window after another and spare the object: a reliance map whose unit is a flip."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.errors import UnetcamError
from unetcam.interventions.effects import Baseline, Effects, measure
from unetcam.interventions.fills import Filling
from unetcam.interventions.hiding import Surroundings
from unetcam.interventions.prediction import Predictor

#: The coarsest windows' side, as a share of the image's shortest side.
COARSEST = 1 / 4
#: By default windows get no smaller than this share of the shortest side.
FINEST = 1 / 10
#: A window is cut into smaller ones where it flips at least this share of the class.
REFINED_FROM = 0.1
#: Of each region so many windows are cut at most: those that flip most.
_MOST_CUT = 3
#: A smaller window takes its larger one's place where it keeps this share of its effect.
_KEPT = 0.7
#: A window of which less than this share may be hidden is passed over.
_LEAST_HIDDEN = 0.1


@dataclass(frozen=True)
class Window:
    """A box that was hidden but for what was spared in it.

    Attributes
    ----------
    start, stop : tuple of int
        Where it begins and ends along each axis, in pixels; `stop` does not belong to it.
    flips : float
        The share of the class's region that flips when it is hidden.
    dice, margin : float
        The change of the class's Dice, and of its mean margin in logits.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    flips: float
    dice: float
    margin: float

    def mask(self, size: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        """The box as a mask, (*size) bool."""
        mask = torch.zeros(*size, dtype=torch.bool, device=device)
        mask[tuple(slice(low, high) for low, high in zip(self.start, self.stop, strict=True))] = (
            True
        )
        return mask


@dataclass(frozen=True, eq=False)
class Search:
    """What the windows of N regions showed.

    Attributes
    ----------
    maps : Tensor
        (N, *spatial) float32: the mean, over the smallest windows that hid a pixel and among which
        one keeps most of the region's effect, of the share of the region that flipped; NaN where a
        pixel was spared or in no window.
    strongest : tuple of Window or None
        By region the window that is named: the one of most effect, or the smallest inside it that
        keeps most of it; None where nothing could be hidden.
    windows : tuple of tuple of Window
        By region all that were tried, the strongest first.
    """

    maps: Tensor
    strongest: tuple[Window | None, ...]
    windows: tuple[tuple[Window, ...], ...]


@dataclass(frozen=True, eq=False)
class _Boxes:
    """M windows of N regions: which region's, where, how large."""

    region: Tensor  # (M,)
    start: Tensor  # (M, D)
    stop: Tensor  # (M, D)

    def masks(self, size: Sequence[int], numbers: Tensor) -> Tensor:
        """The boxes of these numbers as masks, (n, *size) bool."""
        masks = torch.ones(1, dtype=torch.bool, device=numbers.device)
        for axis, side in enumerate(size):
            at = torch.arange(side, device=numbers.device)
            inside = (at >= self.start[numbers, axis, None]) & (at < self.stop[numbers, axis, None])
            shape = [len(numbers), *[1] * len(size)]
            shape[axis + 1] = side
            masks = masks & inside.view(shape)
        return masks

    def chosen(self, which: Tensor) -> _Boxes:
        return _Boxes(self.region[which], self.start[which], self.stop[which])


def sides(size: Sequence[int], smallest: float | None = None) -> tuple[int, ...]:
    """The windows' sides from coarse to fine, in pixels, each half of the one before.

    Parameters
    ----------
    size : sequence of int
        The image's.
    smallest : float, optional
        The finest windows' least side in pixels, as the network's stride; a tenth of the shortest
        side by default.

    Raises
    ------
    UnetcamError
        For a smallest side below one pixel.

    Examples
    --------
    >>> sides((64, 64)), sides((192, 160), smallest=8)
    ((16, 8), (40, 20, 10))
    """
    shortest = min(size)
    least = max(1.0, shortest * FINEST) if smallest is None else float(smallest)
    if not least >= 1:
        raise UnetcamError(
            f"smallest={smallest!r} is no window's side: give a number of pixels of 1 or more."
        )
    side = max(1, round(shortest * COARSEST))
    ladder = [side]
    while side // 2 >= least and side >= 2:
        side //= 2
        ladder.append(side)
    return tuple(ladder)


def search(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    classes: Tensor,
    regions: Tensor,
    surroundings: Surroundings,
    filling: Filling,
    *,
    smallest: float | None = None,
    refined_from: float = REFINED_FROM,
    done: Callable[[int], None] | None = None,
) -> Search:
    """Hide windows of N regions, coarse to fine, smaller ones only where an effect is seen.

    The coarsest cover the image twice, the second time moved by half a window, so that whatever
    lies on the border of one lies inside another. A window with an effect is cut into windows of
    half its side that overlap by half.

    Parameters
    ----------
    predictor, baseline
    image, classes : Tensor
        (N,) in which image, and of which class, each region lies.
    regions : Tensor
        (N, *spatial) bool, what may flip.
    surroundings : Surroundings
        Of N: what is spared is no part of any window.
    filling : callable
        See :data:`~unetcam.interventions.fills.Filling`.
    smallest : float, optional
        See :func:`sides`.
    refined_from : float
        The share of flips from which a window is cut.
    done : callable, optional
        Is told how many windows were tried since it was told last.
    """
    size = baseline.images.shape[2:]
    allowed = surroundings.all
    ladder = sides(size, smallest)
    boxes = _coarsest(size, ladder[0], len(image), image.device)
    levels: list[tuple[_Boxes, Effects]] = []
    for level, side in enumerate(ladder):
        boxes = boxes.chosen(_worthwhile(boxes, allowed))
        if not len(boxes.region):
            break
        effects = _tried(predictor, baseline, image, classes, boxes, regions, allowed, filling)
        if done is not None:
            done(len(boxes.region))
        levels.append((boxes, effects))
        if level + 1 < len(ladder):
            again = _strongest(boxes, effects, len(image)) & (effects.flips >= refined_from)
            boxes = _cut(boxes.chosen(again), side, ladder[level + 1], size)
    return _summed_up(levels, allowed, len(image))


def _strongest(boxes: _Boxes, effects: Effects, count: int) -> Tensor:
    """Which windows are among the few of their region that flip most, (M,) bool."""
    flips = torch.nan_to_num(effects.flips, nan=-1.0)
    order = torch.argsort(flips, descending=True, stable=True)
    order = order[torch.argsort(boxes.region[order], stable=True)]
    sizes = torch.bincount(boxes.region, minlength=count)
    first = (sizes.cumsum(0) - sizes)[boxes.region[order]]
    rank = torch.arange(len(order), device=order.device) - first
    chosen = torch.zeros_like(flips, dtype=torch.bool)
    chosen[order] = rank < _MOST_CUT
    return chosen


def _coarsest(size: Sequence[int], side: int, count: int, device: torch.device) -> _Boxes:
    grids = []
    for offset in (0, side // 2):
        axes = [_starts(length, side, offset) for length in size]
        grids += list(itertools.product(*axes))
    corners = sorted(set(grids))
    start = torch.tensor(corners, device=device)
    stop = torch.minimum(start + side, torch.tensor(size, device=device))
    regions = torch.arange(count, device=device).repeat_interleave(len(start))
    return _Boxes(regions, start.repeat(count, 1), stop.repeat(count, 1))


def _starts(length: int, side: int, offset: int) -> list[int]:
    """Where windows begin so that they touch; the last one ends where the image does."""
    last = max(0, length - side)
    starts = list(range(offset, last + 1, side))
    if not offset and (not starts or starts[-1] < last):
        starts.append(last)
    return starts or [last]


def _cut(boxes: _Boxes, side: int, half: int, size: Sequence[int]) -> _Boxes:
    """Windows of half the side, three along each axis, without doubles."""
    device = boxes.start.device
    offsets = sorted({0, (side - half) // 2, side - half})
    moves = torch.tensor(list(itertools.product(offsets, repeat=len(size))), device=device)
    start = (boxes.start[:, None] + moves).flatten(0, 1)
    limit = torch.tensor([max(0, length - half) for length in size], device=device)
    start = torch.minimum(start, limit)
    region = boxes.region.repeat_interleave(len(moves))
    unique = torch.unique(torch.cat((region[:, None], start), dim=1), dim=0)
    start = unique[:, 1:]
    stop = torch.minimum(start + half, torch.tensor(size, device=device))
    return _Boxes(unique[:, 0], start, stop)


def _worthwhile(boxes: _Boxes, allowed: Tensor) -> Tensor:
    """Which windows hide enough of themselves, (M,) bool, from sums over boxes."""
    sums = allowed.double()
    for axis in range(1, allowed.ndim):
        sums = sums.cumsum(axis)
        sums = torch.cat((torch.zeros_like(sums.narrow(axis, 0, 1)), sums), dim=axis)
    dims = boxes.start.shape[1]
    total = torch.zeros(len(boxes.region), dtype=torch.float64, device=allowed.device)
    for corner in itertools.product((False, True), repeat=dims):
        at = [
            boxes.stop[:, axis] if upper else boxes.start[:, axis]
            for axis, upper in enumerate(corner)
        ]
        sign = (-1) ** (dims - sum(corner))
        total += sign * sums[(boxes.region, *at)]
    volume = (boxes.stop - boxes.start).prod(dim=1)
    return total >= torch.clamp(_LEAST_HIDDEN * volume, min=1)


def _tried(
    predictor: Predictor,
    baseline: Baseline,
    image: Tensor,
    classes: Tensor,
    boxes: _Boxes,
    regions: Tensor,
    allowed: Tensor,
    filling: Filling,
) -> Effects:
    size = baseline.images.shape[2:]

    def hidden(numbers: Tensor) -> Tensor:
        return boxes.masks(size, numbers) & allowed[boxes.region[numbers]]

    return measure(
        predictor,
        baseline,
        image[boxes.region],
        classes[boxes.region],
        lambda numbers: filling(image[boxes.region[numbers]], hidden(numbers)),
        region=lambda numbers: regions[boxes.region[numbers]],
        hidden=hidden,
    )


def _summed_up(levels: list[tuple[_Boxes, Effects]], allowed: Tensor, count: int) -> Search:
    maps = torch.full(allowed.shape, torch.nan, dtype=torch.float32, device=allowed.device)
    best = torch.zeros(count, dtype=torch.float64, device=allowed.device)
    tried: list[list[Window]] = [[] for _ in range(count)]
    level_of: list[list[int]] = [[] for _ in range(count)]
    for level, (boxes, effects) in enumerate(levels):
        total, times = torch.zeros_like(maps), torch.zeros_like(maps)
        for numbers in torch.split(torch.arange(len(boxes.region), device=maps.device), 64):
            masks = boxes.masks(allowed.shape[1:], numbers).float()
            flips = effects.flips[numbers].float().view(-1, *[1] * (maps.ndim - 1))
            total.index_add_(0, boxes.region[numbers], masks * torch.nan_to_num(flips))
            times.index_add_(0, boxes.region[numbers], masks)
        most = torch.zeros_like(best).scatter_reduce(
            0, boxes.region, torch.nan_to_num(effects.flips), "amax"
        )
        # Smaller windows that lose most of the effect say less of where it is than larger ones.
        finer = most >= _KEPT * best
        best = torch.where(finer, most, best)
        maps = torch.where(
            (times > 0) & finer.view(-1, *[1] * (maps.ndim - 1)), total / times, maps
        )
        measured = torch.stack((effects.flips, effects.dice, effects.margin), dim=1).tolist()
        rows = zip(
            boxes.region.tolist(), boxes.start.tolist(), boxes.stop.tolist(), measured, strict=True
        )
        for at, start, stop, values in rows:
            tried[at].append(Window(tuple(start), tuple(stop), *values))
            level_of[at].append(level)
    maps = torch.where(allowed, maps, torch.nan)
    strongest = tuple(_named(one, level) for one, level in zip(tried, level_of, strict=True))
    return Search(maps, strongest, tuple(tuple(sorted(one, key=_strength)) for one in tried))


def _strength(window: Window) -> tuple[float, float]:
    """Sorts by flips, and among equals by what the margin loses."""
    return -window.flips if window.flips == window.flips else 1.0, window.margin


def _named(windows: Sequence[Window], levels: Sequence[int]) -> Window | None:
    """Of the strongest window the smallest inside it that keeps most of its effect."""
    by_level: dict[int, list[Window]] = {}
    for window, level in zip(windows, levels, strict=True):
        by_level.setdefault(level, []).append(window)
    best: Window | None = None
    for level in sorted(by_level):
        candidates = sorted(by_level[level], key=_strength)
        if best is None:
            best = candidates[0]
            continue
        inside = [one for one in candidates if _overlap(one, best)]
        if inside and inside[0].flips >= _KEPT * best.flips and best.flips > 0:
            best = inside[0]
    return best


def _overlap(one: Window, other: Window) -> bool:
    return all(
        low < other_high and other_low < high
        for low, high, other_low, other_high in zip(
            one.start, one.stop, other.start, other.stop, strict=True
        )
    )
