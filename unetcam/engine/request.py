"""A request to explain a network, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from torch import Tensor, nn

from unetcam.engine.layout import Layout
from unetcam.errors import LayerError

#: What a backward leaves out, or does in a cheaper order, without changing a map: the gradient
#: towards skips; the deepest layer's gradient but for its sums; the classes that a target doesn't
#: touch; normalisations; repeated pixels of a nearest-neighbour upsampling; torch's own routine
#: for a convolution; all backwards but one for each input of a narrow head; channels first in
#: memory; a backward for each target of a small image.
Shortcut = Literal[
    "skips",
    "deepest sum",
    "head",
    "normalisation",
    "enlargement",
    "mirrored kernel",
    "span",
    "channels last",
    "sharing",
]
SHORTCUTS: frozenset[Shortcut] = frozenset(get_args(Shortcut))
#: Those that stay where every backward is to be whole, as they leave nothing out of it.
WHOLE_BACKWARDS: frozenset[Shortcut] = frozenset({"sharing"})


class Named(Protocol):
    """What a map is of."""

    @property
    def name(self) -> str: ...


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
    everywhere : bool
        Whether the value is that channel's mean over all pixels.
    target : Target, optional
        What it is the score of.
    """

    value: Tensor
    defined: Tensor
    channel: int | None = None
    everywhere: bool = False
    target: Named | None = None

    def negated(self) -> Score:
        """The score the other way round: what is the mean of a channel no longer is one."""
        return Score(-self.value, self.defined, self.channel, target=self.target)


def targets_of(scores: Sequence[Score]) -> tuple[Named, ...]:
    """What the scores are of, where they are of targets that have a name."""
    return tuple(score.target for score in scores if score.target is not None)


class Scoring(Protocol):
    """Gives the targets' scores from logits, in the targets' order.

    Regions that depend on the prediction are read from `reference`, where it is given: the score
    of a perturbed image is that of the same pixels as before.
    """

    def __call__(self, logits: Tensor, reference: Tensor | None = None) -> Sequence[Score]: ...


class Picking(Protocol):
    """Picks the logits (B, C, *spatial) from whatever the model returned.

    `images` is what the model was given, where that is not the request's own images.
    """

    def __call__(self, returned: Any, images: Tensor = ...) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Request:
    """A network on a batch of images, to be explained at some layers for some targets.

    Attributes
    ----------
    model : nn.Module
        Left exactly as found, also when an exception flies.
    images : Tensor
        (B, C, *spatial), finite, on the model's device.
    layers : Mapping of str to TapPoint
    score : Scoring
    output : Picking
    shortcuts : frozenset of str
        Those that are taken; the maps are the same up to rounding whichever are.
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
    layers: Mapping[str, TapPoint]
    score: Scoring
    output: Picking
    shortcuts: frozenset[Shortcut] = SHORTCUTS
    channels_last: bool = False
    memory_budget: int | float | None = None
    create_graph: bool = False


@dataclass(frozen=True, eq=False)
class Collected:
    """What a method made of a request.

    Attributes
    ----------
    logits : Tensor
        (B, C, *spatial), detached.
    maps : dict of str to Tensor
        (B, T, *layer_spatial) each, float32 (float64 for a float64 network), raw; NaN where the
        target does not exist in the image.
    defined : Tensor
        (B, T) bool: whether the target exists in the image.
    targets : tuple
        What the T maps are of.
    emptied : dict of str to Tensor
        By layer, (B, T) bool, of a method that makes its maps of several: where they say something
        each and nothing together.
    """

    logits: Tensor
    maps: dict[str, Tensor]
    defined: Tensor
    targets: tuple[Named, ...] = ()
    emptied: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One tensor that an operation is given, inside a module's run.

    Attributes
    ----------
    op : str
        The torch function's name.
    count : int
        How many calls of it in the module's run come before this one.
    position : int
        The tensor's position among the tensors that it is given.
    channels : int
        The tensor's channels, by which a forward that took another course is known.
    """

    op: str
    count: int
    position: int
    channels: int


@dataclass(frozen=True)
class TapPoint:
    """Where an activation is taken and a gradient is met.

    Attributes
    ----------
    module : nn.Module
    run : int, optional
        Which of the module's runs in a forward, from zero; None where it runs once.
    layout : Layout, optional
        How the tensor holds its feature map; None for a map (B, K, *spatial).
    entry : Entry, optional
        The input of an operation in the module's run, in place of the module's output.
    size : tuple of int, optional
        The image's spatial size, where no traced run has told the layout yet.
    """

    module: nn.Module
    run: int | None = None
    layout: Layout | None = None
    entry: Entry | None = None
    size: tuple[int, ...] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is the output of a module that runs once, as the module gave it."""
        return self.run is None and self.layout is None and self.entry is None

    def whole(self, name: str) -> nn.Module:
        """The module whose output it is.

        Raises
        ------
        LayerError
            Where it is one of several runs, a part, or tokens, which can't be put in anew.
        """
        if not self.is_whole:
            raise LayerError(
                f"The layer '{name}' is one of several runs, a part of a stage or holds tokens, "
                "and this needs the map that a module gives: choose a layer of maps, or a method "
                "made of gradients."
            )
        return self.module
