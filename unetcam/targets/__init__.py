"""What is explained: a scalar per image, made of its logits over a region of pixels.

A target is a named, frozen value. It is given the logits of a batch and answers with one score
per image, the *mean* over its region, and with the images in which that region exists at all.
Any target narrows its region to that of another, or to a mask, with ``within=``.
"""

from __future__ import annotations

from unetcam.engine.request import Score
from unetcam.targets.base import Region, RegionScore, Target
from unetcam.targets.channels import Head, Scale, class_count, predict, predicted_as
from unetcam.targets.contrasts import Contrast
from unetcam.targets.regions import Box, ClassScore, Pixel, PredictedRegion
from unetcam.targets.selection import (
    Choice,
    Function,
    PerImage,
    TargetLike,
    as_targets,
    check_existing,
    check_targets,
    chosen,
)
from unetcam.targets.shapes import Band, Component
from unetcam.targets.truth import (
    BoundaryErrors,
    Confusion,
    FalseNegatives,
    FalsePositives,
    MissedComponents,
    TruthRegion,
)

__all__ = [
    "Band",
    "BoundaryErrors",
    "Box",
    "Choice",
    "ClassScore",
    "Component",
    "Confusion",
    "Contrast",
    "FalseNegatives",
    "FalsePositives",
    "Function",
    "Head",
    "MissedComponents",
    "PerImage",
    "Pixel",
    "PredictedRegion",
    "Region",
    "RegionScore",
    "Scale",
    "Score",
    "Target",
    "TargetLike",
    "TruthRegion",
    "as_targets",
    "check_existing",
    "check_targets",
    "chosen",
    "class_count",
    "predict",
    "predicted_as",
]
