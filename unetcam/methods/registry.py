"""The methods by name."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

from unetcam.engine import Collected, Run
from unetcam.errors import UnetcamError


class Method(ABC):
    """How a network's maps are made; a subclass states where it comes from."""

    name: ClassVar[str]
    title: ClassVar[str]
    formula: ClassVar[str]
    paper: ClassVar[str]
    when: ClassVar[str]

    @abstractmethod
    def explain(self, run: Run) -> Collected:
        """The raw maps of all layers and targets of a run."""


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
