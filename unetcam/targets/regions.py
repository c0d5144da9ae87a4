"""Scores over the whole image, over what is predicted, and over places that the caller names."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from operator import index

import torch
from torch import Tensor

from unetcam.errors import TargetError
from unetcam.targets.base import RegionScore
from unetcam.targets.channels import predicted_as


@dataclass(frozen=True, eq=False)
class ClassScore(RegionScore):
    """The mean score of a class over all pixels of the image.

    With ``within=`` over the pixels of any other target, or of a mask; an image that has none of
    them has no map: NaN.

    Parameters
    ----------
    class_index : int
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])  # (1, 2, 1, 2)
    >>> ClassScore(1).score(logits).value
    tensor([4.])
    >>> ClassScore(0, within=PredictedRegion(1)).score(logits).value
    tensor([3.])
    """

    @property
    def title(self) -> str:
        return f"class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor | None:
        return None


@dataclass(frozen=True, eq=False)
class PredictedRegion(RegionScore):
    """The mean score of a class over the pixels that the network gives to it.

    An image in which the class is not predicted has no map: NaN.

    Parameters
    ----------
    class_index : int
    on, head, within
        See :class:`RegionScore`.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> PredictedRegion(1).score(logits).value
    tensor([8.])
    """

    @property
    def title(self) -> str:
        return f"predicted region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor:
        return predicted_as(logits, self.class_index, self.reading)


@dataclass(frozen=True, eq=False)
class Pixel(RegionScore):
    """The score of a class at one pixel.

    A pixel always exists; one outside the logits is a mistake.

    Parameters
    ----------
    class_index : int
    y, x : int
        Row and column in the logits, from zero.
    z : int, optional
        The first spatial index of a volume.
    on, head, within
        See :class:`RegionScore`.

    Raises
    ------
    TargetError
        For a pixel outside the logits, or with as many coordinates as they do not have.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> Pixel(0, y=0, x=1).score(logits).value
    tensor([3.])
    """

    _: KW_ONLY
    y: int
    x: int
    z: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in ("z", "y", "x"):
            given = getattr(self, axis)
            if given is None and axis == "z":
                continue
            try:
                self._set(axis, index(given))
            except TypeError:
                raise TargetError(
                    f"{axis}={given!r} is no index of a pixel: give a whole number, from zero."
                ) from None

    @property
    def _index(self) -> tuple[int, ...]:
        return (self.y, self.x) if self.z is None else (self.z, self.y, self.x)

    @property
    def title(self) -> str:
        return f"class {self.class_index} at {self.region_name}"

    @property
    def region_name(self) -> str:
        return f"pixel {self._index}"

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        size = tuple(logits.shape[2:])
        if len(size) != len(self._index):
            needed = "z, y and x" if len(size) == 3 else "y and x"
            raise TargetError(
                f"Target '{self.name}' has {len(self._index)} coordinates, but the logits have "
                f"{len(size)} spatial dimensions: give {needed}."
            )
        if any(not 0 <= i < n for i, n in zip(self._index, size, strict=True)):
            raise TargetError(
                f"Target '{self.name}' lies outside the logits, which have the size {size}."
            )

    def region(self, logits: Tensor) -> Tensor:
        inside = torch.zeros(logits.shape[2:], dtype=torch.bool, device=logits.device)
        inside[self._index] = True
        return inside


@dataclass(frozen=True, eq=False)
class Box(RegionScore):
    """The mean score of a class over a rectangle, or over a cuboid of a volume.

    A box always holds a pixel; one that does not lie inside the logits is a mistake.

    Parameters
    ----------
    class_index : int
    y, x : tuple of int
        The first row and column, from zero, and those behind the last, as in a slice.
    z : tuple of int, optional
        The same of a volume's first spatial axis.
    on, head, within
        See :class:`RegionScore`.

    Raises
    ------
    TargetError
        For a box without a pixel, one that reaches outside the logits, or one with as many ranges
        as they do not have axes.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0, 7.0]], [[0.0, 8.0, 9.0]]]])
    >>> Box(0, y=(0, 1), x=(1, 3)).score(logits).value
    tensor([5.])
    """

    _: KW_ONLY
    y: tuple[int, int]
    x: tuple[int, int]
    z: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for axis in ("z", "y", "x"):
            given = getattr(self, axis)
            if given is None and axis == "z":
                continue
            try:
                first, end = (index(edge) for edge in given)
            except (TypeError, ValueError):
                raise TargetError(
                    f"{axis}={given!r} is no range of a box: give the first index and the one "
                    "behind the last, as in (10, 20)."
                ) from None
            if not 0 <= first < end:
                raise TargetError(
                    f"{axis}={given!r} holds no pixel: give the first index, from 0, and the one "
                    "behind the last."
                )
            self._set(axis, (first, end))

    @property
    def _ranges(self) -> tuple[tuple[int, int], ...]:
        return (self.y, self.x) if self.z is None else (self.z, self.y, self.x)

    @property
    def title(self) -> str:
        return f"class {self.class_index} in {self.region_name}"

    @property
    def region_name(self) -> str:
        axes = zip("zyx"[-len(self._ranges) :], self._ranges, strict=True)
        return f"box {' '.join(f'{axis} {first}:{end}' for axis, (first, end) in axes)}"

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        size = tuple(logits.shape[2:])
        if len(size) != len(self._ranges):
            needed = "z, y and x" if len(size) == 3 else "y and x"
            raise TargetError(
                f"Target '{self.name}' has {len(self._ranges)} ranges, but the logits have "
                f"{len(size)} spatial dimensions: give {needed}."
            )
        if any(end > n for (_, end), n in zip(self._ranges, size, strict=True)):
            raise TargetError(
                f"Target '{self.name}' reaches outside the logits, which have the size {size}."
            )

    def region(self, logits: Tensor) -> Tensor:
        inside = torch.zeros(logits.shape[2:], dtype=torch.bool, device=logits.device)
        inside[tuple(slice(first, end) for first, end in self._ranges)] = True
        return inside
