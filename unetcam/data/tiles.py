"""Tiles of a large image: where they lie, and the share that each has in a pixel."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from unetcam.errors import DataError

Window = tuple[slice, ...]
#: Is told how many tiles of how many are done; a tile counts in each walk over them.
OnProgress = Callable[[int, int], None]

#: Tile sides per standard deviation of the Gaussian, as MONAI's sliding window has it.
_SIDES_PER_DEVIATION = 8
#: The part of an overlap, at either of its ends, in which a tile that ends there has no share.
_MARGIN = 4


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis cut into tiles.

    Attributes
    ----------
    size, tile : int
        Pixels of the whole axis and of a tile.
    starts : tuple of int
        Where the n tiles begin.
    shares : Tensor
        (n, tile) float64: each tile's share in its pixels. In every pixel of the axis they add up
        to one.
    """

    size: int
    tile: int
    starts: tuple[int, ...]
    shares: Tensor

    @classmethod
    def cut(cls, size: int, tile: int, overlap: int) -> Axis:
        """Cut an axis; the last tile is moved back to end with it.

        Examples
        --------
        >>> Axis.cut(20, 8, 2).starts
        (0, 6, 12)
        >>> Axis.cut(19, 8, 2).starts
        (0, 6, 11)
        """
        if tile >= size:
            return cls(size, size, (0,), torch.ones(1, size, dtype=torch.float64, device="cpu"))
        starts = (*range(0, size - tile, tile - overlap), size - tile)
        weights = torch.stack([_weights(tile, overlap, at, size - tile) for at in starts])
        places = torch.tensor(starts, device="cpu")[:, None] + torch.arange(tile, device="cpu")
        total = torch.zeros(size, dtype=torch.float64, device="cpu")
        total.index_put_((places,), weights, accumulate=True)
        return cls(size, tile, starts, weights / total[places])

    def at(self, pixels: int) -> Axis | None:
        """The axis of maps that have so many pixels for a tile; None where they don't line up.

        Examples
        --------
        >>> Axis.cut(20, 8, 2).at(4).starts
        (0, 3, 6)
        >>> Axis.cut(19, 8, 2).at(4) is None  # a tile begins in the middle of a map's pixel
        True
        """
        if len(self.starts) == 1:
            return Axis.cut(pixels, pixels, 0)
        if pixels % self.tile == 0:
            factor = pixels // self.tile
            shares = self.shares.repeat_interleave(factor, dim=1)
            return Axis(self.size * factor, pixels, tuple(s * factor for s in self.starts), shares)
        stride, rest = divmod(self.tile, pixels)
        if rest or any(start % stride for start in self.starts):
            return None
        shares = self.shares.view(-1, pixels, stride).mean(dim=2)
        return Axis(self.size // stride, pixels, tuple(s // stride for s in self.starts), shares)


def _weights(tile: int, overlap: int, start: int, last: int) -> Tensor:
    """A Gaussian, lowered so that it ends in zero where the margin begins, (tile,) float64.

    Towards an edge of the image there is no margin: nothing is missing there that another tile
    would see.
    """
    centre, margin = tile / 2, overlap // _MARGIN
    distance = torch.arange(tile, dtype=torch.float64, device="cpu") + 0.5 - centre
    if start == 0:
        distance = distance.clamp(min=0)
    if start == last:
        distance = distance.clamp(max=0)
    deviations = torch.stack([distance, torch.full_like(distance, centre - margin)])
    height = torch.exp(-0.5 * (deviations * _SIDES_PER_DEVIATION / tile) ** 2)
    return (height[0] - height[1]).clamp(min=0)


@dataclass(frozen=True, eq=False)
class Tiling:
    """A grid of overlapping tiles, and the share that each tile has in its pixels.

    The shares of all tiles in a pixel add up to one. They are Gaussian, and exactly zero in the
    quarter of an overlap that lies next to a tile's end: what a network makes of a tile is the
    same as what it makes of the whole image wherever a share is above zero, if the network sees
    no further than a quarter of the overlap.

    Attributes
    ----------
    axes : tuple of Axis

    Examples
    --------
    >>> tiling = Tiling.cut((12, 20), tile=8, overlap=4)
    >>> len(tiling), tiling.windows[1]
    (8, (slice(0, 8, None), slice(4, 12, None)))
    >>> total = torch.zeros(tiling.size)
    >>> for index, window in enumerate(tiling.windows):
    ...     total[window] += tiling.share(index, total)
    >>> bool((total - 1).abs().max() < 1e-6)
    True
    """

    axes: tuple[Axis, ...]

    @classmethod
    def cut(
        cls, size: Sequence[int], tile: int | Sequence[int], overlap: int | Sequence[int]
    ) -> Tiling:
        """Cut an image of a spatial size.

        Parameters
        ----------
        size : sequence of int
        tile, overlap : int or sequence of int
            Pixels, for all axes alike or for each; a tile is never larger than the image.

        Raises
        ------
        DataError
            For a tile that is empty, and an overlap that is negative or leaves no step.
        """
        tiles, overlaps = _each("tile", tile, len(size)), _each("overlap", overlap, len(size))
        for side, common in zip(tiles, overlaps, strict=True):
            if not 0 <= common < side:
                raise DataError(
                    f"Tiles of {side} pixels can't overlap by {common}: let the overlap be 0 or "
                    "more, and less than the tile."
                )
        return cls(tuple(map(Axis.cut, size, tiles, overlaps)))

    @property
    def size(self) -> tuple[int, ...]:
        """The whole's spatial size."""
        return tuple(axis.size for axis in self.axes)

    @property
    def tile(self) -> tuple[int, ...]:
        """A tile's spatial size."""
        return tuple(axis.tile for axis in self.axes)

    def __len__(self) -> int:
        return math.prod(len(axis.starts) for axis in self.axes)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """Each tile's place in the whole, the last axis running fastest."""
        tile = self.tile
        return tuple(
            tuple(slice(start, start + side) for start, side in zip(corner, tile, strict=True))
            for corner in itertools.product(*(axis.starts for axis in self.axes))
        )

    def share(self, index: int, like: Tensor) -> Tensor:
        """A tile's share in each of its pixels, (*tile), of the type and device of `like`."""
        along = []
        for axis in reversed(self.axes):
            index, place = divmod(index, len(axis.starts))
            along.append(axis.shares[place].to(like.device, like.dtype))
        share = along.pop()
        while along:
            share = share[..., None] * along.pop()
        return share

    def at(self, size: Sequence[int]) -> Tiling | None:
        """The same tiles for maps of another resolution.

        Parameters
        ----------
        size : sequence of int
            The spatial size of such a map for one tile.

        Returns
        -------
        Tiling or None
            A pixel of a coarser map has the mean share of the pixels it stands for. None where
            the tiles' maps don't line up to one map of the whole: where a tile is no whole number
            of times as large, or begins in the middle of a map's pixel.
        """
        axes = [axis.at(pixels) for axis, pixels in zip(self.axes, size, strict=True)]
        fitting = tuple(axis for axis in axes if axis is not None)
        return Tiling(fitting) if len(fitting) == len(axes) else None


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
        self._steps = self._done + walks * len(self.tiling)

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


def _each(name: str, value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * dims
    if len(values) != dims or not all(isinstance(one, int) for one in values):
        raise DataError(
            f"{name}={value!r} does not fit {dims} spatial dimensions: give a whole number of "
            "pixels, or one for each dimension."
        )
    return values
