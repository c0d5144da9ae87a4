"""The kinds of findings by name, and what each of them has to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
from torch import Tensor

from unetcam.diagnosis.finding import Evidence, Severity
from unetcam.errors import UnetcamError, suggestion

if TYPE_CHECKING:
    from unetcam.diagnosis.examination import Examination

#: In which turn a kind is asked: whether the network is fed what it was made for, what it gets
#: wrong, and what it leans on.
Turn = Literal["input", "errors", "reliance"]
TURNS: tuple[Turn, ...] = ("input", "errors", "reliance")


@dataclass(frozen=True, eq=False)
class Screened:
    """What a cheap look at one class, or at all, gave.

    Attributes
    ----------
    class_index : int, optional
        None for all classes.
    values : Tensor
        (n,) float64, one per image that was looked at; none where the question can't be asked.
    suspicious : bool
        Whether it is worth a test.
    reason : str
        Where it is not: why, in one sentence.
    other_index : int, optional
        A second class that the suspicion is about.
    limit : float, optional
        In place of the kind's own, where the values are of another unit.
    """

    class_index: int | None
    values: Tensor
    suspicious: bool
    reason: str = ""
    other_index: int | None = None
    limit: float | None = None

    @classmethod
    def unasked(cls, class_index: int | None, reason: str) -> Screened:
        """A question that can't be asked."""
        return cls(class_index, torch.zeros(0, dtype=torch.float64), False, reason)


@dataclass(frozen=True, eq=False)
class Tested:
    """What a test measured, before it is judged.

    Attributes
    ----------
    image : sequence of int
        The images that it was measured on.
    effects, controls : Tensor
        (n,) float64, one per image; NaN where it could not be measured.
    claim : callable
        Words the finding, given its mean effect and its mean control.
    evidence : callable
        Makes the evidence of an image, by its number.
    fills : tuple of str
    unit, remedy : str, optional
        In place of the kind's own.
    gain : float, optional
    details : Mapping of str to float or str
    limit, margin : float, optional
        In place of the kind's own.
    """

    image: Sequence[int]
    effects: Tensor
    controls: Tensor
    claim: Callable[[float, float], str]
    evidence: Callable[[int], Evidence]
    fills: tuple[str, ...] = ()
    unit: str | None = None
    remedy: str | None = None
    gain: float | None = None
    details: Mapping[str, float | str] = field(default_factory=dict)
    limit: float | None = None
    margin: float | None = None


class Kind(ABC):
    """A kind of finding: what it claims, how it is screened for and how it is tested.

    Attributes
    ----------
    name : str
    title : str
        What it claims, in a few words.
    unit : str
        Of its effect.
    remedy : str
    turn : {"input", "errors", "reliance"}
    limit : float
        The least mean effect that makes a finding.
    margin : float
        By how much the effect must lie above its control, with 95 % certainty.
    grave : tuple of float
        The effects from which on it is of medium and of high severity.
    needs_truth : bool
        Whether it can be asked only where there are masks.
    """

    name: str
    title: str
    unit: str
    remedy: str
    turn: Turn
    limit: float
    margin: float = 0.05
    grave: tuple[float, float] = (0.3, 0.5)
    needs_truth: bool = True

    def expected_forwards(self, exam: Examination) -> int:
        """About how many images its screen predicts, to tell how far a diagnosis has come."""
        return 0

    @abstractmethod
    def screen(self, exam: Examination) -> Sequence[Screened]:
        """A cheap look at every class that it could be about."""

    @abstractmethod
    def test(self, exam: Examination, suspect: Screened) -> Tested:
        """The test of a suspicion, on the images, with its control."""

    def severity(self, effect: float) -> Severity:
        """By the harm."""
        medium, high = self.grave
        return "high" if effect >= high else "medium" if effect >= medium else "low"


_KINDS: dict[str, Kind] = {}
K = TypeVar("K", bound=type[Kind])


def register(kind: K) -> K:
    """Class decorator: make a kind known by its name."""
    one = kind()
    if one.name in _KINDS:
        raise ValueError(f"a kind named {one.name!r} is already registered")
    _KINDS[one.name] = one
    return kind


def kinds() -> tuple[Kind, ...]:
    """The registered kinds, in the order in which they are asked."""
    return tuple(sorted(_KINDS.values(), key=lambda kind: TURNS.index(kind.turn)))


def names() -> tuple[str, ...]:
    """The kinds' names.

    >>> "leans-on-surroundings" in names()
    True
    """
    return tuple(kind.name for kind in kinds())


def get(name: str) -> Kind:
    """The kind of that name.

    Raises
    ------
    UnetcamError
        For an unknown name; the message gives the nearest.

    Examples
    --------
    >>> get("never-predicted").title
    'A class is never predicted'
    """
    if name not in _KINDS:
        raise UnetcamError(f"There is no kind of finding '{name}': {suggestion(name, _KINDS)}")
    return _KINDS[name]
