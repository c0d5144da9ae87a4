"""How much is done at once: a memory budget, and what happens when it was too large."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

#: Bytes on a CPU, where "free" memory is the whole machine's and says little.
_CPU_BUDGET = 1 << 30
_CUDA_SHARE = 0.5


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
    ValueError
        For a budget that is not positive, or a share above one.

    Examples
    --------
    >>> memory_bytes(1000, torch.device("cpu"))
    1000
    """
    if budget is not None and (budget <= 0 or (isinstance(budget, float) and budget > 1)):
        raise ValueError(
            f"memory_budget={budget!r} must be a number of bytes above zero, or a share of what "
            "is free in (0, 1]."
        )
    if isinstance(budget, int):
        return budget
    if device.type != "cuda":
        return int(_CPU_BUDGET * (1.0 if budget is None else budget))
    free, _ = torch.cuda.mem_get_info(device)
    return int(free * (_CUDA_SHARE if budget is None else budget))


def chunked(
    function: Callable[[Tensor], Tensor], rows: Tensor, each: int, memory: int
) -> list[Tensor]:
    """Apply `function` to chunks of `rows` of which each row takes `each` bytes.

    When the device runs out of memory the chunk is halved, with one warning, down to single rows.
    """
    size = max(1, min(len(rows), memory // max(1, each)))
    parts: list[Tensor] = []
    start, halved = 0, False
    while start < len(rows):
        try:
            parts.append(function(rows[start : start + size]))
        except torch.OutOfMemoryError:
            if size == 1:
                raise
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
            continue
        start += size
    return parts
