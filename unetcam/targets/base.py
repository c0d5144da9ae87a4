"""What a target is: a named, frozen value that makes a scalar of each image's logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from unetcam.engine.request import Score
from unetcam.errors import TargetError
from unetcam.targets.channels import Head, Scale, all_scores, class_count, is_multi_label

_WIDE_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)


class Target(ABC):
    """A scalar per image, made of its logits.

    Targets are equal where they are of one kind and all they were made of is equal; masks are
    compared pixel by pixel.
    """

    @property
    def must_exist(self) -> bool:
        """Whether an image without the region is the caller's mistake, or has no map (NaN)."""
        return False

    @property
    @abstractmethod
    def name(self) -> str:
        """A short name for tables and files' titles."""

    @abstractmethod
    def check(self, logits: Tensor) -> None:
        """Raise :class:`~unetcam.errors.TargetError` where this target can't apply to `logits`."""

    @abstractmethod
    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        """The score of every image of the batch.

        Parameters
        ----------
        logits : Tensor
            (B, C, *spatial).
        reference : Tensor, optional
            Logits that a region is read from where it is one of the prediction, so that it stays
            the same while the image is perturbed; `logits` by default.
        """

    def for_image(self, index: int) -> Target:
        """The target that stands for one image of the batch."""
        return self

    def read_by(self, head: Head) -> Target:
        """The target of a network whose channels are read by `head`, where it does not say how."""
        return self

    def _values(self) -> Iterable[Any]:
        return (getattr(self, field.name) for field in fields(cast(Any, self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Target) or type(self) is not type(other):
            return NotImplemented
        pairs = zip(self._values(), other._values(), strict=True)
        return all(_same(mine, theirs) for mine, theirs in pairs)

    def __hash__(self) -> int:
        values = (tuple(v.shape) if isinstance(v, Tensor) else v for v in self._values())
        return hash((type(self), *values))


@dataclass(frozen=True, eq=False)
class RegionScore(Target):
    """The mean of one class's score over a region of pixels.

    Parameters
    ----------
    class_index : int
        The class whose score is explained.
    on : {"logits", "probability", "log_probability"}
        What is averaged. Probabilities are those of the head.
    head : {"softmax", "sigmoid"}, optional
        How the network's channels are read: with "softmax" a pixel belongs to one class, the
        highest; with "sigmoid" it belongs to each class whose logit is above zero, and its truth
        is given for each class. A one-channel output is foreground against background in both.
        Left out it is what :class:`~unetcam.UNetCAM` was told of the network, "softmax" by
        default.
    within : RegionScore or array_like, optional
        Narrows the region to the pixels of another target, or of a mask, (*spatial) or
        (B, *spatial). Only the other's pixels count, not its score. An image in which nothing is
        left has no map: NaN.
    """

    class_index: int
    _: KW_ONLY
    on: Scale = "logits"
    head: Head | None = None
    within: RegionScore | Tensor | ArrayLike | None = None

    def __post_init__(self) -> None:
        require("on", self.on, get_args(Scale), "scale of a score")
        require("head", self.reading, get_args(Head), "kind of head")
        if self.within is not None:
            self._set("within", as_region(self.within))

    @property
    def reading(self) -> Head:
        """How the channels are read: `head`, or "softmax" while it is left out."""
        return "softmax" if self.head is None else self.head

    def read_by(self, head: Head) -> Target:
        if head == "softmax":
            return self
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {
            name: value.read_by(head) for name, value in values.items() if isinstance(value, Target)
        }
        return replace(self, **changed, head=head if self.head is None else self.head)

    @property
    @abstractmethod
    def title(self) -> str:
        """The name but for `within`."""

    @property
    def name(self) -> str:
        return (
            self.title if self._frame is None else f"{self.title} within {self._frame.region_name}"
        )

    @property
    def region_name(self) -> str:
        """The name of the region alone."""
        return self.name

    @abstractmethod
    def region(self, logits: Tensor) -> Tensor | None:
        """The pixels, (B, *spatial) or (*spatial) bool on the logits' device; None means all."""

    def counted(self, logits: Tensor) -> Tensor | None:
        """The pixels of which it is known whether they are of the region; a truth may ignore some.

        In the shapes of :meth:`region`; None means all.
        """
        return None if self._frame is None else self._frame.counted(logits)

    def pixels(self, logits: Tensor) -> Tensor | None:
        """The region within `within`, in the shapes of :meth:`region`."""
        frame = self._frame
        return both(self.region(logits), None if frame is None else frame.pixels(logits))

    def values(self, logits: Tensor) -> Tensor:
        """What is averaged over the region, (B, *spatial)."""
        return all_scores(logits, self.on, self.reading)[:, self.class_index]

    def channel(self, logits: Tensor) -> int | None:
        """The one channel of the logits that :meth:`values` depends on, where it is one."""
        alone = is_multi_label(logits, self.reading) or self.on == "logits"
        return self.class_index if alone and logits.shape[1] > 1 else None

    def check(self, logits: Tensor) -> None:
        self._check_class(self.class_index, logits)
        if self._frame is not None:
            self._frame.check(logits)

    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        values = self.values(logits)
        channel = self.channel(logits)
        region = self.pixels(logits if reference is None else reference)
        if region is None:
            present = torch.ones(len(values), dtype=torch.bool, device=values.device)
            mean = values.reshape(len(values), -1).mean(dim=1)
            plain = type(self).values is RegionScore.values and self.on == "logits"
            everywhere = channel is not None and plain
            return Score(mean, present, channel, everywhere)
        inside = spread(region, logits).reshape(len(values), -1)
        values = values.reshape(len(values), -1)
        count = inside.sum(dim=1)
        total = torch.where(inside, values, torch.zeros_like(values)).sum(dim=1)
        return Score(total / count.clamp(min=1), count > 0, channel)

    @property
    def _frame(self) -> RegionScore | None:
        return cast("RegionScore | None", self.within)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_class(self, index: object, logits: Tensor) -> None:
        count = class_count(logits)
        if not isinstance(index, (int, np.integer)):
            raise TargetError(
                f"A class is a whole number from 0 to {count - 1}, and this target asks for "
                f"{index!r}: give the class's index."
            )
        if not 0 <= index < count:
            raise TargetError(
                f"Target '{self.name}' asks for class {index}, but the network gives "
                f"{count} classes: use 0 to {count - 1}."
            )

    def _check_size(self, mask: Tensor, logits: Tensor, *, channels: tuple[int, ...] = ()) -> None:
        size, batch = (*channels, *logits.shape[2:]), logits.shape[0]
        shape = tuple(mask.shape)
        if shape not in (size, (1, *size), (batch, *size)):
            if shape == (batch, 1, *size):
                remedy = "take its channel away with mask[:, 0]"
            elif shape[-len(size) :] == size and len(shape) > len(size):
                remedy = "turn one channel for each class into classes with argmax(1)"
            else:
                remedy = "resize it with nearest neighbour"
            raise TargetError(
                f"The mask of target '{self.name}' has the shape {shape}, but the logits need "
                f"{size}, or {(batch, *size)} for one mask an image: {remedy}."
            )


@dataclass(frozen=True, eq=False)
class Region(RegionScore):
    """The mean score of a class over the pixels of a mask.

    An empty mask is a mistake; one with nothing left within `within` has no map: NaN.

    Parameters
    ----------
    class_index : int
    mask : array_like or Tensor
        (*spatial) for all images alike or (B, *spatial), of the logits' size; a pixel belongs to
        the region where it is not zero. Of a floating point mask the values are 0 and 1.
    on, head, within
        See :class:`RegionScore`.

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

    mask: Tensor | ArrayLike

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("mask", as_mask(self.mask))

    @property
    def must_exist(self) -> bool:
        return self.within is None

    @property
    def title(self) -> str:
        return f"class {self.class_index} in a region"

    @property
    def region_name(self) -> str:
        return "a region"

    def check(self, logits: Tensor) -> None:
        super().check(logits)
        mask = cast(Tensor, self.mask)
        self._check_size(mask, logits)
        if mask.is_floating_point() and bool(((mask != 0) & (mask != 1)).any()):
            raise TargetError(
                f"The mask of target '{self.name}' holds values between zero and one or beyond, "
                "and a pixel is in a region or not: threshold it, as with mask > 0.5."
            )

    def region(self, logits: Tensor) -> Tensor:
        return cast(Tensor, self.mask).to(logits.device) != 0


def as_region(given: RegionScore | Tensor | ArrayLike) -> RegionScore:
    """A target whose pixels are meant, from itself or from a mask."""
    if isinstance(given, Target):
        if not isinstance(given, RegionScore):
            raise TargetError(
                f"Target '{given.name}' has no region of pixels: give one that has, or a mask."
            )
        return given
    return Region(0, given)


def as_mask(given: Tensor | ArrayLike) -> Tensor:
    """A mask as a tensor, of a type that can be compared on every device."""
    if not isinstance(given, Tensor):
        array = np.array(given)
        if array.dtype.kind not in "biuf":
            raise TargetError(
                f"A mask of {array.dtype} values is none: give numbers, one for every pixel."
            )
        given = torch.from_numpy(array)
    return given.long() if given.dtype in _WIDE_UNSIGNED else given


def spread(region: Tensor, logits: Tensor) -> Tensor:
    """A region of any of the allowed shapes as (B, *spatial)."""
    return region.expand(logits.shape[0], *logits.shape[2:])


def both(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    """The pixels of two regions, of which None means all."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one is other or (one.device == other.device and torch.equal(one, other))
    return bool(one == other)


def require(option: str, value: object, allowed: tuple[str, ...], kind: str) -> None:
    """Raise for a value that is not among the allowed."""
    if value not in allowed:
        raise TargetError(f"{option}={value!r} is no {kind}: use one of {', '.join(allowed)}.")
