"""What is explained: a scalar per image, made of its logits over a region of pixels.

A target is a named, frozen value. It is given the logits of a batch and answers with one score
per image, the *mean* over its region, and with the images in which that region exists at all.

One channel of logits stands for two classes: class 1 is the foreground (the logit), class 0 the
background (its negation).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.errors import TargetError

__all__ = [
    "ClassScore",
    "Pixel",
    "PredictedRegion",
    "Region",
    "Scale",
    "Score",
    "Target",
    "TruthRegion",
    "class_count",
    "predict",
]

Scale = Literal["logits", "probability", "log_probability"]


def class_count(logits: Tensor) -> int:
    """Number of classes: the logit channels, and two for a one-channel output.

    >>> class_count(torch.zeros(1, 1, 4, 4)), class_count(torch.zeros(1, 5, 4, 4))
    (2, 5)
    """
    return max(2, logits.shape[1])


def predict(logits: Tensor) -> Tensor:
    """The predicted class of every pixel.

    Parameters
    ----------
    logits : Tensor
        (B, C, *spatial); with C = 1 a pixel is foreground where its logit is above zero.

    Returns
    -------
    Tensor
        (B, *spatial), int64, on the logits' device.

    Examples
    --------
    >>> predict(torch.tensor([[[[-1.0, 2.0]]]]))
    tensor([[[0, 1]]])
    """
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(dim=1)


def class_scores(logits: Tensor, class_index: int, on: Scale) -> Tensor:
    """The per-pixel score of one class, (B, *spatial), in at least single precision."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    if logits.shape[1] == 1:
        signed = logits[:, 0] if class_index == 1 else -logits[:, 0]
        if on == "logits":
            return signed
        return torch.sigmoid(signed) if on == "probability" else F.logsigmoid(signed)
    if on == "probability":
        logits = logits.softmax(dim=1)
    elif on == "log_probability":
        logits = logits.log_softmax(dim=1)
    return logits[:, class_index]


@dataclass(frozen=True)
class Score:
    """What a target makes of a batch of logits.

    Attributes
    ----------
    value : Tensor
        (B,) differentiable; zero, without a gradient, where the region does not exist.
    defined : Tensor
        (B,) bool: whether the region exists in the image.
    channel : int, optional
        The one channel of the logits that the value depends on, where it is one.
    """

    value: Tensor
    defined: Tensor
    channel: int | None = None


@dataclass(frozen=True, eq=False)
class Target(ABC):
    """A scalar per image: the mean of one class's score over a region of pixels.

    Parameters
    ----------
    class_index : int
        The class whose score is explained.
    on : {"logits", "probability", "log_probability"}
        What is averaged. Probabilities are a softmax over the channels, or a sigmoid for a
        one-channel output.
    """

    class_index: int
    _: KW_ONLY
    on: Scale = "logits"

    #: Whether an image without the region is the caller's mistake, or simply has no map (NaN).
    must_exist = False

    def __post_init__(self) -> None:
        if self.on not in get_args(Scale):
            raise TargetError(
                f"on={self.on!r} is no scale of a score: use one of {', '.join(get_args(Scale))}."
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for tables and files' titles."""

    @abstractmethod
    def region(self, logits: Tensor) -> Tensor | None:
        """The pixels, (B, *spatial) or (*spatial) bool on the logits' device; None means all."""

    def check(self, logits: Tensor) -> None:
        """Raise :class:`~unetcam.errors.TargetError` where this target can't apply to `logits`."""
        count = class_count(logits)
        if not isinstance(self.class_index, (int, np.integer)):
            raise TargetError(
                f"A class is a whole number from 0 to {count - 1}, and this target asks for "
                f"{self.class_index!r}: give the class's index."
            )
        if not 0 <= self.class_index < count:
            raise TargetError(
                f"Target '{self.name}' asks for class {self.class_index}, but the network gives "
                f"{count} classes: use 0 to {count - 1}."
            )

    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        """Mean score over the region, for every image of the batch.

        Parameters
        ----------
        logits : Tensor
            (B, C, *spatial).
        reference : Tensor, optional
            Logits that the region is read from, so that it stays the same while the image is
            perturbed; `logits` by default.
        """
        values = class_scores(logits, self.class_index, self.on).flatten(1)
        region = self.region(logits if reference is None else reference)
        alone = self.on == "logits" and logits.shape[1] > 1
        channel = self.class_index if alone else None
        if region is None:
            present = torch.ones(len(values), dtype=torch.bool, device=values.device)
            return Score(values.mean(dim=1), present, channel)
        inside = region.expand(logits.shape[0], *logits.shape[2:]).flatten(1)
        count = inside.sum(dim=1)
        total = torch.where(inside, values, torch.zeros_like(values)).sum(dim=1)
        return Score(total / count.clamp(min=1), count > 0, channel)


@dataclass(frozen=True)
class ClassScore(Target):
    """The mean score of a class over all pixels of the image.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])  # (1, 2, 1, 2)
    >>> ClassScore(1).score(logits).value
    tensor([4.])
    """

    @property
    def name(self) -> str:
        return f"class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor | None:
        return None


@dataclass(frozen=True)
class PredictedRegion(Target):
    """The mean score of a class over the pixels that the network gives to it.

    An image in which the class is not predicted has no map: NaN.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> PredictedRegion(1).score(logits).value
    tensor([8.])
    """

    @property
    def name(self) -> str:
        return f"predicted region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor | None:
        return predict(logits.detach()) == self.class_index


@dataclass(frozen=True)
class Pixel(Target):
    """The score of a class at one pixel.

    Parameters
    ----------
    class_index : int
    y, x : int
        Row and column in the logits, from zero.
    z : int, optional
        The first spatial index of a volume.

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

    @property
    def _index(self) -> tuple[int, ...]:
        return (self.y, self.x) if self.z is None else (self.z, self.y, self.x)

    @property
    def name(self) -> str:
        return f"class {self.class_index} at pixel {self._index}"

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

    def region(self, logits: Tensor) -> Tensor | None:
        inside = torch.zeros(logits.shape[2:], dtype=torch.bool, device=logits.device)
        inside[self._index] = True
        return inside


@dataclass(frozen=True, eq=False)
class _Masked(Target):
    """A target whose region stands in an array of the logits' spatial size."""

    mask: Tensor

    def __init__(self, class_index: int, mask: ArrayLike | Tensor, *, on: Scale = "logits") -> None:
        object.__setattr__(self, "class_index", class_index)
        object.__setattr__(self, "on", on)
        tensor = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
        object.__setattr__(self, "mask", tensor)
        self.__post_init__()

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        size, batch = tuple(logits.shape[2:]), logits.shape[0]
        shape = tuple(self.mask.shape)
        if shape not in (size, (1, *size), (batch, *size)):
            raise TargetError(
                f"The mask of target '{self.name}' has the shape {shape}, but the logits need "
                f"{size}, or {(batch, *size)} for one mask an image: resize it with nearest "
                "neighbour."
            )


class Region(_Masked):
    """The mean score of a class over the pixels of a mask.

    Parameters
    ----------
    class_index : int
    mask : array_like or Tensor
        (*spatial) for all images alike or (B, *spatial), of the logits' size; a pixel belongs to
        the region where it is not zero.
    on : {"logits", "probability", "log_probability"}

    Raises
    ------
    TargetError
        For a mask of another shape, and for one without a pixel.

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> Region(0, [[1, 0]]).score(logits).value
    tensor([1.])
    """

    must_exist = True

    @property
    def name(self) -> str:
        return f"class {self.class_index} in a region"

    def region(self, logits: Tensor) -> Tensor | None:
        return self.mask.to(logits.device) != 0


class TruthRegion(_Masked):
    """The mean score of a class over the pixels that truly belong to it.

    An image in which the class does not occur has no map: NaN.

    Parameters
    ----------
    class_index : int
    mask : array_like or Tensor
        The ground truth: class indices, (*spatial) or (B, *spatial), of the logits' size.
    on : {"logits", "probability", "log_probability"}

    Examples
    --------
    >>> logits = torch.tensor([[[[1.0, 3.0]], [[0.0, 8.0]]]])
    >>> TruthRegion(1, [[1, 0]]).score(logits)
    Score(value=tensor([0.]), defined=tensor([True]), channel=1)
    >>> TruthRegion(1, [[0, 0]]).score(logits).defined
    tensor([False])
    """

    @property
    def name(self) -> str:
        return f"true region of class {self.class_index}"

    def region(self, logits: Tensor) -> Tensor | None:
        return self.mask.to(logits.device) == self.class_index


def check_targets(targets: Sequence[Target], logits: Tensor) -> None:
    """Check all targets before the first backward, so that a mistake costs no time."""
    if not targets:
        raise TargetError("There is nothing to explain: give at least one target.")
    for target in targets:
        if not isinstance(target, Target):
            raise TargetError(
                f"{target!r} is no target: use those of unetcam.targets, as ClassScore(1)."
            )
        target.check(logits)


def check_existing(targets: Sequence[Target], defined: Tensor) -> None:
    """Raise for a region that the caller gave and that holds no pixel; `defined` is (B, T)."""
    required = [index for index, target in enumerate(targets) if target.must_exist]
    if not required:
        return
    for image, found in enumerate(defined[:, required].tolist()):
        if not all(found):
            target = targets[required[found.index(False)]]
            raise TargetError(
                f"The mask of target '{target.name}' is empty for image {image}: give at least "
                "one pixel, or leave the target out."
            )
