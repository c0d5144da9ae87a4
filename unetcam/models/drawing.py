"""A network's layers, drawn as a U."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unetcam.models.table import LayerInfo

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
    >>> from unetcam.models.table import LayerInfo
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
