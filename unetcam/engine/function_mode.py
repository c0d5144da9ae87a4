"""The one base of what watches a forward, or takes part in it, torch function by torch function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class FunctionMode(TorchFunctionMode):
    """Inside the ``with`` block, each torch function that its thread calls goes through `call`.

    Modes nest: the innermost is asked first, and what it calls goes to the next. Threads have
    modes of their own, so that a forward in another thread sees nothing of this one.

    Examples
    --------
    >>> import torch
    >>> class Counted(FunctionMode):
    ...     names: list[str] = []
    ...     def call(self, function, args, kwargs):
    ...         self.names.append(function_name(function))
    ...         return function(*args, **kwargs)
    >>> with Counted() as counted:
    ...     _ = torch.zeros(2).relu()
    >>> counted.names
    ['zeros', 'relu']
    """

    @abstractmethod
    def call(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the call gives: ``function(*args, **kwargs)``, or something in its place."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return self.call(func, args, kwargs or {})


def function_name(function: Callable[..., Any]) -> str:
    """A torch function's name, as ``"conv2d"``, ``"add_"`` or ``"__getitem__"``."""
    return getattr(function, "__name__", str(function))


#: What the functions of a forward are mostly given beside tensors, and holds none.
_PLAIN = frozenset({type(None), bool, int, float, str, slice, torch.dtype, torch.device})


def tensors_in(values: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dicts, in their order.

    >>> import torch
    >>> [tensor.shape for tensor in tensors_in({"x": (torch.zeros(2), 3), "y": torch.zeros(1)})]
    [torch.Size([2]), torch.Size([1])]
    """
    kind = type(values)
    if isinstance(values, Tensor):
        yield values
    elif kind is tuple or kind is list:
        for value in values:
            yield from tensors_in(value)
    elif kind is dict:
        for value in values.values():
            yield from tensors_in(value)
    elif kind not in _PLAIN:  # named tuples, and what libraries have registered
        yield from (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
