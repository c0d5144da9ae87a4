"""The table of a network's layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, overload

Stage = Literal["encoder", "bottleneck", "decoder", "head"]


@dataclass(frozen=True)
class LayerInfo:
    """One layer: the last feature map of its stage.

    Attributes
    ----------
    name : str
        As in ``model.named_modules()``.
    stage : {"encoder", "bottleneck", "decoder", "head"}
    stride : int
        Input pixels per pixel of its map.
    channels : int
    size : tuple of int
        The map's spatial size for the example.
    skips : tuple of str
        The modules from which other branches join this stage.
    """

    name: str
    stage: Stage
    stride: int
    channels: int
    size: tuple[int, ...]
    skips: tuple[str, ...] = ()


class LayerTable(Sequence[LayerInfo]):
    """A network's layers on the way from the image to the logits.

    Examples
    --------
    >>> table = LayerTable([LayerInfo("up1", "decoder", 2, 64, (32, 32), ("down1",))])
    >>> table.decoder
    ('up1',)
    >>> print(table)
    layer  stage    stride  channels  size   skips
    up1    decoder       2        64  32x32  down1
    """

    def __init__(self, layers: Sequence[LayerInfo]) -> None:
        self._layers = tuple(layers)

    @property
    def decoder(self) -> tuple[str, ...]:
        """The decoder layers' names, deepest first: what ``layers=None`` explains."""
        return tuple(layer.name for layer in self if layer.stage == "decoder")

    @property
    def strides(self) -> dict[str, int]:
        """Each layer's stride by its name."""
        return {layer.name: layer.stride for layer in self}

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
