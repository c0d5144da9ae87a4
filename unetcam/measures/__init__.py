"""What the maps say: one question per file, all of them in one table."""

from __future__ import annotations

from unetcam.errors import MeasureError
from unetcam.measures.background import BackgroundActivation, background_activation
from unetcam.measures.boundary import BoundaryActivation, boundary_activation
from unetcam.measures.columns import COLUMNS, Column, column, columns
from unetcam.measures.concentration import MapConcentration, map_concentration
from unetcam.measures.metric import PerClassMean
from unetcam.measures.overlap import MapOverlap, map_overlap
from unetcam.measures.regions import Geometry
from unetcam.measures.segmentation import segmentation_quality
from unetcam.measures.table import measure
from unetcam.morphology import Components, connected_components, distance_transform

__all__ = [
    "COLUMNS",
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
    "segmentation_quality",
]
