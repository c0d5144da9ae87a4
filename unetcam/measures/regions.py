"""Where the classes lie: regions, contour distances and bands, shared by all layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from unetcam.errors import MeasureError
from unetcam.measures.checks import (
    require_band,
    require_classes,
    require_labels,
    require_tolerance,
)
from unetcam.morphology import largest_square, squared_distance

PROFILE_BANDS = 4
"""How many band widths the distance profile reaches to either side of the contour."""

PROFILE_BINS = 16
"""How many bins the distance profile has, half of them on either side."""

_SIDE = PROFILE_BINS // 2
ZONES = PROFILE_BINS + 2
"""The profile's bins in order of signed distance, with one zone beyond them on either side."""

INSIDE = slice(0, _SIDE + 1)
OUTSIDE = slice(_SIDE + 1, ZONES)
_PER_BAND = _SIDE // PROFILE_BANDS
INNER_BAND = slice(_SIDE + 1 - _PER_BAND, _SIDE + 1)
OUTER_BAND = slice(_SIDE + 1, _SIDE + 1 + _PER_BAND)
INTERIOR = slice(0, _SIDE + 1 - _PER_BAND)
FAR = slice(_SIDE + 1 + _PER_BAND, ZONES)
PROFILE = slice(1, PROFILE_BINS + 1)


class Geometry:
    """The classes' regions and contours of a batch, computed once and used for every layer.

    Everything here depends on the masks only, so one object serves the maps of all layers and
    methods of the same batch. What no question asks for is never computed.

    Parameters
    ----------
    truth : Tensor
        ``(B, H, W)`` or ``(B, D, H, W)`` class indices, any integer dtype; -1 marks ignored
        pixels.
    classes : sequence of int
        The class of each of the T maps; a class may be named more than once.
    prediction : Tensor, optional
        The predicted class indices, shape and device of ``truth``. Only the overlap with the
        prediction needs it.
    num_classes : int
        The number of classes C.
    band : float, optional
        The band's width in pixels, at least 1. Default: 2 % of the image diagonal (of the
        volume's, in 3-D) and at least 1, as Boundary IoU has it [1]_, but not rounded.
    tolerance : float
        The pointing game's tolerance in pixels.

    Raises
    ------
    MeasureError
        If a shape, a class index, the band or the tolerance is not allowed.

    Notes
    -----
    **Regions.** The class's region holds the pixels whose truth is the class; every other
    pixel that is not ignored is outside. Ignored pixels belong to neither side and count
    nowhere; predictions on them are left out as well.

    **Distance to the contour.** For a pixel p of one side, d(p) is the Euclidean distance of
    its centre to the centre of the nearest pixel of the other side: exact, in pixels, 1 for
    pixels that touch the contour. Signed, it is -d inside and +d outside. The *inner band*
    holds the inside pixels with d <= band, which is the region G_d of Boundary IoU, and the
    *outer band* the outside pixels with d <= band.

    **The image's border is no contour**, and neither is the edge of ignored pixels. The
    reference code of Boundary IoU pads the mask with zeros, so that an object cut off by the
    border has a boundary there: fit for judging a predicted mask. Here the question is what
    the network saw, and where the image ends it saw no change of class, so a cut-off object
    has no contour along the cut. A class without any pixel outside it has no contour at all.

    References
    ----------
    .. [1] B. Cheng, R. Girshick, P. Dollar, A. Berg and A. Kirillov, "Boundary IoU: Improving
       Object-Centric Image Segmentation Evaluation", CVPR 2021.

    Examples
    --------
    >>> import torch
    >>> truth = torch.tensor([[[0, 0, 1, 1, 1, -1]]])
    >>> geometry = Geometry(truth, [1], num_classes=2)
    >>> geometry.band
    1.0
    >>> geometry.signed_distance
    tensor([[[[ 2.,  1., -1., -2., -3., nan]]]])
    """

    def __init__(
        self,
        truth: Tensor,
        classes: Sequence[int],
        prediction: Tensor | None = None,
        *,
        num_classes: int,
        band: float | None = None,
        tolerance: float = 15.0,
    ) -> None:
        require_labels("truth", truth, num_classes, lowest=-1)
        if prediction is not None:
            require_labels("prediction", prediction, num_classes, lowest=0)
            if prediction.shape != truth.shape:
                raise MeasureError(
                    f"The prediction has shape {tuple(prediction.shape)} and the truth "
                    f"{tuple(truth.shape)}: bring both to the same pixels."
                )
        self.classes = require_classes(classes, num_classes)
        self.num_classes = num_classes
        self.spatial = tuple(truth.shape[1:])
        self.band = require_band(band, self.spatial)
        self.tolerance = require_tolerance(tolerance)
        self.truth = truth.flatten(1).long()
        self.prediction = None if prediction is None else prediction.flatten(1).long()
        self._distinct = tuple(dict.fromkeys(self.classes))
        self._order = torch.tensor(
            [self._distinct.index(c) for c in self.classes], device=truth.device
        )

    @property
    def device(self) -> torch.device:
        """The device that everything lies on."""
        return self.truth.device

    @property
    def batch(self) -> int:
        """The number of images B."""
        return self.truth.shape[0]

    def _per_map(self, per_class: Tensor) -> Tensor:
        """From the K distinct classes to the T maps' classes, without a copy where both agree."""
        return per_class if len(self._distinct) == len(self.classes) else per_class[:, self._order]

    def _class_column(self) -> Tensor:
        return torch.tensor(self._distinct, device=self.device)[:, None]

    @cached_property
    def valid(self) -> Tensor:
        """``(B, 1, N)`` bool: the pixels that count."""
        return (self.truth >= 0)[:, None]

    @cached_property
    def valid_pixels(self) -> Tensor:
        """``(B, 1)`` int64: how many pixels count."""
        return self.valid.sum(-1)

    @cached_property
    def _inside(self) -> Tensor:
        return self.truth[:, None] == self._class_column()

    @cached_property
    def inside(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels of each map's class in the truth."""
        return self._per_map(self._inside)

    @cached_property
    def predicted_inside(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels of each map's class in the prediction, none ignored."""
        return self._per_map(self._predicted_inside)

    @cached_property
    def _predicted_inside(self) -> Tensor:
        if self.prediction is None:
            raise MeasureError("No prediction was given: hand it to Geometry or to the measure.")
        return (self.prediction[:, None] == self._class_column()) & self.valid

    @cached_property
    def truth_pixels(self) -> Tensor:
        """``(B, T)`` int64: the size of each map's class in the truth."""
        return self.inside.sum(-1)

    @cached_property
    def predicted_pixels(self) -> Tensor:
        """``(B, T)`` int64: the size of each map's class in the prediction."""
        return self.predicted_inside.sum(-1)

    @property
    def present(self) -> Tensor:
        """``(B, T)`` bool: whether the truth holds the class."""
        return self.truth_pixels > 0

    @property
    def has_contour(self) -> Tensor:
        """``(B, T)`` bool: whether the class has pixels and there are pixels outside it."""
        return self.present & (self.truth_pixels < self.valid_pixels)

    def _squared_distance_to(self, region: Tensor, reach: int) -> Tensor:
        squared = squared_distance(
            region.reshape(*region.shape[:2], *self.spatial), reach, spatial_dims=len(self.spatial)
        )
        return squared.flatten(2)

    @property
    def _profile_reach(self) -> int:
        return math.ceil(PROFILE_BANDS * self.band)

    @cached_property
    def _to_region(self) -> Tensor:
        """Squared distance of every pixel to the class's region, (B, K, N)."""
        reach = max(self._profile_reach, math.ceil(self.tolerance))
        return self._squared_distance_to(self._inside, reach)

    @cached_property
    def _to_rest(self) -> Tensor:
        """Squared distance of every pixel to the pixels outside the class, (B, K, N)."""
        return self._squared_distance_to(self.valid & ~self._inside, self._profile_reach)

    @cached_property
    def signed_distance(self) -> Tensor:
        """``(B, T, *spatial)`` float32, in pixels: the signed distance to the contour.

        Negative inside; NaN on ignored pixels; infinite beyond the reach of the profile, which
        is four band widths, as no number needs more.
        """
        reach = largest_square(PROFILE_BANDS * self.band)
        inside = self._to_rest
        outside = self._to_region
        signed = torch.where(
            self._inside,
            torch.where(inside > reach, -torch.inf, -inside.float().sqrt()),
            torch.where(outside > reach, torch.inf, outside.float().sqrt()),
        )
        signed = signed.masked_fill(~self.valid, torch.nan)
        return self._per_map(signed).reshape(self.batch, -1, *self.spatial)

    @cached_property
    def zones(self) -> Tensor:
        """``(B, T, N)`` uint8: each pixel's zone by signed distance, ``ZONES`` where ignored.

        Zone 0 lies deeper inside than four bands, zones 1 to 16 are the profile's bins, each
        half a band wide, and zone 17 lies farther outside than four bands. A bin outside holds
        the distances (lower, upper], and a bin inside mirrors it, so that the two bins next to
        the contour make up the band exactly.
        """
        edges = torch.tensor(
            [largest_square(self.band * (k + 1) / _PER_BAND) for k in range(_SIDE)],
            device=self.device,
        )
        depth = torch.bucketize(self._to_rest.long(), edges, out_int32=True)
        height = torch.bucketize(self._to_region.long(), edges, out_int32=True)
        zone = torch.where(self._inside, _SIDE - depth, _SIDE + 1 + height)
        zone = torch.where(self.valid, zone, ZONES).to(torch.uint8)
        return self._per_map(zone)

    @cached_property
    def zone_pixels(self) -> Tensor:
        """``(B, T, ZONES)`` int64: how many pixels each zone has."""
        index = self.zones.long()
        counts = torch.zeros(*index.shape[:2], ZONES + 1, dtype=torch.int64, device=self.device)
        return counts.scatter_add_(2, index, torch.ones_like(index))[..., :ZONES]

    @cached_property
    def near_truth(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels at most the tolerance away from the class."""
        return self._per_map(self._to_region <= largest_square(self.tolerance))

    @cached_property
    def near_prediction(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels at most the tolerance away from the predicted class."""
        squared = self._squared_distance_to(self._predicted_inside, math.ceil(self.tolerance))
        return self._per_map(squared <= largest_square(self.tolerance))
