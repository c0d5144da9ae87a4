"""The methods by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field, fields, is_dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from unetcam.engine import Collected, Request
from unetcam.errors import UnetcamError, suggestion

Family = Literal["gradient", "activation", "perturbation", "baseline"]


class Method(ABC):
    """How a network's maps are made; a subclass states where it comes from.

    One with settings is a frozen dataclass of them. Registered is the one with the defaults.

    Attributes
    ----------
    name : str
    title : str
    family : {"gradient", "activation", "perturbation", "baseline"}
    formula : str
    paper : str
    when : str
        When it is of use, in one sentence.
    asks_why : bool
        Whether the maps depend on the target, so that what speaks against it has maps too.
    needs : tuple of str
        Packages beyond unetcam's own, which the extra `extra` brings.
    """

    name: str
    title: str
    family: Family
    formula: str
    paper: str
    when: str
    asks_why: bool = True
    needs: tuple[str, ...] = ()
    extra: str = ""

    def check(self) -> None:
        """Raise :class:`~unetcam.errors.UnetcamError` where a package is missing."""
        missing = [package for package in self.needs if find_spec(package) is None]
        if missing:
            raise UnetcamError(
                f"{self.title} needs {' and '.join(missing)}: pip install 'unetcam[{self.extra}]'."
            )

    def suitable(self, layers: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the decoder's layers, deepest first, that are explained if none is named."""
        return layers

    @abstractmethod
    def explain(self, request: Request) -> Collected:
        """The raw maps of all layers and targets of a request."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name; the seed is among them where something is drawn."""
        declared: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        return {one.name: getattr(self, one.name) for one in declared if one.init}


class Wrapper(Method):
    """A method made of another one; its name is a prefix before the other's."""

    prefix: str

    def __init__(self, method: Method) -> None:
        """Wrap a method, with the default settings."""


#: What is no method, as it has no target or no layer, and what gives its maps.
_FUNCTIONS = {
    "channels": "call unetcam.channel_maps.active_channels(model, images)",
    "reliance": "call unetcam.reliance(model, images, truth) or unetcam.map(..., "
    "method='reliance'), or read a report's findings, which rest on it,",
}
_METHODS: dict[str, Method] = {}
_WRAPPERS: dict[str, type[Wrapper]] = {}

M = TypeVar("M", bound=type[Method])
W = TypeVar("W", bound=type[Wrapper])


def register(method: M) -> M:
    """Class decorator: make a method known by its name."""
    one = method()
    if one.name in _METHODS:
        raise ValueError(f"a method named {one.name!r} is already registered")
    _METHODS[one.name] = one
    return method


def register_wrapper(wrapper: W) -> W:
    """Class decorator: let a prefix before a method's name mean this wrapper around it."""
    if wrapper.prefix in _WRAPPERS:
        raise ValueError(f"a wrapper with the prefix {wrapper.prefix!r} is already registered")
    _WRAPPERS[wrapper.prefix] = wrapper
    return wrapper


def names() -> tuple[str, ...]:
    """The registered methods' names, without those of :func:`wrappers`.

    >>> "gradcam" in names()
    True
    """
    return tuple(_METHODS)


def wrappers() -> tuple[type[Wrapper], ...]:
    """What can be made of any method, by a prefix before its name.

    >>> [one.prefix for one in wrappers()]
    ['smooth-']
    """
    return tuple(_WRAPPERS.values())


def get(name: str, seed: int | None = None) -> Method:
    """The method of that name, with its default settings.

    Parameters
    ----------
    name : str
    seed : int, optional
        Seeds what the method draws, where it draws anything.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest ones.

    Examples
    --------
    >>> get("smooth-gradcam").title
    'Grad-CAM, smoothed'
    """
    for prefix, wrapper in _WRAPPERS.items():
        if name.startswith(prefix):
            return _seeded(wrapper(get(name.removeprefix(prefix), seed)), seed)
    if name in _FUNCTIONS:
        raise UnetcamError(
            f"'{name}' is no method of layers and targets: {_FUNCTIONS[name]} for its maps.",
            option="method",
        )
    if name not in _METHODS:
        raise UnetcamError(
            f"There is no method '{name}': {suggestion(name, _METHODS)}", option="method"
        )
    return _seeded(_METHODS[name], seed)


def chosen(method: str | Method) -> Method:
    """A method by its name, or one with settings of its own, ready to be used.

    Raises
    ------
    UnetcamError
        For what is neither, and where a package that it needs is missing.
    """
    one = get(method) if isinstance(method, str) else method
    if not isinstance(one, Method):
        raise UnetcamError(f"{method!r} is no method: give a name of unetcam.methods.names().")
    one.check()
    return one


def _seeded(method: Method, seed: int | None) -> Method:
    if seed is None or "seed" not in method.settings:
        return method
    drawing: Any = method  # a frozen dataclass of its settings
    changed: Method = replace(drawing, seed=seed)
    return changed
