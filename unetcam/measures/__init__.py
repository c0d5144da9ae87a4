"""What the maps say: one question per file, all of them in one table."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unetcam.errors import MeasureError
from unetcam.measures.background import background_activation
from unetcam.measures.boundary import boundary_activation
from unetcam.measures.columns import COLUMNS, QUESTIONS, Column, column, columns, of_the_map
from unetcam.measures.concentration import map_concentration
from unetcam.measures.overlap import map_overlap
from unetcam.measures.regions import Geometry
from unetcam.measures.segmentation import segmentation_quality
from unetcam.measures.table import measure
from unetcam.morphology import Components, connected_components, distance_transform

if TYPE_CHECKING:
    from unetcam.measures.metrics import (
        BackgroundActivation,
        BoundaryActivation,
        MapConcentration,
        MapOverlap,
        PerClassMean,
    )

__all__ = [
    "COLUMNS",
    "QUESTIONS",
    "BackgroundActivation",
    "BoundaryActivation",
    "Column",
    "Components",
    "Geometry",
    "MapConcentration",
    "MapOverlap",
    "MeasureError",
    "PerClassMean",
    "background_activation",
    "boundary_activation",
    "column",
    "columns",
    "connected_components",
    "distance_transform",
    "map_concentration",
    "map_overlap",
    "measure",
    "of_the_map",
    "segmentation_quality",
]

#: torchmetrics takes a second to import, and a run needs none of it.
_METRICS = frozenset(
    ("BackgroundActivation", "BoundaryActivation", "MapConcentration", "MapOverlap", "PerClassMean")
)


def __getattr__(name: str) -> Any:
    if name in _METRICS:
        return getattr(import_module("unetcam.measures.metrics"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
