"""Segmentation-first Grad-CAM for U-Nets.

>>> import unetcam
>>> unetcam.__all__
['CAMResult', 'UNetCAM', '__version__', 'diagnose', 'find_layers', 'reliance', 'targets']
"""

import importlib
from typing import TYPE_CHECKING, Any

from unetcam._version import __version__

if TYPE_CHECKING:
    from unetcam import targets
    from unetcam.cam import UNetCAM
    from unetcam.diagnosis import diagnose
    from unetcam.interventions import reliance
    from unetcam.models.loaded_model import find_layers
    from unetcam.result import CAMResult

__all__ = [
    "CAMResult",
    "UNetCAM",
    "__version__",
    "diagnose",
    "find_layers",
    "reliance",
    "targets",
]

# Loaded when first asked for: importing torch takes seconds, which `unetcam --help` need not wait.
_HOMES = {
    "CAMResult": "unetcam.result",
    "UNetCAM": "unetcam.cam",
    "diagnose": "unetcam.diagnosis",
    "find_layers": "unetcam.models.loaded_model",
    "reliance": "unetcam.interventions",
    "targets": "unetcam.targets",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unetcam' has no attribute {name!r}")
    module = importlib.import_module(_HOMES[name])
    value = module if name == "targets" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
