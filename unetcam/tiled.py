"""Images and volumes that don't fit: explained tile by tile, as the one image they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unetcam.data.tiling import Tiling
from unetcam.engine import Collected, Run, collect
from unetcam.engine.forward import forward
from unetcam.errors import DataError, LayerError, ModelError, NumericalError, UnetcamError
from unetcam.methods import GradientMethod, Method
from unetcam.seeds import Scoring, Seed, seeds_of
from unetcam.targets import Score

#: Explains a batch of images by a method, for some scores.
Explain = Callable[[Tensor, Scoring, Method], Collected]
#: Is told how many steps of how many are done.
OnProgress = Callable[[int, int], None]
#: Tiles' numbers, the targets that look at them, and by layer what came of it, (b, t, ...).
Found = tuple[Sequence[int], Sequence[int], Mapping[str, Tensor]]


@dataclass(eq=False)
class Tiles:
    """An image in tiles, and the way over them.

    Attributes
    ----------
    image : Tensor
        (1, C, *spatial), on any device. What is as large as the image stays beside it.
    tiling : Tiling
    batch : int
        Tiles in one pass.
    device : torch.device
        The network's.
    progress : callable, optional
    """

    image: Tensor
    tiling: Tiling
    batch: int
    device: torch.device
    progress: OnProgress | None = None
    _done: int = field(default=0, init=False)
    _steps: int = field(default=0, init=False)

    def expect(self, walks: int) -> None:
        """So many walks over all tiles are ahead."""
        self._done, self._steps = 0, walks * len(self.tiling)

    @classmethod
    def cut(
        cls,
        image: Tensor,
        tile: int | Sequence[int],
        overlap: int | Sequence[int],
        batch: int,
        device: torch.device | None,
        progress: OnProgress | None,
    ) -> Tiles:
        """Cut an image, (1, C, *spatial) or (C, H, W), into tiles for a network.

        Raises
        ------
        DataError
            For what is no single image, tiles that can't be cut, and an empty batch.
        """
        images = image[None] if isinstance(image, Tensor) and image.ndim == 3 else image
        if not isinstance(images, Tensor) or images.ndim not in (4, 5) or len(images) != 1:
            given = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise DataError(
                f"One image of shape (1, C, *spatial) is cut into tiles, and this is {given}: call "
                "it for each image, with image[None]."
            )
        if batch < 1:
            raise DataError(f"A batch of {batch} tiles explains nothing: use 1 or more.")
        tiling = Tiling.cut(images.shape[2:], tile, overlap)
        return cls(images, tiling, batch, device or images.device, progress)

    def take(self, numbers: Sequence[int]) -> Tensor:
        """Some tiles, (b, C, *tile), on the network's device."""
        windows = [self.tiling.windows[number] for number in numbers]
        cropped = [self.image[0][(slice(None), *window)] for window in windows]
        return torch.stack(cropped).to(self.device)

    def walk(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Some tiles or all in batches: their numbers, and the tiles."""
        chosen = range(len(self.tiling)) if numbers is None else numbers
        for start in range(0, len(chosen), self.batch):
            some = chosen[start : start + self.batch]
            yield some, self.take(some)
            self.advance(len(some))

    def advance(self, steps: int) -> None:
        """So many tiles more are done."""
        self._done += steps
        if self.progress is not None and steps:
            self.progress(self._done, self._steps)


@torch.inference_mode(False)
def explain_tiles(explain: Explain, method: Method, tiles: Tiles, score: Scoring) -> Collected:
    r"""Explain the network that looks at an image tile by tile.

    What is explained is that network as it is: its logits are those of the tiles, each with its
    share, :math:`L = \sum_t g_t L_t`, and a score is one of them all. So a tile's part of the
    score's gradient is that of its own logits from the seed :math:`g_t \, \partial s / \partial
    L`, and

    - a weight of Grad-CAM is the sum of the gradients of all tiles over the number of pixels of
      the whole layer, and the map is made of the tiles' activations, each with its share;
    - a map of products, as HiResCAM's, is the sum of the tiles' products, each in its place.

    The ReLU comes last. Two walks over the tiles give the logits and the gradients, and a third
    the activations where there is one weight per channel. Nothing is held at the image's size but
    the logits, the maps, and for each target the derivative of its score; a tile in which that is
    zero has no backward.

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
        For a method whose maps are no sum over tiles.
    """
    if not isinstance(method, GradientMethod) or method.over_tiles is None:
        raise UnetcamError(
            f"The method '{method.name}' is not linear in the gradient, so that the maps of tiles "
            "don't make the map of the whole image: use gradcam or hirescam, or explain an image "
            "that fits without tiles."
        )
    weighted = method.over_tiles == "mean"
    tiles.expect(walks=3 if weighted else 2)
    logits, grids = _blended_logits(explain, tiles)
    seeds, defined = seeds_of(logits, score)
    found = _gradients(explain, _Statistics(method), tiles, seeds)
    if weighted:
        maps = _weighted_maps(explain, tiles, grids, _summed_means(found, len(seeds)))
    else:
        maps = _summed_maps(found, tiles, grids, len(seeds))
    for name, one in maps.items():
        if not _is_finite(one):
            raise NumericalError(
                f"NaN or infinity in the maps of layer '{name}': check the checkpoint, or run "
                "without half precision."
            )
        missing = ~defined.view(*defined.shape, *[1] * (logits.ndim - 2))
        one.relu_().masked_fill_(missing, torch.nan)
    return Collected(logits, maps, defined)


# -- the walks -------------------------------------------------------------------------------


def _blended_logits(explain: Explain, tiles: Tiles) -> tuple[Tensor, dict[str, Tiling]]:
    """The logits of the whole image, (1, C, *spatial), and the layers' tilings."""
    whole: Tensor | None = None
    grids: dict[str, Tiling] = {}
    for numbers, images in tiles.walk():
        seen = explain(images, _no_score, _Activations())
        found = _at_least_single(seen.logits).to(tiles.image.device)
        if whole is None:
            _check_logits(tiles.tiling, found)
            grids = {name: _lined_up(tiles.tiling, name, one) for name, one in seen.maps.items()}
            whole = found.new_zeros(found.shape[1], *tiles.tiling.size)
        _blend(whole, tiles.tiling, numbers, found)
    assert whole is not None
    if not _is_finite(whole):
        raise NumericalError(
            "NaN or infinity in the logits: check the image, the preprocessing and the checkpoint, "
            "or run without half precision."
        )
    return whole[None], grids


def _gradients(
    explain: Explain, method: Method, tiles: Tiles, seeds: Sequence[Seed]
) -> Iterator[Found]:
    """What `method` gives of the tiles, each for the targets that look at it."""
    groups = _by_targets(tiles.tiling, seeds)
    tiles.advance(len(tiles.tiling) - sum(map(len, groups.values())))
    for rows, numbers in groups.items():
        chosen = [seeds[row] for row in rows]
        for some, images in tiles.walk(numbers):
            parts = [_parts(seed, tiles.tiling, some).to(images.device) for seed in chosen]
            yield some, rows, explain(images, _scoring(chosen, parts), method).maps


def _scoring(seeds: Sequence[Seed], parts: Sequence[Tensor]) -> Scoring:
    def score(logits: Tensor) -> list[Score]:
        return [seed.score(logits, part) for seed, part in zip(seeds, parts, strict=True)]

    return score


def _by_targets(tiling: Tiling, seeds: Sequence[Seed]) -> dict[tuple[int, ...], list[int]]:
    """The tiles by the targets whose seeds aren't zero in them; tiles without any are left out."""
    windows = tiling.windows
    seen = [torch.stack([seed.values[(slice(None), *w)].any() for w in windows]) for seed in seeds]
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(torch.stack(seen, dim=1).tolist()):
        rows = tuple(index for index, touched in enumerate(row) if touched)
        if rows:
            groups.setdefault(rows, []).append(number)
    # Where no target exists one tile still tells the shape of what a method gives.
    return groups or {tuple(range(len(seeds))): [0]}


def _parts(seed: Seed, tiling: Tiling, numbers: Sequence[int]) -> Tensor:
    """The tiles' seeds, (b, C', *tile)."""
    cropped = [seed.at(tiling.windows[number]) for number in numbers]
    return torch.stack(
        [one * tiling.share(number, one) for number, one in zip(numbers, cropped, strict=True)]
    )


def _summed_maps(
    found: Iterable[Found], tiles: Tiles, grids: Mapping[str, Tiling], count: int
) -> dict[str, Tensor]:
    """The maps of the whole image, (1, T, *layer_spatial), from those of tiles."""
    whole: dict[str, Tensor] = {}
    for numbers, rows, maps in found:
        for name, one in maps.items():
            one = one.to(tiles.image.device)
            if name not in whole:
                whole[name] = one.new_zeros(1, count, *grids[name].size)
            for number, values in zip(numbers, one, strict=True):
                for row, value in zip(rows, values, strict=True):
                    whole[name][0, row][grids[name].windows[number]] += value
    return whole


def _summed_means(found: Iterable[Found], count: int) -> dict[str, Tensor]:
    """The sums over tiles of channels' means, (T, K) by layer."""
    sums: dict[str, Tensor] = {}
    for _, rows, means in found:
        for name, one in means.items():
            if name not in sums:
                sums[name] = one.new_zeros(count, one.shape[2])
            sums[name][list(rows)] += one.sum(dim=0)
    return sums


def _weighted_maps(
    explain: Explain, tiles: Tiles, grids: Mapping[str, Tiling], means: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The weighted sums of the blended activations, (1, T, *layer_spatial)."""
    pixels = {name: math.prod(grid.tile) / math.prod(grid.size) for name, grid in grids.items()}
    method = _Weighted({name: one * pixels[name] for name, one in means.items()})
    whole: dict[str, Tensor] = {}
    for numbers, images in tiles.walk():
        for name, one in explain(images, _no_score, method).maps.items():
            one = one.to(tiles.image.device)
            if name not in whole:
                whole[name] = one.new_zeros(1, one.shape[1], *grids[name].size)
            _blend(whole[name][0], grids[name], numbers, one)
    return whole


def _blend(whole: Tensor, grid: Tiling, numbers: Sequence[int], found: Tensor) -> None:
    """Add tiles, (b, rows, *tile), to the whole, (rows, *spatial), each by its share."""
    for number, one in zip(numbers, found, strict=True):
        whole[(slice(None), *grid.windows[number])] += one * grid.share(number, one)


# -- what is asked of a batch of tiles -------------------------------------------------------


class _Activations(Method):
    """The activations in the place of maps."""

    def explain(self, run: Run) -> Collected:
        logits, activations = forward(run)
        return Collected(logits, activations, _none_defined(logits))


@dataclass(frozen=True, eq=False)
class _Statistics(Method):
    """The statistics of a method in the place of its maps."""

    of: GradientMethod

    @property
    def needs_mean_only(self) -> bool:
        return self.of.needs_mean_only

    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return self.of.reduce(activation, gradient)

    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        return statistics

    def explain(self, run: Run) -> Collected:
        return collect(run, self)


@dataclass(frozen=True, eq=False)
class _Weighted(Method):
    """The activations, summed with given weights (T, K) by layer: no ReLU."""

    weights: Mapping[str, Tensor]

    def explain(self, run: Run) -> Collected:
        logits, activations = forward(run)
        maps = {}
        with torch.autocast(logits.device.type, enabled=False):
            for name in run.layers:
                activation = _at_least_single(activations[name])
                sums = self.weights[name] @ activation.flatten(2)
                maps[name] = sums.view(*sums.shape[:2], *activation.shape[2:])
        return Collected(logits, maps, _none_defined(logits))


def _no_score(logits: Tensor) -> Sequence[Score]:
    return ()


def _none_defined(logits: Tensor) -> Tensor:
    return torch.zeros(len(logits), 0, dtype=torch.bool, device=logits.device)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


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
