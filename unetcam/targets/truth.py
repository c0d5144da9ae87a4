"""Scores over what truly belongs to a class, and over what the network gets wrong."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import KW_ONLY, dataclass, field
from typing import cast

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.errors import TargetError
from unetcam.morphology import label_components
from unetcam.targets.base import RegionScore, as_mask, both, spread
from unetcam.targets.channels import Head, class_count, is_multi_label, predicted_as
from unetcam.targets.shapes import band_of, checked_width


def truly_of(truth: Tensor, class_index: int, logits: Tensor, head: Head) -> Tensor:
    """The pixels that truly are of a class, (*spatial) or (B, *spatial) bool."""
    if is_multi_label(logits, head):
        return truth.select(truth.ndim - logits.ndim + 1, class_index) > 0
    return truth == class_index


def not_ignored(truth: Tensor, class_index: int, logits: Tensor, head: Head) -> Tensor:
    """The pixels whose truth is known for a class, (*spatial) or (B, *spatial) bool."""
    if is_multi_label(logits, head):
        truth = truth.select(truth.ndim - logits.ndim + 1, class_index)
    return truth >= 0


def check_values(truth: Tensor, highest: int, name: str, meaning: str) -> None:
    """Raise for a truth whose values say nothing."""
    numbers = truth.byte() if truth.dtype == torch.bool else truth
    low, high = torch.stack(torch.aminmax(numbers)).tolist()  # the device waits once
    if low < -1 or high > highest:
        raise TargetError(
            f"The truth of target '{name}' holds the value {low if low < -1 else high:g}: use "
            f"{meaning}, and -1 for pixels that are to be ignored."
        )


class AgainstTruth(RegionScore):
    """A target that knows the ground truth.

    The truth holds class indices, (*spatial) or (B, *spatial), of the logits' size; with
    ``head="sigmoid"`` and several channels it holds 1 where a pixel is of a class and 0 where it
    is not, (C, *spatial) or (B, C, *spatial). Pixels of -1 are ignored: they count nowhere.
    """

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """The ground truth, as it was given."""

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        multi = is_multi_label(logits, self.reading)
        self._check_size(self.labels, logits, channels=(logits.shape[1],) if multi else ())
        highest = 1 if multi else class_count(logits) - 1
        meaning = "1 and 0 for each class" if multi else f"classes 0 to {highest}"
        check_values(self.labels, highest, self.name, meaning)

    def counted(self, logits: Tensor) -> Tensor | None:
        known = not_ignored(self._there(logits), self.class_index, logits, self.reading)
        return both(known, super().counted(logits))

    def _there(self, logits: Tensor) -> Tensor:
        return self.labels.to(logits.device)

    def _missed(self, logits: Tensor, class_index: int) -> Tensor:
        """(B, *spatial) bool: truly of the class, and not predicted as it."""
        true = truly_of(self._there(logits), class_index, logits, self.reading)
        return true & ~predicted_as(logits, class_index, self.reading)

    def _made_up(self, logits: Tensor, class_index: int) -> Tensor:
        """(B, *spatial) bool: predicted as the class, and not truly of it."""
        truth = self._there(logits)
        known = not_ignored(truth, class_index, logits, self.reading)
        false = known & ~truly_of(truth, class_index, logits, self.reading)
        return false & predicted_as(logits, class_index, self.reading)


@dataclass(frozen=True, eq=False)
class TruthRegion(AgainstTruth):
    """The mean score of a class over the pixels that truly belong to it.

    An image in which the class does not occur has no map: NaN.

    Parameters
    ----------
    class_index : int
    mask : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> TruthRegion(1, [[1, 0]]).score(logits)
    Score(value=tensor([0.]), defined=tensor([True]), channel=1, everywhere=False, ...)
    >>> TruthRegion(1, [[0, 0]]).score(logits).defined
    tensor([False])
    """

    mask: Tensor | ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("mask", as_mask(self.mask))

    @property
    def labels(self) -> Tensor:
        return cast(Tensor, self.mask)

    @property
    def title(self) -> str:
        return f"true region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return truly_of(self._there(logits), self.class_index, logits, self.reading)


@dataclass(frozen=True, eq=False)
class _Mistake(AgainstTruth):
    """An error of one class."""

    truth: Tensor | ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("truth", as_mask(self.truth))

    @property
    def labels(self) -> Tensor:
        return cast(Tensor, self.truth)


@dataclass(frozen=True, eq=False)
class FalsePositives(_Mistake):
    """What speaks for a class where it is made up.

    The mean score of the class over the pixels that are predicted as the class and truly are of
    another. The map shows the evidence that misled the network. Why the class won over another
    one is a matter of ``Contrast(class_index, other, within=FalsePositives(...))``.

    An image without such a pixel has no map: NaN.

    Parameters
    ----------
    class_index : int
    truth : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0, 0.0]], [[2.0, 8.0, 5.0]]]])
    >>> FalsePositives(1, [[0, 1, -1]]).score(logits).value
    tensor([2.])
    """

    @property
    def title(self) -> str:
        return f"false positives of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return self._made_up(logits, self.class_index)


@dataclass(frozen=True, eq=False)
class FalseNegatives(_Mistake):
    """What speaks for a class where it is missed.

    The mean score of the class over the pixels that truly are of the class and are not predicted
    as it. The map shows what evidence there was, though not enough; an empty one says that there
    was none. What won instead is a matter of ``Contrast(other, class_index,
    within=FalseNegatives(...))``.

    An image without such a pixel has no map: NaN.

    Parameters
    ----------
    class_index : int
    truth : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0, 0.0]], [[2.0, 8.0, 5.0]]]])
    >>> FalseNegatives(0, [[0, 1, -1]]).score(logits).value
    tensor([1.])
    """

    @property
    def title(self) -> str:
        return f"false negatives of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return self._missed(logits, self.class_index)


@dataclass(frozen=True, eq=False)
class BoundaryErrors(_Mistake):
    """What speaks for a class where its boundary is drawn wrongly.

    The mean score of the class over its false positives and false negatives that lie in the band
    along the true contour: at most `width` away from the other side of it, counted between
    pixels' centres. Where the image or the known truth ends there is no contour.

    An image without such a pixel has no map: NaN.

    Parameters
    ----------
    class_index : int
    truth : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    width : float, optional
        In pixels of the logits, at least 1; 2 % of the image's diagonal, and at least 1, by
        default.
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[0.0] * 5], [[-1.0, -2.0, 3.0, 4.0, 5.0]]]])
    >>> BoundaryErrors(1, [[0, 0, 0, 1, 1]]).score(logits).value
    tensor([3.])
    """

    _: KW_ONLY
    width: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("width", checked_width(self.width))

    @property
    def title(self) -> str:
        return f"boundary errors of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        c = self.class_index
        true = truly_of(self._there(logits), c, logits, self.reading)
        inner, outer = band_of(true, self.counted(logits), logits, self.width)
        return (inner | outer) & (self._missed(logits, c) | self._made_up(logits, c))


@dataclass(frozen=True, eq=False)
class MissedComponents(_Mistake):
    """What speaks for a class in its objects that are missed altogether.

    The mean score of the class over those connected components of its true region of which no
    pixel is predicted as the class. Pixels that share a face, an edge or a corner are connected.

    An image without such a component has no map: NaN.

    Parameters
    ----------
    class_index : int
    truth : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[0.0] * 5], [[-1.0, -2.0, -3.0, -4.0, 5.0]]]])
    >>> MissedComponents(1, [[1, 1, 0, 1, 1]]).score(logits).value  # the other one is met
    tensor([-1.5000])
    """

    @property
    def title(self) -> str:
        return f"missed components of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        true = truly_of(self._there(logits), self.class_index, logits, self.reading)
        labels = label_components(spread(true, logits)).flatten(1)
        met = predicted_as(logits, self.class_index, self.reading).flatten(1)
        hits = labels.new_zeros(len(labels), int(labels.max()) + 1)
        hits.scatter_add_(1, labels, met.long())
        missed = (labels > 0) & (hits.gather(1, labels) == 0)
        return missed.view(len(logits), *logits.shape[2:])


@dataclass(frozen=True, eq=False)
class Confusion(AgainstTruth):
    """What speaks for one class where it is taken for another.

    The mean score of the *predicted* class over the pixels that truly are of one class, are not
    predicted as it, and are predicted as the other, which they are not. Why it won over the true
    class is a matter of ``Contrast(predicted, truth, within=Confusion(...))``.

    An image without such a pixel has no map: NaN.

    Parameters
    ----------
    truth : int
        The class that the pixels truly are of.
    predicted : int
        The class that they are given: the one whose score is explained.
    mask : array_like or Tensor
        The ground truth: see :class:`AgainstTruth`.
    on, head, within
        See :class:`RegionScore`.

    Raises
    ------
    TargetError
        For a class that is taken for itself.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0, 0.0]], [[2.0, 8.0, 5.0]]]])
    >>> Confusion(truth=0, predicted=1, mask=[[0, 1, -1]]).score(logits).value
    tensor([2.])
    """

    class_index: int = field(init=False, repr=False)
    truth: int
    predicted: int
    mask: Tensor | ArrayLike

    def __post_init__(self) -> None:
        self._set("class_index", self.predicted)
        super().__post_init__()
        self._set("mask", as_mask(self.mask))
        if self.truth == self.predicted:
            raise TargetError(
                f"Class {self.truth} can't be confused with itself: give another class as "
                "predicted=."
            )

    @property
    def labels(self) -> Tensor:
        return cast(Tensor, self.mask)

    @property
    def title(self) -> str:
        return f"class {self.truth} taken for class {self.predicted}"

    def check(self, logits: Tensor) -> None:
        self._check_class(self.truth, logits)
        super().check(logits)

    def region(self, logits: Tensor) -> Tensor:
        return self._missed(logits, self.truth) & self._made_up(logits, self.predicted)
