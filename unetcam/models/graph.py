"""What a trace says of each tensor: is it a feature map, how large, of what stride."""

from __future__ import annotations

import math

from unetcam.models.tracing import Node, Trace

_REDUCED = ("mean", "amax", "std", "var")
_GROWTH = 1.5  # what resamples changes a side by this factor at least; a border doesn't


class FeatureGraph:
    """The tensors of one run as a graph of feature maps.

    Attributes
    ----------
    nodes : tuple of Node
    ancestors : list of int
        Each node's ancestors and itself, as the bits of an integer.
    maps : list of bool
        Whether the node is a feature map: as (B, K, *spatial), as tokens or channels last.
    extents : list of tuple of int
        Each node's spatial size; what is no map carries that of the largest it came from.
    context : list of bool
        Nodes whose size comes of pooling to a fixed size, such as 1 x 1: they have no stride.
    strides : list of int
        Input pixels per pixel. Counted over what resamples, and so not led astray by
        convolutions without padding.
    """

    def __init__(self, run: Trace) -> None:
        self.nodes = run.nodes
        self.image = run.image
        self.dims = len(self.nodes[self.image].shape) - 2
        self.ancestors: list[int] = []
        self.maps: list[bool] = []
        self.extents: list[tuple[int, ...]] = []
        self.context: list[bool] = []
        self.strides: list[int] = []
        for node in self.nodes:
            self._add(node)

    def descends(self, node: int, ancestor: int) -> bool:
        """Whether `node` is `ancestor` or was made from it."""
        return bool(self.ancestors[node] >> ancestor & 1)

    def growth(self, node: Node) -> float:
        """By how many octaves an operation enlarges its largest input; 0 for a border."""
        if not node.inputs or not self.maps[node.index]:
            return 0.0
        ratio = max(self._ratios(node, self._largest(node)))
        return math.log2(ratio) if ratio >= _GROWTH else 0.0

    def upsampling(self, node: Node, before: int) -> float:
        """The growth from the feature map `before`; context or a one-channel gate is none."""
        context = self.context[before] or self.context[node.index]
        is_feature = not context and self.nodes[before].channels > 1
        return self.growth(node) if is_feature else 0.0

    def _add(self, node: Node) -> None:
        bits = 1 << node.index
        for before in node.inputs:
            bits |= self.ancestors[before]
        self.ancestors.append(bits)
        carried = [self.extents[before] for before in node.inputs]
        self.maps.append(node.layout is not None)
        bordered = "pad" in node.op  # a border is taken off again by what follows
        own = None if carried and bordered else node.grid
        unplaced = max(carried, key=math.prod, default=(1,) * self.dims)
        self.extents.append(unplaced if own is None else own)
        self.strides.append(self._stride(node))
        inherited = bool(node.inputs) and all(self.context[before] for before in node.inputs)
        self.context.append(self._is_pooled(node) or (inherited and not self.growth(node)))

    def _largest(self, node: Node) -> int:
        return max(node.inputs, key=lambda before: math.prod(self.extents[before]))

    def _ratios(self, node: Node, before: int) -> list[float]:
        return [
            new / old
            for new, old in zip(self.extents[node.index], self.extents[before], strict=True)
        ]

    def _stride(self, node: Node) -> int:
        if not node.inputs:
            whole = math.prod(self.extents[self.image]) / math.prod(self.extents[node.index])
            return max(1, round(math.pow(whole, 1 / self.dims)))
        before = self._largest(node)
        ratios = self._ratios(node, before)
        ratio = math.prod(ratios) ** (1 / self.dims)
        stride = self.strides[before]
        if node.op == "__getitem__" and not (1 / ratio).is_integer():
            return stride  # cropped, not strided
        if ratio >= _GROWTH:
            return max(1, round(stride / round(ratio)))
        return stride * round(1 / ratio) if ratio <= 1 / _GROWTH else stride

    def _is_pooled(self, node: Node) -> bool:
        if node.op.startswith("adaptive"):
            return True
        return node.op.startswith(_REDUCED) and any(
            math.prod(self.extents[node.index]) < math.prod(self.extents[before])
            for before in node.inputs
        )
