"""What is known of a tensor, for as long as nothing was changed in place."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from unetcam.engine.tensors import version_of

T = TypeVar("T")


class Notes(Generic[T]):
    """Notes on tensors that lapse when the tensor, or one it was made of, is changed in place.

    A note lives no longer than its tensor.

    Examples
    --------
    >>> import torch
    >>> notes, x = Notes[str](), torch.zeros(2)
    >>> y = x + 1
    >>> notes.put(y, "made of x", x)
    >>> notes.get(y)
    'made of x'
    >>> _ = x.add_(1)
    >>> notes.get(y) is None
    True
    """

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[T, tuple[Tensor, ...], tuple[int | None, ...]]]
        self._kept = WeakTensorKeyDictionary()

    def put(self, tensor: Tensor, note: T, *sources: Tensor) -> None:
        """Note something on `tensor`, which was made of `sources`."""
        self._kept[tensor] = (note, sources, _versions(tensor, *sources))

    def get(self, tensor: Tensor) -> T | None:
        """The note on `tensor`; None without one, or when it has lapsed."""
        if tensor not in self._kept:
            return None
        note, sources, versions = self._kept[tensor]
        return note if versions == _versions(tensor, *sources) else None

    def __len__(self) -> int:
        return len(self._kept)


def _versions(*tensors: Tensor) -> tuple[int | None, ...]:
    return tuple(version_of(tensor) for tensor in tensors)
