"""What is asked of a network, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from unetcam.engine.points import Point


class Named(Protocol):
    """What a map is of."""

    @property
    def name(self) -> str: ...


class Scored(Protocol):
    """One score per image and whether it exists: see :class:`unetcam.targets.Score`."""

    @property
    def value(self) -> Tensor: ...
    @property
    def defined(self) -> Tensor: ...
    @property
    def channel(self) -> int | None: ...
    @property
    def everywhere(self) -> bool: ...


class Scoring(Protocol):
    """Gives the targets' scores from logits, in the targets' order.

    Regions that depend on the prediction are read from `reference`, where it is given: the score
    of a perturbed image is that of the same pixels as before.
    """

    def __call__(self, logits: Tensor, reference: Tensor | None = None) -> Sequence[Scored]: ...


class Picking(Protocol):
    """Picks the logits (B, C, *spatial) from whatever the model returned.

    `images` is what the model was given, where that is not the run's own images.
    """

    def __call__(self, returned: Any, images: Tensor = ...) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Run:
    """A network on a batch of images, to be explained at some layers for some targets.

    Attributes
    ----------
    model : nn.Module
        Left exactly as found, also when an exception flies.
    images : Tensor
        (B, C, *spatial), finite, on the model's device.
    layers : Mapping of str to Point
    score : Scoring
    output : Picking
    shortcuts : bool
        Whether a backward leaves out what no map needs; the maps are the same up to rounding.
    channels_last : bool
        Whether the images are handed on with their channels last in memory, which makes
        convolutions faster on a CPU. A model that calls ``view`` on its maps may not take it.
    memory_budget : int or float, optional
        Bytes, or a share of what is free: bounds what is done at once, and the maps.
    create_graph : bool
        Whether maps and logits keep their graph.
    """

    model: nn.Module
    images: Tensor
    layers: Mapping[str, Point]
    score: Scoring
    output: Picking
    shortcuts: bool = True
    channels_last: bool = False
    memory_budget: int | float | None = None
    create_graph: bool = False


@dataclass(frozen=True, eq=False)
class Collected:
    """What a method made of a run.

    Attributes
    ----------
    logits : Tensor
        (B, C, *spatial), detached.
    maps : dict of str to Tensor
        (B, T, *layer_spatial) each, float32 (float64 for a float64 network), raw; NaN where the
        target does not exist in the image.
    defined : Tensor
        (B, T) bool: whether the target exists in the image.
    explained : tuple
        What the T maps are of, where that is not the targets that were asked for.
    channels : dict of str to Tensor
        By layer, (B, T) int64: the channel that a map shows, where it shows a single one; -1 for
        none.
    """

    logits: Tensor
    maps: dict[str, Tensor]
    defined: Tensor
    explained: tuple[Named, ...] = ()
    channels: dict[str, Tensor] = field(default_factory=dict)
