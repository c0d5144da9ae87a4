"""Every question as a torchmetrics class: means per class over a data set, with their support."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unetcam.errors import MeasureError
from unetcam.measures.background import background_names, background_numbers
from unetcam.measures.boundary import BOUNDARY_NAMES, boundary_numbers
from unetcam.measures.checks import require_threshold
from unetcam.measures.concentration import CONCENTRATION_NAMES, concentration_numbers
from unetcam.measures.map_stats import MapStats, by_blocks
from unetcam.measures.overlap import OVERLAP_NAMES, overlap_numbers
from unetcam.measures.regions import Geometry

_EMPTY = "empty"


class PerClassMean(Metric):
    """Means per class over all maps seen, each with the number of maps it stands on.

    A number that is NaN for a map (absent class, empty or unknown map) is left out of its
    mean and of its support; a class without support has the mean NaN.

    The states are sums, so processes are joined by adding them: ``total`` ``(M, C)`` float64,
    ``support`` ``(M, C)`` int64 and ``empty`` ``(C,)`` int64 for M numbers and C classes.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    names : sequence of str
        The M numbers of the question.
    **kwargs
        Of :class:`torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False

    total: Tensor
    support: Tensor
    empty: Tensor

    def __init__(self, num_classes: int, names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_classes < 1:
            raise MeasureError(f"num_classes is {num_classes}: give the number of classes.")
        self.num_classes = num_classes
        self.names = tuple(names)
        shape = (len(self.names), num_classes)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("support", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("empty", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def _measure(
        self,
        maps: Tensor,
        geometry: Geometry,
        numbers: Callable[[MapStats], Mapping[str, Tensor]],
    ) -> None:
        """Add the numbers of maps (B, T, *spatial) to their classes."""
        values = by_blocks(maps, geometry, lambda stats: {**numbers(stats), _EMPTY: stats.empty})
        index = torch.tensor(geometry.classes, device=self.total.device)
        rows = torch.stack([values[name] for name in self.names])
        known = ~rows.isnan()
        self.total.index_add_(1, index, rows.masked_fill(~known, 0.0).sum(1))
        self.support.index_add_(1, index, known.sum(1))
        self.empty.index_add_(0, index, values[_EMPTY].sum(0))

    def compute(self) -> dict[str, Tensor]:
        """The means and supports so far.

        Returns
        -------
        dict of str to Tensor
            For every number its mean ``(C,)`` float64 under its name and the maps it stands on,
            ``(C,)`` int64, under ``{name}_support``; and ``empty``, ``(C,)`` int64, how many
            maps held no positive evidence.
        """
        means = self.total / self.support
        columns: dict[str, Tensor] = {}
        for i, name in enumerate(self.names):
            columns[name] = means[i]
            columns[f"{name}_support"] = self.support[i]
        columns[_EMPTY] = self.empty
        return columns


class BoundaryActivation(PerClassMean):
    """Mean :func:`boundary_activation` numbers per class.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    band : float, optional
        Width of the band in pixels. Default: 2 % of each image's diagonal, at least 1.
    **kwargs
        Of :class:`torchmetrics.Metric`.

    Examples
    --------
    >>> import torch
    >>> metric = BoundaryActivation(num_classes=2)
    >>> truth = torch.tensor([[[0, 0, 0, 1, 1, 1]]])
    >>> metric.update(torch.tensor([[[[0.0, 0.0, 1.0, 4.0, 2.0, 2.0]]]]), [1], truth)
    >>> metric.compute()["boundary_ratio"]
    tensor([nan, 2.], dtype=torch.float64)
    >>> metric.compute()["boundary_ratio_support"]
    tensor([0, 1])
    """

    def __init__(self, num_classes: int, band: float | None = None, **kwargs: Any) -> None:
        super().__init__(num_classes, BOUNDARY_NAMES, **kwargs)
        self.band = band

    @torch.no_grad()
    def update(self, maps: Tensor, classes: Sequence[int], truth: Tensor) -> None:
        """Add the maps of a batch; the arguments are those of :func:`boundary_activation`."""
        geometry = Geometry(
            truth, classes, num_classes=self.num_classes, band=self.band, tolerance=0.0
        )
        self._measure(maps, geometry, boundary_numbers)


class BackgroundActivation(PerClassMean):
    """Mean :func:`background_activation` numbers per class, the leakage matrix among them.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    band : float, optional
        Width of the band in pixels. Default: 2 % of each image's diagonal, at least 1.
    spatial_dims : int
        2 for images, 3 for volumes.
    **kwargs
        Of :class:`torchmetrics.Metric`.

    Examples
    --------
    >>> import torch
    >>> metric = BackgroundActivation(num_classes=2)
    >>> truth = torch.tensor([[[0, 0, 0, 0, 1, 1]]])
    >>> metric.update(torch.tensor([[[[3.0, 0.0, 0.0, 1.0, 4.0, 2.0]]]]), [1], truth)
    >>> metric.compute()["outside_share"]
    tensor([   nan, 0.4000], dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        band: float | None = None,
        spatial_dims: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, background_names(num_classes, spatial_dims), **kwargs)
        self.band = band

    @torch.no_grad()
    def update(self, maps: Tensor, classes: Sequence[int], truth: Tensor) -> None:
        """Add the maps of a batch; the arguments are those of :func:`background_activation`."""
        geometry = Geometry(
            truth, classes, num_classes=self.num_classes, band=self.band, tolerance=0.0
        )
        self._measure(maps, geometry, background_numbers)


class MapOverlap(PerClassMean):
    """Mean :func:`map_overlap` numbers per class.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    threshold : float
        The fixed threshold, a share of the map's maximum, in (0, 1].
    tolerance : float
        The pointing game's tolerance, in pixels.
    **kwargs
        Of :class:`torchmetrics.Metric`.

    Examples
    --------
    >>> import torch
    >>> metric = MapOverlap(num_classes=2)
    >>> truth = torch.tensor([[[0, 0, 1, 1]]])
    >>> metric.update(torch.tensor([[[[0.0, 3.0, 4.0, 1.0]]]]), [1], truth, truth)
    >>> metric.compute()["truth_energy"]
    tensor([   nan, 0.6250], dtype=torch.float64)
    """

    def __init__(
        self, num_classes: int, threshold: float = 0.5, tolerance: float = 15.0, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, OVERLAP_NAMES, **kwargs)
        self.threshold = require_threshold(threshold)
        self.tolerance = tolerance

    @torch.no_grad()
    def update(
        self, maps: Tensor, classes: Sequence[int], truth: Tensor, prediction: Tensor
    ) -> None:
        """Add the maps of a batch; the arguments are those of :func:`map_overlap`."""
        geometry = Geometry(
            truth, classes, prediction, num_classes=self.num_classes, tolerance=self.tolerance
        )
        self._measure(maps, geometry, lambda stats: overlap_numbers(stats, self.threshold))


class MapConcentration(PerClassMean):
    """Mean :func:`map_concentration` numbers per class.

    Parameters
    ----------
    num_classes : int
        The number of classes C.
    **kwargs
        Of :class:`torchmetrics.Metric`.

    Examples
    --------
    >>> import torch
    >>> metric = MapConcentration(num_classes=2)
    >>> truth = torch.zeros(1, 1, 4, dtype=torch.long)
    >>> metric.update(torch.tensor([[[[0.0, 0.0, 5.0, 5.0]]]]), [0], truth)
    >>> metric.compute()["effective_area"]
    tensor([0.5000,    nan], dtype=torch.float64)
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, CONCENTRATION_NAMES, **kwargs)

    @torch.no_grad()
    def update(self, maps: Tensor, classes: Sequence[int], truth: Tensor) -> None:
        """Add the maps of a batch; the arguments are those of :func:`map_concentration`."""
        geometry = Geometry(truth, classes, num_classes=self.num_classes)
        self._measure(maps, geometry, concentration_numbers)
