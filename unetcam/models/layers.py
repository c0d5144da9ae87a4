"""The table of a network's layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

from unetcam.engine.layout import Layout
from unetcam.engine.request import Entry

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
        Which of the network's outputs that can be the logits they are.
    rivals : tuple of int
        The outputs among which it was chosen by the layers that lead to them.

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
        rivals: Sequence[int] = (),
    ) -> None:
        self._layers = tuple(layers)
        self.parts = dict(parts or {})
        self.output = output
        self.rivals = tuple(rivals)

    @property
    def decoder(self) -> tuple[str, ...]:
        """The decoder layers' names, deepest first: what ``layers=None`` explains."""
        return tuple(layer.name for layer in self if layer.stage == "decoder")

    @property
    def strides(self) -> dict[str, int]:
        """Each layer's stride by its name."""
        return {layer.name: layer.stride for layer in self}

    def drawn(self) -> str:
        """The layers as a U, for a monospaced font; see :func:`~unetcam.models.layers.drawn`."""
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


_INDENT = 2
_SHORTEST = 3  # of an arrow's shaft


def drawn(layers: Sequence[LayerInfo]) -> str:
    """The encoder going down on the left, the decoder coming up on the right, skips between them.

    Parameters
    ----------
    layers : sequence of LayerInfo
        From the image to the logits.

    Returns
    -------
    str
        One line for each stride, with each layer's name and channels, for a monospaced font. An
        arrow is a skip; it bears the name of the module that it comes of where that is no layer
        of the encoder, and how many more skips there are.

    Examples
    --------
    >>> from unetcam.models.layers import LayerInfo
    >>> print(drawn([
    ...     LayerInfo("inc", "encoder", 1, 8, (32, 32)),
    ...     LayerInfo("down", "bottleneck", 2, 16, (16, 16)),
    ...     LayerInfo("up", "decoder", 1, 8, (32, 32), ("inc",)),
    ...     LayerInfo("out", "head", 1, 3, (32, 32))]))
    stride
         1  inc 8 ───▶ up 8 ═▶ out 3
         2    down 16
    """
    strides = sorted({layer.stride for layer in layers})
    lines = [
        _line(_INDENT * depth, [layer for layer in layers if layer.stride == stride])
        for depth, stride in enumerate(strides)
    ]
    right = max(line.least for line in lines)
    rows = (
        f"{stride:>6}  {line.drawn(right)}".rstrip()
        for stride, line in zip(strides, lines, strict=True)
    )
    return "\n".join(["stride", *rows])


@dataclass(frozen=True)
class _Line:
    """One stride: the encoder's side, a skip's arrow, and the decoder's side."""

    indent: int
    left: str
    arrow: str | None
    right: str

    @property
    def least(self) -> int:
        """How far right the first line's decoder must begin for this line to fit."""
        arrow = 0 if self.arrow is None else len(self.arrow) + _SHORTEST + 3
        return 2 * self.indent + len(self.left) + arrow

    def drawn(self, right: int) -> str:
        """The line, where the first line's decoder begins at `right`."""
        room = right - 2 * self.indent - len(self.left)
        shaft = "─" * (room - len(self.arrow) - 3) if self.arrow is not None else ""
        between = " " * room if self.arrow is None else f" {self.arrow}{shaft}▶ "
        return f"{'':{self.indent}}{self.left}{between}{self.right}"


def _line(indent: int, layers: Sequence[LayerInfo]) -> _Line:
    down = [layer for layer in layers if layer.stage in ("encoder", "bottleneck")]
    up = [layer for layer in layers if layer.stage == "decoder"]
    head = [layer for layer in layers if layer.stage == "head"]
    skips = [name for layer in up for name in layer.skips]
    left = _listed(down)
    if skips and not down:
        left = skips.pop(0)
        arrow: str | None = _label(skips)
    else:
        arrow = _label([] if skips == [down[-1].name] else skips) if skips else None
    right = _listed(up) + "".join(f" ═▶ {_listed([layer])}" for layer in head)
    return _Line(indent, left, arrow, right.lstrip() if not up else right)


def _listed(layers: Sequence[LayerInfo]) -> str:
    return ", ".join(f"{layer.name} {layer.channels}" for layer in layers)


def _label(names: Sequence[str]) -> str:
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    return f"─ {names[0]}{more} " if names else ""
