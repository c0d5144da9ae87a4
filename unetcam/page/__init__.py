"""The report: one page that a person reads, with findings in plain words."""

from __future__ import annotations

from unetcam.page.examples import Example, choose_examples
from unetcam.page.findings import Finding, find
from unetcam.page.html import write_report
from unetcam.page.overlays import outlined, overlay
from unetcam.page.side_by_side import SideBySide, side_by_side

__all__ = [
    "Example",
    "Finding",
    "SideBySide",
    "choose_examples",
    "find",
    "outlined",
    "overlay",
    "side_by_side",
    "write_report",
]
