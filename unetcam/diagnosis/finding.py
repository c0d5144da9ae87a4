"""What a diagnosis says: findings, the tests behind them, and what both were tested on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unetcam.errors import DataError

Severity = Literal["high", "medium", "low"]

#: The form of what :meth:`Diagnosis.to_dict` gives; another number is another form.
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Evidence:
    """One image that shows a finding.

    Attributes
    ----------
    image : str
        The image's name.
    caption : str
        What is to be seen, in one sentence.
    before, after : ndarray, optional
        (H, W, 3) uint8, the image as it is and as it was changed; None where nothing was changed.
        Of a volume, the slice through the middle of what is shown.
    truth, mask_before, mask_after : ndarray, optional
        (H, W) bool, where the class is by the ground truth, by the prediction, and by the
        prediction of the changed image.
    region : ndarray, optional
        (H, W) bool, what was changed; None where that was nothing or everything.
    """

    image: str
    caption: str
    before: NDArray[np.uint8] | None = None
    after: NDArray[np.uint8] | None = None
    truth: NDArray[np.bool_] | None = None
    mask_before: NDArray[np.bool_] | None = None
    mask_after: NDArray[np.bool_] | None = None
    region: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Finding:
    """A claim about a network that was tested on the user's own images.

    Attributes
    ----------
    kind : str
        The name of a kind, as ``"leans-on-surroundings"``.
    class_index : int, optional
        The class that it is about; None for all.
    class_name : str
        Empty for all.
    severity : {"high", "medium", "low"}
        By the harm: the pixels that the fault costs, or the share of the class that flips.
    claim : str
        One sentence; everything in it was tested.
    effect : float
        In `effect_unit`.
    effect_unit : str
        What the effect is counted in, as ``"share of the class's pixels that flip"``.
    control : float
        The same measurement where nothing is claimed, in the same unit; NaN where there is no
        such place.
    interval : tuple of float
        The effect's 95 % interval, bootstrapped over images.
    images : tuple of str
        The images in which it shows, the strongest first.
    tested : int
        How many images it was tested on.
    fills : tuple of str
        With what hidden pixels were replaced; empty where none were.
    remedy : str
        What to do about it.
    gain : float, optional
        By how much the class's IoU (the mean IoU, for all classes) would rise without the fault,
        where that can be computed.
    evidence : tuple of Evidence
    details : Mapping of str to float or str
        Further numbers by name, ready to be shown beside the claim.

    Examples
    --------
    >>> finding = Finding("never-predicted", 2, "cell", "high", "'cell' is never predicted.",
    ...                   1.0, "share of the class's pixels that are missed", 0.0, (1.0, 1.0),
    ...                   ("a.png",), 24, (), "Train longer.")
    >>> Finding.from_dict(finding.to_dict()) == finding
    True
    """

    kind: str
    class_index: int | None
    class_name: str
    severity: Severity
    claim: str
    effect: float
    effect_unit: str
    control: float
    interval: tuple[float, float]
    images: tuple[str, ...]
    tested: int
    fills: tuple[str, ...]
    remedy: str
    gain: float | None = None
    evidence: tuple[Evidence, ...] = field(default=(), compare=False)
    details: Mapping[str, float | str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (NaN as None), without the pictures."""
        return _plain(self, without=("evidence",))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Finding:
        """The finding that :meth:`to_dict` wrote, without its pictures.

        Raises
        ------
        DataError
            For values that are no finding.
        """
        try:
            low, high = values["interval"]
            known = dict(_known(cls, values))
            known.update(
                severity=_severity(values["severity"]),
                effect=_number(values["effect"]),
                control=_number(values["control"]),
                interval=(_number(low), _number(high)),
                images=tuple(map(str, values["images"])),
                fills=tuple(map(str, values["fills"])),
                details={
                    key: math.nan if value is None else value
                    for key, value in values.get("details", {}).items()
                },
            )
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_diagnosis("finding", error) from error


@dataclass(frozen=True)
class TestRecord:
    """One question that was asked of a network, whatever the answer.

    Attributes
    ----------
    kind : str
    class_index : int, optional
    class_name : str
    tested : int
        On how many images; 0 where it could not be asked.
    confirmed : bool
        Whether there is a finding of it.
    effect, control : float
        What was measured, and what was measured where nothing is claimed; NaN where nothing was.
    smallest_effect : float
        The effect from which on so many images would have made a finding of it; NaN where it
        could not be asked.
    reason : str
        Why it ended so, in one sentence.
    """

    __test__ = False  # no test of pytest's

    kind: str
    class_index: int | None
    class_name: str
    tested: int
    confirmed: bool
    effect: float
    control: float
    smallest_effect: float
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (NaN as None)."""
        return _plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TestRecord:
        """The record that :meth:`to_dict` wrote.

        Raises
        ------
        DataError
            For values that are no record of a test.
        """
        try:
            known = dict(_known(cls, values))
            for name in ("effect", "control", "smallest_effect"):
                known[name] = _number(values[name])
            return cls(**known)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_diagnosis("record of a test", error) from error


@dataclass(frozen=True)
class Diagnosis:
    """All that was asked of a network, and what came of it.

    Attributes
    ----------
    findings : tuple of Finding
        The gravest first.
    tests : tuple of TestRecord
        Every question that was asked, also where nothing was found.
    seconds : float
        What it took.
    forwards : int
        How many images went through the network.

    Examples
    --------
    >>> healthy = Diagnosis((), (), 1.5, 240)
    >>> Diagnosis.from_dict(healthy.to_dict()) == healthy
    True
    """

    findings: tuple[Finding, ...]
    tests: tuple[TestRecord, ...]
    seconds: float
    forwards: int

    def __iter__(self) -> Iterator[Finding]:
        """The findings, so that a diagnosis can be read as their list."""
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:
        return bool(self.findings)

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind, the gravest first."""
        return tuple(one for one in self.findings if one.kind == kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON (NaN as None), without the pictures."""
        return {
            "schema": SCHEMA,
            "findings": [one.to_dict() for one in self.findings],
            "tests": [one.to_dict() for one in self.tests],
            "seconds": float(self.seconds),
            "forwards": int(self.forwards),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Diagnosis:
        """The diagnosis that :meth:`to_dict` wrote, without its pictures.

        Raises
        ------
        DataError
            For values that are no diagnosis, or one of another schema.
        """
        try:
            schema, seconds, forwards = values["schema"], values["seconds"], values["forwards"]
            findings = tuple(Finding.from_dict(one) for one in values["findings"])
            tests = tuple(TestRecord.from_dict(one) for one in values["tests"])
            seconds, forwards = float(seconds), int(forwards)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise _no_diagnosis("diagnosis", error) from error
        if schema != SCHEMA:
            raise DataError(
                f"The diagnosis is of schema {schema!r}, and this version reads {SCHEMA}: diagnose "
                "the network again."
            )
        return cls(findings, tests, seconds, forwards)


def _plain(one: Finding | TestRecord, without: Sequence[str] = ()) -> dict[str, Any]:
    return {
        item.name: _plain_value(getattr(one, item.name))
        for item in fields(one)
        if item.name not in without
    }


def _plain_value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_value(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain_value(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _known(cls: type[Finding] | type[TestRecord], values: Mapping[str, Any]) -> Mapping[str, Any]:
    names = {item.name for item in fields(cls)}
    return {name: value for name, value in values.items() if name in names}


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _severity(value: Any) -> Severity:
    if value not in get_args(Severity):
        raise ValueError(f"no severity: {value!r}")
    severity: Severity = value
    return severity


def _no_diagnosis(what: str, error: Exception) -> DataError:
    return DataError(
        f"These values are no {what} that unetcam wrote ({type(error).__name__}: {error}): "
        "diagnose the network again."
    )
