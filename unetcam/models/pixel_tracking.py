"""Follow, through every rearrangement, which pixel each element of a tensor belongs to.

The same reshape, permutation or slice is done to a tensor of pixel indices. Whether what comes out
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
from torch.utils._pytree import tree_map

from unetcam.engine.function_mode import tensors_in
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
_NO_PIXEL = -1  # padding, class tokens


@dataclass(frozen=True)
class PixelIndices:
    """The pixel of each element of a tensor.

    Attributes
    ----------
    grid : tuple of int
        The map that the pixels are of.
    layout : Layout, optional
        How the tensor holds the map; None while it is cut into windows or heads.
    indices : Tensor, optional
        The pixels' indices in raster order, of the tensor's shape, where there is no layout.
    batch : int
        How many images are in the run.
    """

    grid: tuple[int, ...]
    layout: Layout | None
    indices: Tensor | None = None
    batch: int = 1

    @property
    def is_map(self) -> bool:
        """Whether the tensor is a map (B, K, *spatial)."""
        return self.layout is not None and self.layout.is_map

    def as_tensor(self, shape: Sequence[int]) -> Tensor:
        """The pixels' indices as a tensor of that shape."""
        if self.indices is not None:
            return self.indices
        assert self.layout is not None
        if self.layout.axis == 1:
            row = _row(self.layout, math.prod(shape[2:]))
            return row.view(1, 1, *shape[2:]).expand(shape)
        row = _row(self.layout, math.prod(shape[1:-1]))
        return row.view(1, *shape[1:-1], 1).expand(shape)


def indices_of_map(shape: Sequence[int]) -> PixelIndices:
    """The pixel indices of a map (B, K, *spatial)."""
    return PixelIndices(tuple(shape[2:]), Layout(tuple(shape[2:])), batch=shape[0])


def follow(
    func: Callable[..., Any],
    name: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    results: Sequence[Tensor],
    known: Callable[[Tensor], PixelIndices | None],
    dims: int,
    batch: int = 1,
) -> list[PixelIndices | None]:
    """The pixel indices of what a torch function gave; None where they can't be told.

    Parameters
    ----------
    func, name
        The function and its name.
    args, kwargs
        What it was given.
    results : sequence of Tensor
        What it gave.
    known : callable
        The pixel indices of a tensor that it was given.
    dims : int
        The image's number of spatial axes.
    batch : int
        How many images are in the run.
    """
    sources = list(tensors_in((args, kwargs)))
    tracked = [(tensor, at) for tensor in sources if (at := known(tensor)) is not None]

    def could_be_map(result: Tensor) -> bool:
        return result.ndim == dims + 2 and result.shape[0] == batch

    if any(part in name for part in _RESAMPLED):
        return [indices_of_map(x.shape) if could_be_map(x) else None for x in results]
    if not tracked:
        return [None for _ in results]
    if name in _REARRANGED:
        if name in _JOINED and all(at.is_map for _, at in tracked) and could_be_map(results[0]):
            return [indices_of_map(results[0].shape)]
        return _rearranged(func, args, kwargs, results, tracked, known)
    if name == "pad" and not tracked[0][1].is_map:
        return [_padded(tracked[0], *args[1:], **kwargs)]
    tracks = []
    for result in results:
        at = _carried(name, result, sources, tracked)
        # What else is of a map's shape and came of maps, or of maps of its size, is one.
        alike = any(at.is_map or at.grid == result.shape[2:] for _, at in tracked)
        if at is None and could_be_map(result) and alike:
            at = indices_of_map(result.shape)
        tracks.append(at)
    return tracks


def _carried(
    name: str,
    result: Tensor,
    sources: Sequence[Tensor],
    tracked: Sequence[tuple[Tensor, PixelIndices]],
) -> PixelIndices | None:
    """The pixel indices of what keeps the pixels where they are."""
    if name.endswith("linear"):
        return _widened(*tracked[0], result)
    if name in _PRODUCTS:
        first, at = tracked[0]
        if first is sources[0]:
            return _widened(first, at, result)
        return _mixed(first, at, result)
    if name == "scaled_dot_product_attention" and tracked[0][0] is sources[0]:
        return _widened(*tracked[0], result)  # a result for each query
    for tensor, at in sorted(tracked, key=lambda pair: -math.prod(pair[1].grid)):
        if tensor.shape == result.shape:
            return at
    return None


def _widened(tensor: Tensor, at: PixelIndices, result: Tensor) -> PixelIndices | None:
    """What a product over the last axis gives: each row stays where it was."""
    if tensor.shape[:-1] != result.shape[:-1]:
        return None
    if at.layout is not None:
        return at if at.layout.axis == -1 else None
    return _settled(at, _one(at.as_tensor(tensor.shape), -1), result.shape)


def _mixed(tensor: Tensor, at: PixelIndices, result: Tensor) -> PixelIndices | None:
    """What a product with weights on the left gives: each column stays where it was."""
    if tensor.shape[-1] != result.shape[-1] or tensor.shape[:-2] != result.shape[:-2]:
        return None
    if at.layout is not None and not (at.layout.axis == 1 and at.layout.flat):
        return None
    return _settled(at, _one(at.as_tensor(tensor.shape), -2), result.shape)


def _one(indices: Tensor, axis: int) -> Tensor | None:
    """One slice of indices that are the same along an axis."""
    first = indices.narrow(axis, 0, 1)
    return first if bool((indices == first).all()) else None


def _padded(
    source: tuple[Tensor, PixelIndices],
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
    **_: Any,
) -> PixelIndices | None:
    tensor, at = source
    if mode != "constant":
        return None
    indices = F.pad(at.as_tensor(tensor.shape), list(pad), value=_NO_PIXEL)
    return _settled(at, indices, indices.shape)


def _rearranged(
    func: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    results: Sequence[Tensor],
    tracked: Sequence[tuple[Tensor, PixelIndices]],
    known: Callable[[Tensor], PixelIndices | None],
) -> list[PixelIndices | None]:
    """Do to the pixels' indices what was done to the tensors."""
    grids = {at.grid for _, at in tracked}
    if len(grids) > 1:
        return [None for _ in results]

    def indices(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        at = known(leaf)
        return (
            torch.full(leaf.shape, _NO_PIXEL, dtype=torch.int32, device="cpu")
            if at is None
            else at.as_tensor(leaf.shape)
        )

    try:
        moved = func(*tree_map(indices, args), **tree_map(indices, kwargs))
    except (RuntimeError, TypeError, IndexError):
        return [None for _ in results]
    leaves = list(tensors_in(moved))
    origin = tracked[0][1]
    return [
        _settled(origin, leaf, result.shape) if leaf.shape == result.shape else None
        for leaf, result in zip(leaves, results, strict=False)
    ]


# -- reading the layout off ------------------------------------------------------------------


def _row(layout: Layout, length: int) -> Tensor:
    """The pixels' indices in raster order, with those tokens that are none."""
    pixels = math.prod(layout.grid)
    after = length - layout.start - pixels
    indices = torch.arange(pixels, dtype=torch.int32, device="cpu")
    return F.pad(indices, [layout.start, after], value=_NO_PIXEL)


def _settled(
    origin: PixelIndices, indices: Tensor | None, shape: Sequence[int]
) -> PixelIndices | None:
    """Read the layout off the pixels' indices, or keep these."""
    if indices is None:
        return None
    grid, batch = origin.grid, origin.batch
    indices = indices.expand(tuple(shape))
    flat = indices.ndim == 3
    fits = indices.ndim in (3, len(grid) + 2) and indices.shape[0] == batch and indices.numel()
    if not fits or not bool((indices == indices[:1]).all()):
        return PixelIndices(grid, None, indices, batch)
    one = indices[:1]
    alike = {axis: bool((one == one.narrow(axis, 0, 1)).all()) for axis in (1, -1)}
    for read in (_whole, _resized, _folded):
        for axis, is_alike in alike.items():
            if is_alike == (read is _folded):
                continue
            # Of a block of pixels that became channels, the first stands for all.
            layout = _raster(grid, one.amin(dim=axis), read)
            if layout is not None and (flat or layout.grid == one.amin(dim=axis).shape[1:]):
                return PixelIndices(layout.grid, replace(layout, axis=axis, flat=flat), batch=batch)
    return PixelIndices(grid, None, indices, batch)


def _raster(grid: tuple[int, ...], indices: Tensor, read: _Reading) -> Layout | None:
    """What pixels' indices in a row run over in raster order, those left out that are none."""
    row = indices.flatten()
    there = torch.nonzero(row >= 0).flatten()
    if not len(there) or int(there[-1] - there[0]) + 1 != len(there):
        return None
    indices = torch.arange(math.prod(grid), dtype=torch.int32, device="cpu")
    read_off = read(indices.view(grid), row[there])
    return None if read_off is None else Layout(read_off, start=int(there[0]))


#: Given a grid of indices and a row of them: the grid that the row is, or None.
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
