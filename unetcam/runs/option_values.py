"""Options as people write them, turned into the values that a spec holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unetcam.data import ClassTable, parse_classes
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


def plain_value(value: Any) -> Any:
    """Lists as tuples, all the way down, and paths as text."""
    if isinstance(value, (list, tuple)):
        return tuple(plain_value(one) for one in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def class_table_of(
    classes: ClassTable | str | os.PathLike[str] | Sequence[str] | None, ignore_index: int | None
) -> ClassTable | None:
    """A class table from names, a file, or what either is called on the command line."""
    if classes is None or isinstance(classes, ClassTable):
        if ignore_index is None or classes is None:
            return classes
        return replace(classes, ignore_index=ignore_index)
    if isinstance(classes, (str, os.PathLike)):
        return parse_classes(os.fspath(classes), ignore_index=ignore_index)
    return ClassTable(tuple(classes), ignore_index=ignore_index)
