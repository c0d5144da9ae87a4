"""Follow, through every rearrangement, which pixel each element of a tensor belongs to.

The same reshape, permutation or slice is done to a tensor of pixel numbers. Whether what comes out
is a map, tokens, or a map with its channels last is then read off, and never guessed from sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from unetcam.engine.layout import Layout

_RESAMPLED = ("conv", "pool", "interpolate", "upsample", "pixel_")
_JOINED = {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}
_REARRANGED = _JOINED | {
    *("view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "ravel"),
    *("permute", "transpose", "t", "movedim", "moveaxis", "swapaxes", "swapdims", "__get__"),
    *("squeeze", "unsqueeze", "expand", "expand_as", "broadcast_to"),
    *("repeat", "repeat_interleave", "tile", "roll", "flip"),
    *("chunk", "split", "split_with_sizes", "tensor_split", "unbind", "unfold"),
    *("__getitem__", "select", "narrow", "index_select"),
}
_PRODUCTS = ("matmul", "__matmul__", "bmm")
_NOWHERE = -1  # padding, class tokens


@dataclass(frozen=True)
class Places:
    """The pixel of each element of a tensor.

    Attributes
    ----------
    grid : tuple of int
        The map that the pixels are of.
    layout : Layout, optional
        How the tensor holds the map; None while it is cut into windows or heads.
    numbers : Tensor, optional
        The pixels' numbers, of the tensor's shape, where there is no layout.
    batch : int
        How many images are in the run.
    """

    grid: tuple[int, ...]
    layout: Layout | None
    numbers: Tensor | None = None
    batch: int = 1

    @property
    def is_map(self) -> bool:
        """Whether the tensor is a map (B, K, *spatial)."""
        return self.layout is not None and self.layout.is_map

    def spelled_out(self, shape: Sequence[int]) -> Tensor:
        """The pixels' numbers as a tensor of that shape."""
        if self.numbers is not None:
            return self.numbers
        assert self.layout is not None
        if self.layout.axis == 1:
            row = _row(self.layout, math.prod(shape[2:]))
            return row.view(1, 1, *shape[2:]).expand(shape)
        row = _row(self.layout, math.prod(shape[1:-1]))
        return row.view(1, *shape[1:-1], 1).expand(shape)


def map_places(shape: Sequence[int]) -> Places:
    """The places of a map (B, K, *spatial)."""
    return Places(tuple(shape[2:]), Layout(tuple(shape[2:])), batch=shape[0])


def follow(
    func: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    results: Sequence[Tensor],
    known: Callable[[Tensor], Places | None],
    dims: int,
    batch: int = 1,
) -> list[Places | None]:
    """The places of what a torch function gave; None where they can't be told.

    Parameters
    ----------
    func, name
        The function and its name.
    args, kwargs
        What it was given.
    results : sequence of Tensor
        What it gave.
    known : callable
        The places of a tensor that it was given.
    dims : int
        The image's number of spatial axes.
    batch : int
        How many images are in the run.
    """
    sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    placed = [(tensor, at) for tensor in sources if (at := known(tensor)) is not None]

    def could_be_map(result: Tensor) -> bool:
        return result.ndim == dims + 2 and result.shape[0] == batch

    if any(part in name for part in _RESAMPLED):
        return [map_places(x.shape) if could_be_map(x) else None for x in results]
    if not placed:
        return [None for _ in results]
    if name in _REARRANGED:
        if name in _JOINED and all(at.is_map for _, at in placed) and could_be_map(results[0]):
            return [map_places(results[0].shape)]
        return _rearranged(func, args, kwargs, results, placed, known)
    if name == "pad" and not placed[0][1].is_map:
        return [_padded(placed[0], *args[1:], **kwargs)]
    found = []
    for result in results:
        at = _carried(name, result, sources, placed)
        # What else is of a map's shape and came of maps, or of maps of its size, is one.
        alike = any(at.is_map or at.grid == result.shape[2:] for _, at in placed)
        if at is None and could_be_map(result) and alike:
            at = map_places(result.shape)
        found.append(at)
    return found


def _carried(
    name: str, result: Tensor, sources: Sequence[Tensor], placed: Sequence[tuple[Tensor, Places]]
) -> Places | None:
    """The places of what keeps the pixels where they are."""
    if name.endswith("linear"):
        return _widened(*placed[0], result)
    if name in _PRODUCTS:
        first, at = placed[0]
        if first is sources[0]:
            return _widened(first, at, result)
        return _mixed(first, at, result)
    if name == "scaled_dot_product_attention" and placed[0][0] is sources[0]:
        return _widened(*placed[0], result)  # the answer to each query
    for tensor, at in sorted(placed, key=lambda pair: -math.prod(pair[1].grid)):
        if tensor.shape == result.shape:
            return at
    return None


def _widened(tensor: Tensor, at: Places, result: Tensor) -> Places | None:
    """What a product over the last axis gives: each row stays where it was."""
    if tensor.shape[:-1] != result.shape[:-1]:
        return None
    if at.layout is not None:
        return at if at.layout.axis == -1 else None
    return _settled(at, _one(at.spelled_out(tensor.shape), -1), result.shape)


def _mixed(tensor: Tensor, at: Places, result: Tensor) -> Places | None:
    """What a product with weights on the left gives: each column stays where it was."""
    if tensor.shape[-1] != result.shape[-1] or tensor.shape[:-2] != result.shape[:-2]:
        return None
    if at.layout is not None and not (at.layout.axis == 1 and at.layout.flat):
        return None
    return _settled(at, _one(at.spelled_out(tensor.shape), -2), result.shape)


def _one(numbers: Tensor, axis: int) -> Tensor | None:
    """One slice of numbers that are the same along an axis."""
    first = numbers.narrow(axis, 0, 1)
    return first if bool((numbers == first).all()) else None


def _padded(
    source: tuple[Tensor, Places],
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
    **_: Any,
) -> Places | None:
    tensor, at = source
    if mode != "constant":
        return None
    numbers = F.pad(at.spelled_out(tensor.shape), list(pad), value=_NOWHERE)
    return _settled(at, numbers, numbers.shape)


def _rearranged(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    results: Sequence[Tensor],
    placed: Sequence[tuple[Tensor, Places]],
    known: Callable[[Tensor], Places | None],
) -> list[Places | None]:
    """Do to the pixels' numbers what was done to the tensors."""
    grids = {at.grid for _, at in placed}
    if len(grids) > 1:
        return [None for _ in results]

    def numbers(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        at = known(leaf)
        return (
            torch.full(leaf.shape, _NOWHERE, dtype=torch.int32, device="cpu")
            if at is None
            else at.spelled_out(leaf.shape)
        )

    try:
        moved = func(*tree_map(numbers, args), **tree_map(numbers, kwargs))
    except (RuntimeError, TypeError, IndexError):
        return [None for _ in results]
    leaves = [leaf for leaf in tree_leaves(moved) if isinstance(leaf, Tensor)]
    origin = placed[0][1]
    return [
        _settled(origin, leaf, result.shape) if leaf.shape == result.shape else None
        for leaf, result in zip(leaves, results, strict=False)
    ]


# -- reading the layout off ------------------------------------------------------------------


def _row(layout: Layout, length: int) -> Tensor:
    """The pixels' numbers in raster order, with those tokens that are none."""
    pixels = math.prod(layout.grid)
    after = length - layout.start - pixels
    numbers = torch.arange(pixels, dtype=torch.int32, device="cpu")
    return F.pad(numbers, [layout.start, after], value=_NOWHERE)


def _settled(origin: Places, numbers: Tensor | None, shape: Sequence[int]) -> Places | None:
    """Read the layout off the pixels' numbers, or keep these."""
    if numbers is None:
        return None
    grid, batch = origin.grid, origin.batch
    numbers = numbers.expand(tuple(shape))
    flat = numbers.ndim == 3
    fits = numbers.ndim in (3, len(grid) + 2) and numbers.shape[0] == batch and numbers.numel()
    if not fits or not bool((numbers == numbers[:1]).all()):
        return Places(grid, None, numbers, batch)
    one = numbers[:1]
    alike = {axis: bool((one == one.narrow(axis, 0, 1)).all()) for axis in (1, -1)}
    for read in (_whole, _resized, _folded):
        for axis, is_alike in alike.items():
            if is_alike == (read is _folded):
                continue
            # Of a block of pixels that became channels, the first stands for all.
            found = _raster(grid, one.amin(dim=axis), read)
            if found is not None and (flat or found.grid == one.amin(dim=axis).shape[1:]):
                return Places(found.grid, replace(found, axis=axis, flat=flat), batch=batch)
    return Places(grid, None, numbers, batch)


def _raster(grid: tuple[int, ...], numbers: Tensor, read: _Reading) -> Layout | None:
    """What pixels' numbers in a row run over in raster order, those left out that are none."""
    row = numbers.flatten()
    there = torch.nonzero(row >= 0).flatten()
    if not len(there) or int(there[-1] - there[0]) + 1 != len(there):
        return None
    numbers = torch.arange(math.prod(grid), dtype=torch.int32, device="cpu")
    read_off = read(numbers.view(grid), row[there])
    return None if read_off is None else Layout(read_off, start=int(there[0]))


#: Given a grid of numbers and a row of them: the grid that the row is, or None.
_Reading = Callable[[Tensor, Tensor], "tuple[int, ...] | None"]


def _whole(grid: Tensor, row: Tensor) -> tuple[int, ...] | None:
    return tuple(grid.shape) if torch.equal(grid.flatten(), row) else None


def _resized(grid: Tensor, row: Tensor) -> tuple[int, ...] | None:
    """Each pixel repeated in a block, or what a slice left, with or without a step."""
    factor = _factor(len(row), grid.numel(), grid.ndim)
    if grid.numel() > 1 and factor > 1:
        enlarged = grid
        for axis in range(grid.ndim):
            enlarged = enlarged.repeat_interleave(factor, dim=axis)
        return _whole(enlarged, row)
    lines = [torch.unique(line) for line in torch.unravel_index(row, tuple(grid.shape))]
    left = grid[torch.meshgrid(*lines, indexing="ij")]
    return _whole(left, row)


def _folded(grid: Tensor, row: Tensor) -> tuple[int, ...] | None:
    """The first pixels of blocks whose other pixels became channels."""
    factor = _factor(grid.numel(), len(row), grid.ndim)
    return _whole(grid[(slice(None, None, factor),) * grid.ndim], row)


def _factor(more: int, fewer: int, dims: int) -> int:
    return max(1, round(math.pow(more / fewer, 1 / dims)))
