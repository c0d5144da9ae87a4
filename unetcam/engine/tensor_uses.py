"""Know of a forward's tensors whether anything was made of them yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

from torch import Tensor

from unetcam.engine.function_mode import FunctionMode
from unetcam.engine.tensors import version_of


class TensorUses(FunctionMode):
    """Inside, notes which tensors were made and not used since.

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
        given = [*_tensors(args), *_tensors(kwargs.values())] if kwargs else [*_tensors(args)]
        versions = [version_of(tensor) for tensor in given]
        result = function(*args, **kwargs)
        made = list(_tensors((result,)))
        for tensor in made:
            if not any(tensor is one for one in given):
                self._unused[id(tensor)] = ref(tensor)
        for tensor, version in zip(given, versions, strict=True):
            if version is None or version_of(tensor) != version:
                self._unused[id(tensor)] = ref(tensor)
            elif any(one is not tensor for one in made):
                self._unused.pop(id(tensor), None)
        return result


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among values, and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)
