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
REGIONS = 2
"""Outside and inside the predicted class."""


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
        The predicted class indices, shape and device of ``truth``; or, where classes don't
        exclude one another, ``(B, C, H, W)`` or ``(B, C, D, H, W)`` bool, whether each is
        predicted. Only the overlap with the prediction needs it.
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
        several = prediction is not None and prediction.dtype == torch.bool
        if prediction is not None:
            shape = truth.shape
            if several:
                shape = torch.Size((shape[0], num_classes, *shape[1:]))
            else:
                require_labels("prediction", prediction, num_classes, lowest=0)
            if prediction.shape != shape:
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
        self.prediction: Tensor | None = None
        if prediction is not None:
            self.prediction = prediction.flatten(2) if several else prediction.flatten(1).long()
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
    def all_valid(self) -> bool:
        """Whether no pixel is ignored."""
        return bool(self.valid.all())

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
        if self.prediction.dtype == torch.bool:
            return self.prediction[:, list(self._distinct)] & self.valid
        return (self.prediction[:, None] == self._class_column()) & self.valid

    @cached_property
    def truth_pixels(self) -> Tensor:
        """``(B, T)`` int64: the size of each map's class in the truth."""
        return self.inside.sum(-1)

    @cached_property
    def predicted_pixels(self) -> Tensor:
        """``(B, T)`` int64: the size of each map's class in the prediction."""
        return self.predicted_inside.sum(-1)

    @cached_property
    def present(self) -> Tensor:
        """``(B, T)`` bool: whether the truth holds the class."""
        return self.truth_pixels > 0

    @cached_property
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
        """Squared distance of the class's pixels to those of the others, (B, K, N) or (B, 1, N)."""
        if len(self._distinct) < self.num_classes:
            return self._squared_distance_to(self.valid & ~self._inside, self._profile_reach)
        # Where every class's region is known, the nearest of another class is the rest's nearest.
        beyond = torch.iinfo(self._to_region.dtype).max
        return self._to_region.masked_fill(self._inside, beyond).amin(1, keepdim=True)

    @cached_property
    def _signed_square(self) -> Tensor:
        """Squared distance to the contour, negative inside, (B, K, N); no more than the reach's."""
        beyond = largest_square(PROFILE_BANDS * self.band) + 1
        return torch.where(
            self._inside, -self._to_rest.clamp(max=beyond), self._to_region.clamp(max=beyond)
        )

    @cached_property
    def signed_distance(self) -> Tensor:
        """``(B, T, *spatial)`` float32, in pixels: the signed distance to the contour.

        Negative inside; NaN on ignored pixels; infinite beyond the reach of the profile, which
        is four band widths, as no number needs more.
        """
        square = self._signed_square.float()
        root = square.abs().sqrt()
        reach = largest_square(PROFILE_BANDS * self.band)
        signed = torch.where(square.abs() > reach, torch.inf, root).copysign(square)
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
        beyond = largest_square(PROFILE_BANDS * self.band) + 1
        ring = torch.bucketize(torch.arange(beyond + 1, device=self.device), edges)
        # By signed square from -beyond to beyond; no pixel is at 0 from the other side.
        table = torch.cat((_SIDE - ring.flip(0), _SIDE + 1 + ring[1:])).to(torch.uint8)
        zone = table.take(self._signed_square.long().add_(beyond))
        if not self.all_valid:
            zone = zone.masked_fill_(~self.valid, ZONES)
        return self._per_map(zone)

    @property
    def bin_count(self) -> int:
        """How many :attr:`bins` there are, those of ignored pixels among them."""
        return (ZONES + 1) * (self.num_classes + 1) * REGIONS

    @cached_property
    def bins(self) -> Tensor:
        """``(B, T, N)`` int64: each pixel's zone, true class and prediction in one number.

        ``(zone * (C + 1) + class) * 2``, and 1 more where the pixel is predicted as the map's
        class; ignored pixels have the zone ``ZONES`` and the class C. Every sum of a map over a
        zone or region is one of these bins' sums.
        """
        truth = torch.where(self.truth < 0, self.num_classes, self.truth)[:, None]
        bins = self.zones.long().mul_(self.num_classes + 1).add_(truth).mul_(REGIONS)
        return bins if self.prediction is None else bins.add_(self.predicted_inside)

    @cached_property
    def membership(self) -> Tensor:
        """``(B, T, N)`` int32: 2 in the class's truth, 1 in its prediction, 3 in both."""
        inside = self.inside.int().mul_(2)
        return inside if self.prediction is None else inside.add_(self.predicted_inside)

    @cached_property
    def zone_pixels(self) -> Tensor:
        """``(B, T, ZONES)`` int64: how many pixels each zone has."""
        counts = torch.zeros(*self.bins.shape[:2], self.bin_count, dtype=torch.int64,
                             device=self.device)  # fmt: skip
        counts.scatter_add_(2, self.bins, torch.ones_like(self.bins[:1, :1]).expand_as(self.bins))
        return counts.view(*counts.shape[:2], ZONES + 1, -1).sum(-1)[..., :ZONES]

    @cached_property
    def near_truth(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels at most the tolerance away from the class."""
        return self._per_map(self._to_region <= largest_square(self.tolerance))

    @cached_property
    def near_prediction(self) -> Tensor:
        """``(B, T, N)`` bool: the pixels at most the tolerance away from the predicted class."""
        squared = self._squared_distance_to(self._predicted_inside, math.ceil(self.tolerance))
        return self._per_map(squared <= largest_square(self.tolerance))
