"""Segmentation-first Grad-CAM for U-Nets.

>>> import unetcam
>>> unetcam.__all__
['CAMResult', 'UNetCAM', '__version__', 'check', 'compare', 'diagnose', 'errors', 'find_layers',
 'load', 'map', 'measures', 'methods', 'reliance', 'report', 'targets']
"""

import importlib
from typing import TYPE_CHECKING, Any

from unetcam._version import __version__

if TYPE_CHECKING:
    from unetcam import errors, measures, methods, targets
    from unetcam.cam import UNetCAM
    from unetcam.diagnosis import diagnose
    from unetcam.interventions import reliance
    from unetcam.models.loaded_model import find_layers
    from unetcam.models.opening import load
    from unetcam.result import CAMResult
    from unetcam.tasks.check import check
    from unetcam.tasks.compare import compare
    from unetcam.tasks.map import map
    from unetcam.tasks.report import report

__all__ = [
    "CAMResult",
    "UNetCAM",
    "__version__",
    "check",
    "compare",
    "diagnose",
    "errors",
    "find_layers",
    "load",
    "map",
    "measures",
    "methods",
    "reliance",
    "report",
    "targets",
]

# Loaded when first asked for: importing torch takes seconds, which `unetcam --help` need not wait.
_HOMES = {
    "CAMResult": "unetcam.result",
    "UNetCAM": "unetcam.cam",
    "check": "unetcam.tasks.check",
    "compare": "unetcam.tasks.compare",
    "diagnose": "unetcam.diagnosis",
    "find_layers": "unetcam.models.loaded_model",
    "load": "unetcam.models.opening",
    "map": "unetcam.tasks.map",
    "reliance": "unetcam.interventions",
    "report": "unetcam.tasks.report",
}
_ROOMS = ("errors", "measures", "methods", "targets")


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"unetcam.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'unetcam' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_ROOMS})
