"""What the report needs to know of a run; ``unetcam.runs`` provides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd


class ClassesLike(Protocol):
    """The classes' names and one display colour, ``#rrggbb``, for each."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def display_colours(self) -> Sequence[str]: ...


class SkippedLike(Protocol):
    """A file that was left out, and the reason in one sentence."""

    @property
    def id(self) -> str: ...

    @property
    def file(self) -> str: ...

    @property
    def reason(self) -> str: ...


class RunLike(Protocol):
    """A finished run: ``rows`` has one row per image, layer and class; ``layers`` deepest first."""

    @property
    def path(self) -> Path: ...

    @property
    def meta(self) -> Mapping[str, Any]: ...

    @property
    def rows(self) -> pd.DataFrame: ...

    @property
    def summary(self) -> pd.DataFrame: ...

    @property
    def skipped(self) -> Sequence[SkippedLike]: ...

    @property
    def layers(self) -> Sequence[str]: ...

    @property
    def classes(self) -> ClassesLike: ...
