"""The methods by name."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

from torch import Tensor

from unetcam.errors import UnetcamError


class Method(ABC):
    """How one layer's activation and gradients become its maps.

    A subclass states where it comes from, and computes in two steps: `reduce` condenses one
    target's gradient as it arrives in the backward, `combine` makes the maps of all targets.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    when: ClassVar[str]
    #: Whether `reduce` asks for no more of a gradient than each channel's spatial mean.
    needs_mean_only: ClassVar[bool] = False

    @abstractmethod
    def reduce(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Condense a gradient, (B, K, *spatial) as the activation, to what the map needs."""

    @abstractmethod
    def combine(self, activation: Tensor, statistics: Tensor) -> Tensor:
        """The raw maps (B, T, *spatial) of T targets, from their statistics (B, T, ...)."""


_METHODS: dict[str, Method] = {}

M = TypeVar("M", bound=type[Method])


def register(method: M) -> M:
    """Class decorator: make a method known by its name."""
    if method.name in _METHODS:
        raise ValueError(f"a method named {method.name!r} is already registered")
    _METHODS[method.name] = method()
    return method


def names() -> tuple[str, ...]:
    """The registered methods' names.

    >>> "gradcam" in names()
    True
    """
    return tuple(_METHODS)


def get(name: str) -> Method:
    """The method of that name.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest ones.
    """
    if name not in _METHODS:
        near = difflib.get_close_matches(name, _METHODS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"choose from {', '.join(_METHODS)}."
        raise UnetcamError(f"There is no method '{name}': {hint}")
    return _METHODS[name]
