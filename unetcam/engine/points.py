"""Where in a forward an activation is taken: at a module's output, or where a tensor enters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unetcam.engine.layout import Layout
from unetcam.errors import LayerError


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
        The tensor's place among the tensors that it is given.
    channels : int
        The tensor's channels, by which a forward that took another course is known.
    """

    op: str
    count: int
    position: int
    channels: int


@dataclass(frozen=True)
class Point:
    """A place at which an activation is taken and a gradient is met.

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
