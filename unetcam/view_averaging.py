"""Smoothing by augmentation: the same image, turned and scaled, explained and brought back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from unetcam.engine import Collected
from unetcam.engine.request import Score, Scoring
from unetcam.errors import DataError
from unetcam.models.io import Inputs, changed, image_of
from unetcam.resizing import interpolated

#: Explains a model's inputs for some scores.
Explain = Callable[[Inputs, Scoring], Collected]
Size = tuple[int, ...]


@dataclass(frozen=True)
class View:
    """An image with its axes exchanged and turned around, then scaled: all that has an inverse.

    Attributes
    ----------
    order : tuple of int
        Which spatial axis of the image becomes each axis of the view.
    flipped : tuple of bool
        Which axes of the view run backwards.
    size : tuple of int
        The view's spatial size.

    Examples
    --------
    >>> view = View(order=(1, 0), flipped=(False, True), size=(3, 2))  # a quarter turn clockwise
    >>> turned = view.of(torch.arange(6.0).view(1, 1, 2, 3))
    >>> turned
    tensor([[[[3., 0.],
              [4., 1.],
              [5., 2.]]]])
    >>> view.back(turned, (2, 3))
    tensor([[[[0., 1., 2.],
              [3., 4., 5.]]]])
    """

    order: tuple[int, ...]
    flipped: tuple[bool, ...]
    size: Size

    @classmethod
    def plain(cls, size: Sequence[int]) -> View:
        """The image as it is."""
        return cls(tuple(range(len(size))), (False,) * len(size), tuple(size))

    def turned(self, order: Sequence[int], flipped: Sequence[bool]) -> View:
        """This view with its axes exchanged, and then turned around."""
        return View(
            tuple(self.order[axis] for axis in order),
            tuple(self.flipped[axis] != flip for axis, flip in zip(order, flipped, strict=True)),
            tuple(self.size[axis] for axis in order),
        )

    def of(self, images: Tensor) -> Tensor:
        """The view of images (B, C, *spatial)."""
        axes = [0, 1, *(2 + axis for axis in self.order)]
        return interpolated(images.permute(axes).flip(self._dims), self.size).contiguous()

    def back(self, maps: Tensor, size: Sequence[int]) -> Tensor:
        """Maps of the view, (B, T, *layer_spatial), in the image's frame at a spatial size."""
        axes = [0, 1, *(2 + self.order.index(axis) for axis in range(len(self.order)))]
        return interpolated(maps.flip(self._dims).permute(axes), size).contiguous()

    @property
    def _dims(self) -> list[int]:
        return [2 + axis for axis, flip in enumerate(self.flipped) if flip]


def views(augment: Any, size: Sequence[int]) -> tuple[View, ...]:
    """Every view that albumentations' transforms can give of an image; the plain one first.

    Parameters
    ----------
    augment : transform or sequence of transforms
        ``HorizontalFlip``, ``VerticalFlip``, ``Transpose``, ``RandomRotate90`` (4 views), ``D4``
        (8), for volumes ``CubicSymmetry`` (48), ``Resize``, ``RandomScale`` (its two ends), and
        ``Compose`` or ``Sequential`` of them. The first five turn the last two axes of a volume.
        Each is taken with and without; nothing is drawn, so that its ``p`` does not matter.
    size : sequence of int
        The image's spatial size.

    Raises
    ------
    DataError
        For a transform without an inverse.

    Examples
    --------
    >>> import albumentations as A
    >>> [view.flipped for view in views([A.HorizontalFlip(), A.VerticalFlip()], (8, 8))]
    [(False, False), (True, False), (False, True), (True, True)]
    >>> len(views([A.D4(), A.HorizontalFlip(), A.RandomScale((-0.5, 0.5))], (8, 8)))
    24
    """
    every = [View.plain(size)]
    for transform in _flat(augment):
        every = [after for before in every for after in (before, *_views_of(transform, before))]
    return tuple(dict.fromkeys(every))


def _flat(augment: Any) -> Iterator[Any]:
    """The transforms one after the other; albumentations' own way to say so is understood."""
    if _name(augment) in ("Compose", "Sequential"):
        augment = augment.transforms
    if isinstance(augment, (list, tuple)):
        for one in augment:
            yield from _flat(one)
    else:
        yield augment


def _name(transform: Any) -> str:
    """A transform's name; telling by it spares the import of a large library."""
    kind = type(transform)
    return kind.__name__ if kind.__module__.split(".")[0] == "albumentations" else ""


def _views_of(transform: Any, view: View) -> Iterator[View]:
    name, dims = _name(transform), len(view.size)
    if name == "Resize":
        yield View(
            view.order, view.flipped, (*view.size[:-2], int(transform.height), int(transform.width))
        )
    elif name == "RandomScale":
        for change in transform.scale_limit:
            sides = (max(1, int(side * (1 + change))) for side in view.size[-2:])
            yield View(view.order, view.flipped, (*view.size[:-2], *sides))
    elif name in _TURNS and not (name == "CubicSymmetry" and dims != 3):
        still = range(0 if name == "CubicSymmetry" else dims - 2)
        for order, flipped in _TURNS[name]:
            yield view.turned(
                [*still, *(len(still) + axis for axis in order)], [False for _ in still] + flipped
            )
    else:
        known = ", ".join(sorted([*_TURNS, "Resize", "RandomScale"]))
        raise DataError(
            f"augment= has no inverse of {name or type(transform).__name__} for {dims} spatial "
            f"dimensions, so the maps could not be brought back: use {known} of albumentations."
        )


_Turn = tuple[list[int], list[bool]]


def _turns(dims: int) -> list[_Turn]:
    """All symmetries of a square or a cube: an order of the axes, and which run backwards."""
    return [
        (list(order), list(flipped))
        for order in itertools.permutations(range(dims))
        for flipped in itertools.product([False, True], repeat=dims)
    ]


def _is_rotation(turn: _Turn) -> bool:
    """Whether nothing is mirrored: an exchange of two axes and a flip undo each other."""
    order, flipped = turn
    exchanges = sum(a > b for a, b in itertools.combinations(order, 2))
    return (exchanges + sum(flipped)) % 2 == 0


_TURNS: dict[str, list[_Turn]] = {
    "HorizontalFlip": [([0, 1], [False, True])],
    "VerticalFlip": [([0, 1], [True, False])],
    "Transpose": [([1, 0], [False, False])],
    "RandomRotate90": [turn for turn in _turns(2) if _is_rotation(turn)],
    "D4": _turns(2),
    "CubicSymmetry": _turns(3),
}


def explain_views(
    explain: Explain, inputs: Inputs, score: Scoring, augment: Any
) -> tuple[Collected, dict[str, Tensor]]:
    """Explain all views of images, bring the maps back, and average them raw.

    A view's logits are brought back before they are scored, so that a target means the same pixels
    in every view, whatever it is.

    Parameters
    ----------
    explain : callable
    inputs : Tensor, tuple or dict
        Images (B, C, *spatial), or a model's inputs; all maps among them are turned alike.
    score : Scoring
        Gives the targets' scores from the logits of the plain view.
    augment : transform or sequence of transforms
        See :func:`views`.

    Returns
    -------
    collected : Collected
        The mean logits, and the mean maps over the views in which the target exists; NaN where it
        exists in none.
    spread : dict of str to Tensor
        By layer, (B, T, *layer_spatial): the standard deviation over those views.
    """
    _, *others = views(augment, image_of(inputs).shape[2:])
    first = explain(inputs, score)
    logits, size = first.logits.clone(), tuple(first.logits.shape[2:])
    moments = {name: _Moments(maps, first.defined) for name, maps in first.maps.items()}
    defined = first.defined.clone()
    for count, view in enumerate(others, start=2):
        other = explain(_seen_from(view, inputs), _scored_from(view, score, size))
        logits += (view.back(other.logits, size) - logits) / count
        defined |= other.defined
        for name, maps in other.maps.items():
            moments[name].add(view.back(maps, moments[name].mean.shape[2:]), other.defined)
    means = {name: one.mean.masked_fill(one.absent, math.nan) for name, one in moments.items()}
    spread = {
        name: one.deviation.masked_fill(one.absent, math.nan) for name, one in moments.items()
    }
    emptied = {
        name: one & (means[name] == 0).flatten(2).all(dim=2) for name, one in first.emptied.items()
    }
    return replace(first, logits=logits, maps=means, defined=defined, emptied=emptied), spread


def _scored_from(view: View, score: Scoring, size: Size) -> Scoring:
    """How a view's logits are scored: as those of the plain view, which have a size."""

    def scored(logits: Tensor, reference: Tensor | None = None) -> Sequence[Score]:
        held = None if reference is None else view.back(reference, size)
        scores = score(view.back(logits, size), held)
        if tuple(logits.shape[2:]) == tuple(size[axis] for axis in view.order):
            return scores
        # The mean over all pixels of what was resized is no mean over all pixels.
        return [Score(one.value, one.defined, one.channel) for one in scores]

    return scored


def _seen_from(view: View, inputs: Inputs) -> Inputs:
    """A model's inputs, of which all maps are turned."""
    image = image_of(inputs)

    def turned(tensor: Tensor) -> Tensor:
        if tensor.ndim != image.ndim:
            return tensor
        if tensor.shape[2:] != image.shape[2:]:
            raise DataError(
                f"augment= turns inputs of the image's size {tuple(image.shape[2:])}, and one has "
                f"the size {tuple(tensor.shape[2:])}: resize it, or leave augment out."
            )
        return view.of(tensor)

    return changed(inputs, turned)


class _Moments:
    """Mean and standard deviation of maps as they come, of those that exist (Welford)."""

    def __init__(self, maps: Tensor, defined: Tensor) -> None:
        self.count = torch.zeros_like(_beside(defined, maps), dtype=maps.dtype)
        self.mean, self._squares = torch.zeros_like(maps), torch.zeros_like(maps)
        self.add(maps, defined)

    def add(self, maps: Tensor, defined: Tensor) -> None:
        """Take in maps (B, T, *spatial) of the targets that exist, (B, T)."""
        present = _beside(defined, maps)
        self.count += present
        away = torch.where(present, maps - self.mean, torch.zeros_like(maps))
        self.mean += away / self.count.clamp(min=1)
        self._squares += away * torch.where(present, maps - self.mean, torch.zeros_like(maps))

    @property
    def absent(self) -> Tensor:
        """Where no map came, (B, T, 1, ...)."""
        return self.count == 0

    @property
    def deviation(self) -> Tensor:
        """(B, T, *spatial)."""
        return (self._squares / self.count.clamp(min=1)).sqrt()


def _beside(defined: Tensor, maps: Tensor) -> Tensor:
    return defined.view(*defined.shape, *[1] * (maps.ndim - 2))
