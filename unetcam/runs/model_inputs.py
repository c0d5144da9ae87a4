"""How large tiles are, by what a person gave and what the network needs."""

from __future__ import annotations

from collections.abc import Sequence

from unetcam.errors import RunError


def tiles_of(
    tile: Sequence[int] | None, overlap: int | None, dims: int, stride: int
) -> tuple[tuple[int, ...], int] | None:
    """The sides of tiles, one for each spatial dimension, and their overlap; None without tiles.

    Raises
    ------
    RunError
        For tiles of another number of dimensions, and an overlap without tiles.

    Examples
    --------
    >>> tiles_of((96,), None, dims=3, stride=16)
    ((96, 96, 96), 16)
    """
    if tile is None:
        if overlap is not None:
            raise RunError("An overlap belongs to tiles: give tile= as well.", option="tile")
        return None
    if len(tile) not in (1, dims):
        raise RunError(
            f"A tile of {len(tile)} sides does not fit the network, which has {dims} spatial "
            f"dimensions: give tile= one number, or {dims}.",
            option="tile",
        )
    sides = tuple(tile) * dims if len(tile) == 1 else tuple(tile)
    return sides, min(sides) // 4 // stride * stride if overlap is None else overlap
