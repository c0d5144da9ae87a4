"""Which targets are explained: functions as targets, one for each image, and chosen ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union, cast

import torch
from torch import Tensor

from unetcam.engine.request import Scored, Scoring
from unetcam.errors import TargetError
from unetcam.targets.base import Score, Target
from unetcam.targets.channels import class_count
from unetcam.targets.regions import ClassScore

if TYPE_CHECKING:
    from unetcam.data.tiles import Window


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
    several: Any = given if isinstance(given, Iterable) and not callable(given) else [given]
    found: list[Target] = []
    for one in several:
        if isinstance(one, Target):
            found.append(one)
        elif callable(one) and not isinstance(one, type):
            found.append(Function(one))
        else:
            raise _no_target(one)
    return tuple(found)


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
    for image, found in enumerate(defined.tolist()):
        for target, exists in zip(targets, found, strict=True):
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
    targets: TargetLike | Sequence[TargetLike] | Choice | None,
) -> tuple[list[Target], Scoring]:
    """How logits are scored, and the list of targets, which is filled when the first were."""
    given: Any = targets
    if isinstance(given, Iterator):
        given = tuple(given)  # they are asked for again with every forward
    explained: list[Target] = []

    def score(logits: Tensor, reference: Tensor | None = None) -> list[Score]:
        explained[:] = chosen(given, logits if reference is None else reference)
        check_targets(explained, logits)
        held = () if reference is None else (reference,)
        return [target.score(logits, *held) for target in explained]

    return explained, score


@dataclass(frozen=True, eq=False)
class Seed:
    """The derivative of a score with respect to the logits of the whole image, held small.

    Attributes
    ----------
    values : Tensor
        (C', *spatial), for one channel or all; bool where there is one value beside zero.
    scale : Tensor, optional
        That one value.
    channel : int, optional
        The one channel that the score depends on.
    """

    values: Tensor
    scale: Tensor | None
    channel: int | None

    @classmethod
    def of(cls, derivative: Tensor, channel: int | None) -> Seed:
        """Hold a derivative (C, *spatial); that of a region's mean is one value in the region.

        Examples
        --------
        >>> seed = Seed.of(torch.tensor([[0.0, 0.5, 0.5], [0.0, 0.0, 0.0]]), channel=0)
        >>> seed.values, seed.scale
        (tensor([[False,  True,  True]]), tensor(0.5000))
        """
        values = derivative if channel is None else derivative[channel : channel + 1]
        high = values.amax()
        scale = torch.where(high > 0, high, values.amin())
        inside = values != 0
        if bool(((values == scale) | ~inside).all()):
            return cls(inside, scale, channel)
        return cls(values.clone(), None, channel)

    def at(self, window: Window) -> Tensor:
        """The derivative inside a window, (C', *tile)."""
        part = self.values[(slice(None), *window)]
        return part if self.scale is None else part * self.scale

    def score(self, logits: Tensor, parts: Tensor) -> Score:
        """The score of tiles' logits (b, C, *tile) whose derivative is `parts`, (b, C', *tile)."""
        seen = logits if self.channel is None else logits[:, self.channel : self.channel + 1]
        present = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        return Score((seen * parts).flatten(1).sum(dim=1), present, self.channel)


def seeds_of(logits: Tensor, score: Scoring) -> tuple[list[Seed], Tensor]:
    """Each target's seed, and whether the target exists, (1, T).

    Parameters
    ----------
    logits : Tensor
        (1, C, *spatial).
    score : callable
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        scores = score(leaf)
        seeds = [_seed(one, leaf) for one in scores]
    return seeds, torch.stack([one.defined for one in scores], dim=1)


def _seed(score: Scored, leaf: Tensor) -> Seed:
    (derivative,) = torch.autograd.grad(
        score.value.sum(), leaf, retain_graph=True, materialize_grads=True
    )
    return Seed.of(derivative[0], score.channel)
