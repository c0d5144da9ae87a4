"""Which of a forward's tensors something was made of already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MethodWrapperType
from typing import Any
from weakref import ref

from torch import Tensor
from torch.overrides import TorchFunctionMode

from unetcam.engine.tensors import version_of


class TensorUses(TorchFunctionMode):
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

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Every operation of a forward comes through here, and so it is short."""
        if type(func) is MethodWrapperType:  # a property, as a tensor's shape
            return func(*args, **(kwargs or {}))
        first: Any = args[0] if args else None
        version = version_of(first) if isinstance(first, Tensor) else None
        result = func(*args, **kwargs) if kwargs else func(*args)
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
