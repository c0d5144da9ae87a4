"""The report: one page that a person reads, with findings in plain words."""

from __future__ import annotations

from unetcam.report.examples import Example, choose_examples
from unetcam.report.findings import Finding, find
from unetcam.report.networks import SideBySide, side_by_side
from unetcam.report.overlays import outlined, overlay
from unetcam.report.page import write_report

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
