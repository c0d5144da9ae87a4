"""The one torchmetrics class behind every question's class: a mean per class, with support."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from unetcam.errors import MeasureError


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
            raise MeasureError(f"num_classes is {num_classes}; give the number of classes")
        self.num_classes = num_classes
        self.names = tuple(names)
        shape = (len(self.names), num_classes)
        self.add_state("total", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("support", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("empty", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def _add(self, classes: Sequence[int], values: Mapping[str, Tensor], empty: Tensor) -> None:
        """Add the numbers ``(B, T)`` of T maps per image to their classes."""
        index = torch.tensor(list(classes), device=self.total.device)
        numbers = torch.stack([values[name] for name in self.names])
        known = ~numbers.isnan()
        self.total.index_add_(1, index, numbers.masked_fill(~known, 0.0).sum(1))
        self.support.index_add_(1, index, known.sum(1))
        self.empty.index_add_(0, index, empty.sum(0))

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
        found: dict[str, Tensor] = {}
        for i, name in enumerate(self.names):
            found[name] = means[i]
            found[f"{name}_support"] = self.support[i]
        found["empty"] = self.empty
        return found
