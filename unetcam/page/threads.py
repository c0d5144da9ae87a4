"""Drawing several pictures at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST = 8


def in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """What the function makes of each item, in order.

    It is for functions that draw and pack pixels, which lets go of the interpreter.

    >>> in_threads(abs, [-1, 2])
    [1, 2]
    """
    with ThreadPoolExecutor(min(_MOST, os.cpu_count() or 1)) as pool:
        return list(pool.map(function, items))
