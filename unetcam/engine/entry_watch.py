"""One run of a module among several, and one tensor that an operation in it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from unetcam.engine.function_mode import FunctionMode, function_name
from unetcam.engine.request import Entry
from unetcam.errors import LayerError


class RunCounter:
    """Counts a module's runs in a forward, and tells the one that is meant."""

    def __init__(self, name: str, wanted: int | None) -> None:
        self._name, self._wanted = name, wanted
        self._count = 0

    def is_next(self, *, again: bool) -> bool:
        """Whether the run that is counted now is the one; `again` in a checkpoint's second run."""
        if again and self._wanted is None:
            return True
        if again:
            raise LayerError(
                f"The layer '{self._name}' is one of several runs of a module in a gradient "
                "checkpoint, where they can't be told apart: turn the checkpointing off."
            )
        self._count += 1
        if self._wanted is None and self._count > 1:
            raise LayerError(
                f"The layer '{self._name}' runs more than once in a forward, so it has no single "
                f"map: name one of its runs, as '{self._name}#1' or '{self._name}#2'."
            )
        return self._wanted is None or self._count == self._wanted + 1


class EntryWatch(FunctionMode):
    """Waits for one call of a torch function, and taps a tensor that it is given."""

    def __init__(self, entry: Entry, tap: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._entry, self._tap = entry, tap
        self._count = 0

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if function_name(function) != self._entry.op:
            return function(*args, **kwargs)
        self._count += 1
        if self._count != self._entry.count + 1:
            return function(*args, **kwargs)
        leaves, structure = tree_flatten((args, kwargs))
        tensors = [index for index, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        if self._entry.position >= len(tensors):
            return function(*args, **kwargs)
        index = tensors[self._entry.position]
        entered = leaves[index]
        leaves[index] = fresh = self._tap(entered)
        args, kwargs = tree_unflatten(leaves, structure)
        result = function(*args, **kwargs)
        # An operation that works in place changes the tensor that the model holds.
        return entered.copy_(result) if result is fresh else result
