"""The page that a person reads: which class fails, what was tested, and what the maps show."""

from __future__ import annotations

from unetcam.page.gallery import Example, Origin, choose_examples
from unetcam.page.html import write_report
from unetcam.page.mistakes import Errors, Mistake
from unetcam.page.overlays import outlined, overlay
from unetcam.page.overview import warnings
from unetcam.page.side_by_side import SideBySide, side_by_side

__all__ = [
    "Errors",
    "Example",
    "Mistake",
    "Origin",
    "SideBySide",
    "choose_examples",
    "outlined",
    "overlay",
    "side_by_side",
    "warnings",
    "write_report",
]
