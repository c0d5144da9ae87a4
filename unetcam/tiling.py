"""Images and volumes that don't fit: explained tile by tile, as the one image they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unetcam.data.tiles import Tiles, Tiling, Window
from unetcam.engine import Collected, Request, collect
from unetcam.engine.hooks import forward
from unetcam.engine.request import Score, Scoring, targets_of
from unetcam.engine.tensors import at_least_single
from unetcam.errors import LayerError, ModelError, NumericalError, UnetcamError
from unetcam.methods import GradientMethod, Method
from unetcam.targets.whole_scores import WholeScore, whole_scores

#: Explains a batch of images by a method, for some scores.
Explain = Callable[[Tensor, Scoring, Method], Collected]
#: Tiles' numbers, the targets that look at them, and by layer what came of it, (b, t, ...).
TileStatistics = tuple[Sequence[int], Sequence[int], Mapping[str, Tensor]]


@torch.inference_mode(False)
def explain_tiles(explain: Explain, method: Method, tiles: Tiles, score: Scoring) -> Collected:
    r"""Explain the network that looks at an image tile by tile.

    What is explained is that network as it is: its logits are those of the tiles, each with its
    share, :math:`L = \sum_t g_t L_t`, and a score is one of them all. So a tile's part of the
    score's gradient is that of its own logits from the gradient :math:`g_t \, \partial s / \partial
    L`, and

    - a weight of Grad-CAM is the sum of the gradients of all tiles over the number of pixels of
      the whole layer, and the map is made of the tiles' activations, each with its share;
    - a map of products, as HiResCAM's, is the sum of the tiles' products, each in its place;
    - any other method is given the whole layer's activation, and its gradient of one target after
      the other, each put together of all tiles'.

    Two or three walks over the tiles do the first two, and nothing is held at the image's size but
    the logits, the maps, and for each target the derivative of its score. The third takes a walk
    for each target, and holds two tensors of all the layer's channels. A tile in which a score's
    derivative is zero has no backward.

    Parameters
    ----------
    explain : callable
    method : Method
    tiles : Tiles
    score : callable
        Gives the targets' scores from the logits of the whole image.

    Returns
    -------
    Collected
        On the image's device.

    Raises
    ------
    LayerError, ModelError
        Where the maps or the logits of tiles don't line up to those of a whole image.
    NumericalError
        For NaN or infinity.
    UnetcamError
        For a method that is not made of one gradient.
    """
    if not isinstance(method, GradientMethod):
        raise UnetcamError(
            f"The method '{method.name}' is not made of one gradient, so that tiles don't tell the "
            "map of the whole image: use gradcam or hirescam, or explain an image that fits "
            "without tiles."
        )
    tiles.expect(walks=3)
    logits, grids = _blended_logits(explain, tiles)
    wholes, scores = whole_scores(logits, score)
    defined = torch.stack([one.defined for one in scores], dim=1)
    if method.over_tiles == "mean":
        maps = _weighted_maps(explain, method, tiles, grids, wholes)
    elif method.over_tiles == "sum":
        tiles.expect(walks=1)
        maps = _summed(explain, _Statistics.of(method), tiles, grids, wholes)
    else:
        tiles.expect(walks=1 + len(wholes))
        maps = _joined_maps(explain, method, tiles, grids, wholes)
    for name, one in maps.items():
        if not _is_finite(one):
            raise NumericalError(
                f"NaN or infinity in the maps of layer '{name}': check the checkpoint, or run "
                "without half precision."
            )
        missing = ~defined.view(*defined.shape, *[1] * (logits.ndim - 2))
        one.relu_().masked_fill_(missing, torch.nan)
    return Collected(logits, maps, defined, targets_of(scores))


# -- the walks -------------------------------------------------------------------------------


def _blended_logits(explain: Explain, tiles: Tiles) -> tuple[Tensor, dict[str, Tiling]]:
    """The logits of the whole image, (1, C, *spatial), and the layers' tilings."""
    whole: Tensor | None = None
    grids: dict[str, Tiling] = {}
    for numbers, images in tiles.walk():
        seen = explain(images, _no_score, _Activations())
        part = at_least_single(seen.logits).to(tiles.image.device)
        if whole is None:
            _check_logits(tiles.tiling, part)
            grids = {name: _lined_up(tiles.tiling, name, one) for name, one in seen.maps.items()}
            whole = part.new_zeros(part.shape[1], *tiles.tiling.size)
        _blend(whole, tiles.tiling, numbers, part)
    assert whole is not None
    if not _is_finite(whole):
        raise NumericalError(
            "NaN or infinity in the logits: check the image, the preprocessing and the checkpoint, "
            "or run without half precision."
        )
    return whole[None], grids


def _gradients(
    explain: Explain, method: Method, tiles: Tiles, wholes: Sequence[WholeScore]
) -> Iterator[TileStatistics]:
    """What `method` gives of the tiles, each for the targets that look at it."""
    groups = _by_targets(tiles.tiling, wholes)
    tiles.advance(len(tiles.tiling) - sum(map(len, groups.values())))
    for rows, numbers in groups.items():
        looking = [wholes[row] for row in rows]
        for some, images in tiles.walk(numbers):
            parts = [_parts(whole, tiles.tiling, some).to(images.device) for whole in looking]
            yield some, rows, explain(images, _scoring(looking, parts), method).maps


def _scoring(wholes: Sequence[WholeScore], parts: Sequence[Tensor]) -> Scoring:
    def score(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
        return [whole.score(logits, part) for whole, part in zip(wholes, parts, strict=True)]

    return score


def _by_targets(tiling: Tiling, wholes: Sequence[WholeScore]) -> dict[tuple[int, ...], list[int]]:
    """The tiles by the targets with a gradient in them; tiles without any are left out."""
    touched = torch.stack(
        [
            torch.stack([whole.values[(slice(None), *w)].any() for w in tiling.windows])
            for whole in wholes
        ],
        dim=1,
    )
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(touched.tolist()):
        rows = tuple(index for index, is_touched in enumerate(row) if is_touched)
        if rows:
            groups.setdefault(rows, []).append(number)
    # Where no target exists one tile still tells the shape of what a method gives.
    return groups or {tuple(range(len(wholes))): [0]}


def _parts(whole: WholeScore, tiling: Tiling, numbers: Sequence[int]) -> Tensor:
    """The tiles' gradients, (b, C', *tile)."""
    cropped = [whole.at(tiling.windows[number]) for number in numbers]
    return torch.stack(
        [one * tiling.share(number, one) for number, one in zip(numbers, cropped, strict=True)]
    )


def _weighted_maps(
    explain: Explain,
    method: GradientMethod,
    tiles: Tiles,
    grids: Mapping[str, Tiling],
    wholes: Sequence[WholeScore],
) -> dict[str, Tensor]:
    """The blended activations, summed with weights that are means over the whole layer."""
    weights: dict[str, Tensor] = {}
    for _, rows, means in _gradients(explain, _Statistics.of(method), tiles, wholes):
        for name, one in means.items():
            share = math.prod(grids[name].tile) / math.prod(grids[name].size)
            sums = weights.setdefault(name, one.new_zeros(len(wholes), one.shape[2]))
            sums[list(rows)] += one.sum(dim=0) * share
    return _blended(explain, _Weighted(weights), tiles, grids)


def _joined_maps(
    explain: Explain,
    method: GradientMethod,
    tiles: Tiles,
    grids: Mapping[str, Tiling],
    wholes: Sequence[WholeScore],
) -> dict[str, Tensor]:
    """What a method makes of the whole activation and of each target's whole gradient."""
    activations = _blended(explain, _Activations(), tiles, grids)
    maps: dict[str, list[Tensor]] = {name: [] for name in grids}
    gather = _Statistics(lambda activation, gradient: gradient, needs_mean_only=False)
    for whole in wholes:
        for name, gradient in _summed(explain, gather, tiles, grids, [whole]).items():
            with torch.autocast(gradient.device.type, enabled=False):
                statistics = method.reduce(activations[name], gradient[:, 0])
                maps[name].append(method.combine(activations[name], statistics[:, None]))
    return {name: torch.cat(rows, dim=1) for name, rows in maps.items()}


def _summed(
    explain: Explain,
    method: Method,
    tiles: Tiles,
    grids: Mapping[str, Tiling],
    wholes: Sequence[WholeScore],
) -> dict[str, Tensor]:
    """What `method` gives of the tiles, (1, T, ..., *layer_spatial), added up in its place."""
    whole: dict[str, Tensor] = {}
    for numbers, rows, statistics in _gradients(explain, method, tiles, wholes):
        for name, one in statistics.items():
            grid, one = grids[name], one.to(tiles.image.device)
            if name not in whole:
                lead = one.shape[2 : one.ndim - len(grid.size)]
                whole[name] = one.new_zeros(1, len(wholes), *lead, *grid.size)
            for number, values in zip(numbers, one, strict=True):
                for row, value in zip(rows, values, strict=True):
                    _at(whole[name][0, row], grid.windows[number]).add_(value)
    return whole


def _blended(
    explain: Explain, method: Method, tiles: Tiles, grids: Mapping[str, Tiling]
) -> dict[str, Tensor]:
    """The maps of the tiles, (1, T, *layer_spatial), each with its share."""
    whole: dict[str, Tensor] = {}
    for numbers, images in tiles.walk():
        for name, maps in explain(images, _no_score, method).maps.items():
            one = at_least_single(maps).to(tiles.image.device)
            if name not in whole:
                whole[name] = one.new_zeros(1, one.shape[1], *grids[name].size)
            _blend(whole[name][0], grids[name], numbers, one)
    return whole


def _blend(whole: Tensor, grid: Tiling, numbers: Sequence[int], parts: Tensor) -> None:
    """Add tiles, (b, rows, *tile), to the whole, (rows, *spatial), each by its share."""
    for number, one in zip(numbers, parts, strict=True):
        _at(whole, grid.windows[number]).add_(one * grid.share(number, one))


def _at(whole: Tensor, window: Window) -> Tensor:
    """A window of the last axes."""
    return whole[(*[slice(None)] * (whole.ndim - len(window)), *window)]


# -- what is asked of a batch of tiles -------------------------------------------------------


class _Activations(Method):
    """The activations in the place of maps."""

    def explain(self, request: Request) -> Collected:
        logits, activations = forward(request)
        return Collected(logits, activations, _none_defined(logits))


@dataclass(frozen=True, eq=False)
class _Statistics(Method):
    """What the gradients are reduced to, in the place of maps."""

    reduce: Callable[[Tensor, Tensor], Tensor]
    needs_mean_only: bool

    @classmethod
    def of(cls, method: GradientMethod) -> _Statistics:
        return cls(method.reduce, method.needs_mean_only)

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        return statistics

    def explain(self, request: Request) -> Collected:
        return collect(request, self)


@dataclass(frozen=True, eq=False)
class _Weighted(Method):
    """The activations, summed with given weights (T, K) by layer: no ReLU."""

    weights: Mapping[str, Tensor]

    def explain(self, request: Request) -> Collected:
        logits, activations = forward(request)
        maps = {}
        with torch.autocast(logits.device.type, enabled=False):
            for name in request.layers:
                activation = at_least_single(activations[name])
                sums = self.weights[name] @ activation.flatten(2)
                maps[name] = sums.view(*sums.shape[:2], *activation.shape[2:])
        return Collected(logits, maps, _none_defined(logits))


def _no_score(logits: Tensor, reference: Tensor | None = None) -> Sequence[Score]:
    return ()


def _none_defined(logits: Tensor) -> Tensor:
    return torch.zeros(len(logits), 0, dtype=torch.bool, device=logits.device)


def _is_finite(tensor: Tensor) -> bool:
    """Whether all is finite, told without a second tensor of that size."""
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


def _check_logits(tiling: Tiling, logits: Tensor) -> None:
    if tuple(logits.shape[2:]) != tiling.tile:
        raise ModelError(
            f"Tiles of {_by(tiling.tile)} give logits of {_by(logits.shape[2:])}: tiling needs "
            "logits of the image's size, so convolutions that are padded; logits that are only "
            "coarser can be resized by output=."
        )


def _lined_up(tiling: Tiling, name: str, maps: Tensor) -> Tiling:
    grid = tiling.at(maps.shape[2:])
    if grid is None:
        raise LayerError(
            f"Tiles of {_by(tiling.tile)} give maps of {_by(maps.shape[2:])} at layer '{name}', "
            f"which don't make a map of the whole image of {_by(tiling.size)}: let tile, overlap "
            "and the image's sides be multiples of the network's stride."
        )
    return grid


def _by(size: Sequence[int]) -> str:
    return " x ".join(map(str, size))
