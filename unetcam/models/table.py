"""The table of a network's layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

from unetcam.engine.layout import Layout
from unetcam.engine.points import Entry
from unetcam.models.drawing import drawn

Stage = Literal["encoder", "bottleneck", "decoder", "head"]


@dataclass(frozen=True)
class LayerInfo:
    """One layer: the last feature map of its stage.

    Attributes
    ----------
    name : str
        As in ``model.named_modules()``; ``"conv#2"`` is a module's second run of several.
    stage : {"encoder", "bottleneck", "decoder", "head"}
    stride : int
        Input pixels per pixel of its map.
    channels : int
    size : tuple of int
        The map's spatial size for the example.
    skips : tuple of str
        The modules from which other branches join this stage.
    parts : tuple of str
        What can be explained apart, as ``"up1:skip"`` and ``"up1:path"``: the tensors that enter
        the stage by its skips, and the one that comes by the upsampling path, each as it enters
        the operation that joins them.
    """

    name: str
    stage: Stage
    stride: int
    channels: int
    size: tuple[int, ...]
    skips: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Where a tensor enters a stage: an input of an operation in a module's run.

    Attributes
    ----------
    module : str
        The innermost module whose forward calls the operation; empty for the model itself.
    run : int, optional
        Which of the module's runs that is, from zero; None where it runs once.
    entry : Entry
    layout : Layout
    """

    module: str
    run: int | None
    entry: Entry
    layout: Layout


class LayerTable(Sequence[LayerInfo]):
    """A network's layers on the way from the image to the logits.

    Attributes
    ----------
    parts : Mapping of str to Part
        By names such as ``"up1:skip"``, where each stage's skips and its upsampling path enter.
    output : int
        Which of several heads of one size the logits are; see
        :func:`~unetcam.models.output.pick_logits`.

    Examples
    --------
    >>> table = LayerTable([LayerInfo("up1", "decoder", 2, 64, (32, 32), ("down1",))])
    >>> table.decoder
    ('up1',)
    >>> print(table)
    layer  stage    stride  channels  size   skips
    up1    decoder       2        64  32x32  down1
    """

    def __init__(
        self,
        layers: Sequence[LayerInfo],
        parts: Mapping[str, Part] | None = None,
        output: int = 0,
    ) -> None:
        self._layers = tuple(layers)
        self.parts = dict(parts or {})
        self.output = output

    @property
    def decoder(self) -> tuple[str, ...]:
        """The decoder layers' names, deepest first: what ``layers=None`` explains."""
        return tuple(layer.name for layer in self if layer.stage == "decoder")

    @property
    def strides(self) -> dict[str, int]:
        """Each layer's stride by its name."""
        return {layer.name: layer.stride for layer in self}

    def drawn(self) -> str:
        """The layers as a U, for a monospaced font; see :func:`~unetcam.models.drawing.drawn`."""
        return drawn(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One dict per layer, ready for JSON or a data frame."""
        return [asdict(layer) for layer in self]

    @overload
    def __getitem__(self, index: int) -> LayerInfo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LayerInfo, ...]: ...
    def __getitem__(self, index: int | slice) -> LayerInfo | tuple[LayerInfo, ...]:
        return self._layers[index]

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[LayerInfo]:
        return iter(self._layers)

    def __str__(self) -> str:
        cells = [("layer", "stage", "stride", "channels", "size", "skips")]
        cells += [
            (
                layer.name,
                layer.stage,
                str(layer.stride),
                str(layer.channels),
                "x".join(map(str, layer.size)),
                ", ".join(layer.skips),
            )
            for layer in self
        ]
        widths = [max(len(row[column]) for row in cells) for column in range(6)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if column in (2, 3) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        )

    def __repr__(self) -> str:
        return f"LayerTable({list(self._layers)!r})"
