"""Which targets are explained: functions as targets, one for each image, and chosen ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Union, cast

import torch
from torch import Tensor

from unetcam.engine.request import Score, Scoring
from unetcam.errors import TargetError
from unetcam.targets.base import Target
from unetcam.targets.channels import Head, class_count
from unetcam.targets.regions import ClassScore


@dataclass(frozen=True, eq=False)
class Function(Target):
    """A score that a function makes of the logits.

    ``cam(images, [function])`` makes this of any callable by itself.

    An image for which the function gives NaN has no map: NaN.

    Parameters
    ----------
    function : callable
        Takes the logits, (B, C, *spatial), in at least single precision, and gives a floating
        point tensor of one score per image, (B,); a single image's may be a scalar. Each image's
        score is a matter of its own logits.
    name : str, optional
        The function's ``__name__`` by default.

    Raises
    ------
    TargetError
        For a function that gives anything else, or a score that is cut off from the logits.

    Examples
    --------
    >>> def margin(logits):
    ...     best = logits.topk(2, dim=1).values
    ...     return (best[:, 0] - best[:, 1]).mean(dim=(1, 2))
    >>> target = Function(margin)
    >>> target.name, target.score(torch.tensor([[[[1.0]], [[4.0]], [[2.0]]]])).value
    ('margin', tensor([2.]))
    """

    function: Callable[[Tensor], Tensor]
    name: str = field(default="")

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TargetError(f"{self.function!r} is no function of the logits: give a callable.")
        if not self.name:
            named = getattr(self.function, "__name__", type(self.function).__name__)
            object.__setattr__(self, "name", named)

    def check(self, logits: Tensor) -> None:
        """What the function gives is seen when it is called."""

    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        # What flows back through an undefined score is NaN, and must not reach the logits.
        shielded = logits.view_as(logits)
        value = self.function(shielded)
        batch = len(logits)
        fits = isinstance(value, Tensor) and value.is_floating_point()
        if not fits or not (value.shape == (batch,) or (value.ndim == 0 and batch == 1)):
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TargetError(
                f"The function '{self.name}' gave {shape} for {batch} images: return a floating "
                f"point tensor ({batch},), one score per image."
            )
        if logits.requires_grad and not value.requires_grad:
            raise TargetError(
                f"The score of the function '{self.name}' is cut off from the logits: compute it "
                "from them without detach, argmax or rounding."
            )
        value = value.reshape(batch)
        defined = ~value.detach().isnan()
        if shielded.requires_grad:
            undefined = ~defined.view(-1, *[1] * (logits.ndim - 1))
            shielded.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: gradient.masked_fill(undefined, 0)
            )
        return Score(torch.where(defined, value, torch.zeros_like(value)), defined)


@dataclass(frozen=True, eq=False)
class PerImage(Target):
    """Another target for each image of the batch.

    Each image has a map or none as its own target says.

    Parameters
    ----------
    targets : sequence of Target or callable
        As many as there are images; each is given its image alone, so that masks are
        (*spatial) or (1, *spatial).

    Raises
    ------
    TargetError
        For another number of targets than images.

    Examples
    --------
    >>> logits = torch.arange(8.0).view(2, 2, 1, 2)
    >>> PerImage([ClassScore(1), ClassScore(0)]).score(logits).value
    tensor([2.5000, 4.5000])
    """

    targets: Sequence[TargetLike]

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", as_targets(self.targets))

    @property
    def name(self) -> str:
        names = dict.fromkeys(target.name for target in self._each)
        return next(iter(names)) if len(names) == 1 else f"by image: {'; '.join(names)}"

    def for_image(self, index: int) -> Target:
        return self._each[index].for_image(0)

    def check(self, logits: Tensor) -> None:
        if len(self._each) != len(logits):
            raise TargetError(
                f"Target '{self.name}' holds {len(self._each)} targets for {len(logits)} images: "
                "give one for each image."
            )
        for image, target in enumerate(self._each):
            target.check(logits[image : image + 1])

    def score(self, logits: Tensor, reference: Tensor | None = None) -> Score:
        scores = [
            target.score(logits[i : i + 1], None if reference is None else reference[i : i + 1])
            for i, target in enumerate(self._each)
        ]
        channels = {score.channel for score in scores}
        return Score(
            torch.cat([score.value for score in scores]),
            torch.cat([score.defined for score in scores]),
            channels.pop() if len(channels) == 1 else None,
        )

    def read_by(self, head: Head) -> Target:
        return PerImage(tuple(target.read_by(head) for target in self._each))

    @property
    def _each(self) -> tuple[Target, ...]:
        return cast("tuple[Target, ...]", self.targets)


class Choice(ABC):
    """Targets that are chosen once the logits are known."""

    @abstractmethod
    def choose(self, logits: Tensor) -> Sequence[Target]:
        """The targets for logits (B, C, *spatial)."""


class EveryClass(Choice):
    """One :class:`ClassScore` per class."""

    def choose(self, logits: Tensor) -> Sequence[Target]:
        return [ClassScore(index) for index in range(class_count(logits))]


#: What may stand for a target: one of this package's, or a function of the logits.
TargetLike = Union[Target, Callable[[Tensor], Tensor]]  # noqa: UP007


def as_targets(given: TargetLike | Sequence[TargetLike]) -> tuple[Target, ...]:
    """One target or several, functions among them, as a tuple of targets."""
    is_one = isinstance(given, (str, Tensor)) or not isinstance(given, Iterable) or callable(given)
    several: Any = [given] if is_one else given
    return tuple(_as_target(one) for one in several)


def _as_target(given: Any) -> Target:
    if isinstance(given, Target):
        return given
    if callable(given) and not isinstance(given, type):
        return Function(given)
    raise _no_target(given)


def chosen(
    given: TargetLike | Sequence[TargetLike] | Choice | None, logits: Tensor
) -> tuple[Target, ...]:
    """The targets that are explained: what was given, or one score per class."""
    if given is None:
        given = EveryClass()
    if isinstance(given, Choice):
        return tuple(given.choose(logits))
    return as_targets(given)


def check_targets(targets: Sequence[Target], logits: Tensor) -> None:
    """Check all targets before the first backward, so that a mistake costs no time."""
    if not targets:
        raise TargetError("There is nothing to explain: give at least one target.")
    for target in targets:
        if not isinstance(target, Target):
            raise _no_target(target)
        target.check(logits)


def check_existing(targets: Sequence[Target], defined: Tensor) -> None:
    """Raise for a region that the caller gave and that holds no pixel; `defined` is (B, T)."""
    images = range(len(defined))
    if not any(target.for_image(i).must_exist for target in targets for i in images):
        return
    for image, existing in enumerate(defined.tolist()):
        for target, exists in zip(targets, existing, strict=True):
            own = target.for_image(image)
            if own.must_exist and not exists:
                raise TargetError(
                    f"The mask of target '{own.name}' is empty for image {image}: give at least "
                    "one pixel, or leave the target out."
                )


def _no_target(given: object) -> TargetError:
    return TargetError(
        f"{given!r} is no target: use those of unetcam.targets, as ClassScore(1), or "
        "Function(...) of the logits."
    )


def scoring_of(
    targets: TargetLike | Iterable[TargetLike] | Choice | None, head: Head = "softmax"
) -> Scoring:
    """How logits are scored: every score says of which target it is.

    Parameters
    ----------
    targets : Target, callable, iterable of them, Choice or None
        None: every class's mean.
    head : {"softmax", "sigmoid"}
        How the network's channels are read by targets that don't say it themselves.
    """
    given: Any = targets
    if isinstance(given, Iterator):
        given = tuple(given)  # every forward scores them anew

    def score(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
        picked = chosen(given, logits if reference is None else reference)
        read = [target.read_by(head) for target in picked]
        check_targets(read, logits)
        held = () if reference is None else (reference,)
        return [replace(target.score(logits, *held), target=target) for target in read]

    return score
