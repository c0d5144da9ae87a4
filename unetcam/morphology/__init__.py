"""Shapes of masks, on the device: components, exact distances and bands along contours."""

from __future__ import annotations

from unetcam.morphology.components import (
    Components,
    connected_components,
    label_components,
    nonzero,
)
from unetcam.morphology.distance import (
    contour_bands,
    default_width,
    distance_transform,
    largest_square,
    squared_distance,
)

__all__ = [
    "Components",
    "connected_components",
    "contour_bands",
    "default_width",
    "distance_transform",
    "label_components",
    "largest_square",
    "nonzero",
    "squared_distance",
]
