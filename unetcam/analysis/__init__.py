"""What the maps say: one question per file, all of them in one table."""

from __future__ import annotations

from unetcam.analysis.background import BackgroundActivation, background_activation
from unetcam.analysis.boundary import BoundaryActivation, boundary_activation
from unetcam.analysis.concentration import MapConcentration, map_concentration
from unetcam.analysis.geometry import Geometry
from unetcam.analysis.glossary import COLUMNS, Column, column, columns
from unetcam.analysis.metric import PerClassMean
from unetcam.analysis.overlap import MapOverlap, map_overlap
from unetcam.analysis.quality import segmentation_quality
from unetcam.analysis.table import measure
from unetcam.errors import MeasureError
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
