"""Scores over one connected component of a region, and over the band along its contour."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal, cast, get_args

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.errors import TargetError
from unetcam.morphology import contour_bands, default_width, label_components
from unetcam.targets.base import RegionScore, as_region, both, require, spread
from unetcam.targets.regions import PredictedRegion

Side = Literal["both", "inner", "outer"]


@dataclass(frozen=True, eq=False)
class _Shaped(RegionScore):
    """A target whose region is made of another's."""

    _: KW_ONLY
    of: RegionScore | Tensor | ArrayLike | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = self.of
        if given is None:
            given = PredictedRegion(self.class_index, head=self.head)
        self._set("of", as_region(given))

    @property
    def _source(self) -> RegionScore:
        return cast(RegionScore, self.of)

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        self._source.check(logits)

    def counted(self, logits: Tensor) -> Tensor | None:
        return both(self._source.counted(logits), super().counted(logits))

    def _inside(self, logits: Tensor) -> Tensor:
        """(B, *spatial) bool: the pixels of the region that this one is made of."""
        pixels = self._source.pixels(logits)
        if pixels is None:
            pixels = torch.ones((), dtype=torch.bool, device=logits.device)
        return spread(pixels, logits)


@dataclass(frozen=True, eq=False)
class Component(_Shaped):
    """The mean score of a class over one connected component of a region.

    Pixels that share a face, an edge or a corner are connected. The component is the largest one
    unless ``index``, ``point`` or ``rank`` says which.

    An image in which there is no such component has no map: NaN.

    Parameters
    ----------
    class_index : int
    of : RegionScore or array_like, optional
        The region: of another target, as in ``of=FalsePositives(2, truth)``, or a mask. What is
        predicted as the class by default.
    index : int, optional
        The number in raster order of the components' first pixels, from zero.
    point : tuple of int, optional
        A pixel of the component, (y, x) or (z, y, x); where it is not in the region there is no
        component.
    rank : int, optional
        The number by size, the largest being 0; of equally large ones the first in raster order
        comes first.
    on, head, within
        See :class:`RegionScore`.

    Raises
    ------
    TargetError
        For more than one choice, for a negative number, and for a point outside the logits.

    Examples
    --------
    >>> logits = torch.tensor([[[[0.0] * 5], [[1.0, 5.0, -1.0, 2.0, -1.0]]]])
    >>> Component(1).score(logits).value, Component(1, point=(0, 3)).score(logits).value
    (tensor([3.]), tensor([2.]))
    """

    _: KW_ONLY
    index: int | None = None
    point: tuple[int, ...] | None = None
    rank: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [n for n in ("index", "point", "rank") if getattr(self, n) is not None]
        if len(given) > 1:
            raise TargetError(
                f"A component is chosen by one of index, rank and point, and {' and '.join(given)} "
                "were given: leave all but one out."
            )
        if not given:
            self._set("rank", 0)
        for name in ("index", "rank"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise TargetError(f"{name}={number} is no number of a component: count from 0.")
        if self.point is not None:
            self._set("point", tuple(int(i) for i in self.point))

    @property
    def title(self) -> str:
        if self.point is not None:
            which = f"component at {self.point}"
        elif self.index is not None:
            which = f"component {self.index}"
        else:
            which = f"component {self.rank} by size" if self.rank else "largest component"
        return f"class {self.class_index} in the {which} of {self._source.region_name}"

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        size = tuple(logits.shape[2:])
        point = self.point
        if point is not None and not (
            len(point) == len(size) and all(0 <= i < n for i, n in zip(point, size, strict=True))
        ):
            raise TargetError(
                f"The point of target '{self.name}' lies outside the logits, which have the size "
                f"{size}."
            )

    def region(self, logits: Tensor) -> Tensor:
        labels = label_components(self._inside(logits))
        if self.point is not None:
            chosen = labels.permute(*range(1, labels.ndim), 0)[self.point]
        elif self.index is not None:
            chosen = torch.full_like(labels.flatten(1)[:, 0], self.index + 1)
        else:
            chosen = _by_size(labels, self.rank or 0)
        chosen = chosen.view(-1, *[1] * (labels.ndim - 1))
        return (labels == chosen) & (labels > 0)


@dataclass(frozen=True, eq=False)
class Band(_Shaped):
    """The mean score of a class along the contour of a region.

    The band holds the pixels of either side that are at most `width` away from the other side,
    between the centres of pixels, Euclidean and exact. Where the image ends there is no contour,
    and none towards pixels that a truth ignores.

    An image in which the region has no contour has no map: NaN.

    Parameters
    ----------
    class_index : int
    of : RegionScore or array_like, optional
        The region: of another target, as in ``of=TruthRegion(2, truth)``, or a mask. What is
        predicted as the class by default.
    width : float, optional
        In pixels of the logits, at least 1; 2 % of the image's diagonal, and at least 1, by
        default, as Boundary IoU has it [1]_.
    side : {"both", "inner", "outer"}
        Whether the band lies on both sides of the contour, or inside or outside the region.
    on, head, within
        See :class:`RegionScore`.

    References
    ----------
    .. [1] B. Cheng, R. Girshick, P. Dollar, A. Berg and A. Kirillov, "Boundary IoU: Improving
       Object-Centric Image Segmentation Evaluation", CVPR 2021.

    Examples
    --------
    >>> logits = torch.tensor([[[[0.0] * 5], [[-9.0, -3.0, 1.0, 2.0, 2.0]]]])
    >>> Band(1).score(logits).value, Band(1, side="inner").score(logits).value
    (tensor([-1.]), tensor([1.]))
    """

    _: KW_ONLY
    width: float | None = None
    side: Side = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("width", checked_width(self.width))
        require("side", self.side, get_args(Side), "side of a band")

    @property
    def title(self) -> str:
        which = "band" if self.side == "both" else f"{self.side} band"
        return f"class {self.class_index} in the {which} of {self._source.region_name}"

    def region(self, logits: Tensor) -> Tensor:
        counted = self._source.counted(logits)
        inner, outer = band_of(self._inside(logits), counted, logits, self.width)
        if self.side == "both":
            return inner | outer
        return inner if self.side == "inner" else outer


def band_of(
    region: Tensor, counted: Tensor | None, logits: Tensor, width: float | None
) -> tuple[Tensor, Tensor]:
    """The inner and the outer band of a region's contour, (B, *spatial) bool each."""
    inside = spread(region, logits)
    outside = ~inside if counted is None else ~inside & counted
    spatial = tuple(logits.shape[2:])
    width = default_width(spatial) if width is None else width
    return contour_bands(inside, outside, width, spatial_dims=len(spatial))


def checked_width(width: float | None) -> float | None:
    """A band's width as a number of pixels, or a refusal."""
    if width is None:
        return None
    if not (math.isfinite(width) and width >= 1):
        raise TargetError(f"A band of {width} pixels can't hold one: use a width of 1 or more.")
    return float(width)


def _by_size(labels: Tensor, rank: int) -> Tensor:
    """The label of each image's component of a rank by size; one it lacks where there are fewer."""
    flat = labels.flatten(1)
    size = flat.new_zeros(len(flat), int(flat.max()) + 1)
    size = size.scatter_add_(1, flat, torch.ones_like(flat))[:, 1:]
    if rank >= size.shape[1]:
        return flat.new_full((len(flat),), -1)
    return size.argsort(dim=1, descending=True, stable=True)[:, rank] + 1
