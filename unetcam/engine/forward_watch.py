"""What the hooks watch a forward for: a module's run, an operation's entry, a tensor's uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MethodWrapperType
from typing import Any
from weakref import ref

from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from unetcam.engine.function_mode import FunctionMode, function_name
from unetcam.engine.request import Entry
from unetcam.engine.tensors import version_of
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


class TensorUses(FunctionMode):
    """Inside, remembers which tensors were made and not used since.

    A tensor is used where a function is given it and gives another tensor. What is changed in
    place is as good as made: what was made of it before is not made of what it is now.

    Examples
    --------
    >>> import torch
    >>> with TensorUses() as uses:
    ...     x = torch.ones(2)
    ...     y = x + 1
    >>> uses.is_unused(x), uses.is_unused(y)
    (False, True)
    """

    def __init__(self) -> None:
        super().__init__()
        self._unused: dict[int, ref[Tensor]] = {}

    def is_unused(self, tensor: Tensor) -> bool:
        """Whether it was seen made, and nothing was made of it; False for what is unknown."""
        known = self._unused.get(id(tensor))
        return known is not None and known() is tensor

    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Every operation of a forward comes through here, and so it is short."""
        # A property, as a tensor's shape; its transpose is a view, which follows it.
        if type(function) is MethodWrapperType:
            return function(*args, **kwargs)
        first: Any = args[0] if args else None
        version = version_of(first) if isinstance(first, Tensor) else None
        result = function(*args, **kwargs)
        made = (result,) if isinstance(result, Tensor) else result
        if not isinstance(made, (tuple, list)):
            return result
        for tensor in made:
            # What is handed on untouched is not made anew.
            if isinstance(tensor, Tensor) and (
                tensor is not first or version is None or tensor._version != version
            ):
                self._unused[id(tensor)] = ref(tensor)
        self._use(args, made)
        if kwargs:
            self._use(kwargs.values(), made)
        return result

    def _use(self, values: Iterable[Any], made: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, Tensor):
                if all(value is not tensor for tensor in made):
                    self._unused.pop(id(value), None)
            elif isinstance(value, (tuple, list)):
                self._use(value, made)
