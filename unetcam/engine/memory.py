"""How much is done at once: a memory budget, and what happens when it was too large."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor

from unetcam.errors import MemoryBudgetError

#: Bytes on a CPU by default, where what is free is the whole machine's and says little.
_CPU_BUDGET = 1 << 30
_CUDA_SHARE = 0.5

T = TypeVar("T")


def memory_bytes(budget: int | float | None, device: torch.device) -> int:
    """The bytes that a budget stands for.

    Parameters
    ----------
    budget : int, float or None
        Bytes, or a share of what is free on the device (a float in (0, 1]). None: half of what is
        free on a CUDA device, and 1 GiB elsewhere.
    device : torch.device

    Returns
    -------
    int

    Raises
    ------
    MemoryBudgetError
        For a budget that is not positive, or a share above one.

    Examples
    --------
    >>> memory_bytes(1000, torch.device("cpu"))
    1000
    """
    given: Any = budget  # NumPy's numbers are as good as Python's
    whole = isinstance(given, Integral) and not isinstance(given, bool)
    share = isinstance(given, Real) and not isinstance(given, Integral)
    if given is not None and not (whole and given > 0) and not (share and 0 < given <= 1):
        raise MemoryBudgetError(
            f"memory_budget={budget!r} must be a number of bytes above zero, or a share of what "
            "is free in (0, 1]."
        )
    if budget is not None and whole:
        return int(budget)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * (_CUDA_SHARE if budget is None else budget))
    return _CPU_BUDGET if budget is None else int(_free_memory() * budget)


def _free_memory() -> int:
    """Bytes that are free on the machine; where it does not say, what is taken by default."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return _CPU_BUDGET


def require_room(budget: int | float | None, activations: Iterable[Tensor], targets: int) -> None:
    """Refuse maps that alone exceed a budget that the caller set, before the work is done.

    Parameters
    ----------
    budget : int, float or None
        As for :func:`memory_bytes`; None refuses nothing.
    activations : iterable of Tensor
        (B, K, *layer_spatial) of each layer, on one device.
    targets : int
        How many maps each layer has for each image.

    Raises
    ------
    MemoryBudgetError
    """
    if budget is None:
        return
    pixels = [activation[:, :1] for activation in activations]
    needed = sum(targets * one.numel() * max(4, one.element_size()) for one in pixels)
    room = memory_bytes(budget, pixels[0].device)
    if needed > room:
        raise MemoryBudgetError(
            f"The maps of {targets} targets take {needed:,} bytes, more than the memory budget of "
            f"{room:,}: explain fewer targets, layers or images at a time, or raise memory_budget."
        )


def chunked(
    function: Callable[[Any], T],
    rows: Sequence[Any] | Tensor,
    each: int,
    memory: int,
    *,
    most: int | None = None,
) -> list[T]:
    """Apply `function` to chunks of `rows` of which each row takes `each` bytes.

    No chunk holds more than `most` rows. When the device runs out of memory the chunk is halved,
    with one warning, down to single rows.
    """
    size = max(1, min(len(rows), memory // max(1, each), len(rows) if most is None else most))
    parts: list[T] = []
    start, halved = 0, False
    while start < len(rows):
        try:
            parts.append(function(rows[start : start + size]))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
        else:
            start += size
            continue
        # Behind the handler, whose traceback holds the tensors of the chunk that failed.
        size = size // 2
        torch.cuda.empty_cache()
        if not halved:
            halved = True
            warnings.warn(
                "The device ran out of memory: going on with smaller chunks, and slower. A "
                "memory_budget below what is free avoids this.",
                RuntimeWarning,
                stacklevel=2,
            )
    return parts
