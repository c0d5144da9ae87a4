"""The decoder's path through a network: up as far, and past as many skips, as possible."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from unetcam.models.tracing import Call, Node, Trace

_ENCODER_MAPS = 3  # an encoder module hands out this many maps; a block with a skip, two


@dataclass(frozen=True)
class _Step:
    """The last step of the best path from the image to a node, and what the path amounts to."""

    growth: float
    gated: bool
    joins: int
    before: int
    last_up: int | None


@dataclass(frozen=True)
class DecoderPath:
    """The best path from the image to a node.

    Attributes
    ----------
    nodes : tuple of int
        From the image on.
    last_ups : dict of int to int or None
        For each node the last upsampling up to and with it.
    growth : float
        By how many octaves it is enlarged on the whole.
    """

    nodes: tuple[int, ...]
    last_ups: dict[int, int | None]
    growth: float


class DecoderPaths:
    """Finds the best paths through one run.

    Parameters
    ----------
    run : Trace
    graph : FeatureGraph
        That of the run.
    """

    def __init__(self, run: Trace, graph: FeatureGraph) -> None:
        self.graph = graph
        self._nodes, self._image, self._calls = run.nodes, run.image, run.calls
        self._is_no_feature = _gates_and_side_outputs(run.nodes, run.heads)
        self._origins = self._features_origins()
        #: Up to which node an encoder runs that is a module and hands out several maps; else 0.
        self.encoded = self._encoder_end(run.heads)

    def to(self, goal: int) -> tuple[DecoderPath, tuple[Call, ...]]:
        """The best path to a node, and the blocks that count as one step of it.

        A block that goes down and up again by itself, such as those that a nested U-Net is made
        of, is a step at one scale: its upsampling does not count.
        """
        path = self._path(goal, ())
        if not self._goes_down_again(path):
            return path, ()
        blocks = self._blocks(path)
        outer = self._path(goal, blocks)
        # Of U-Nets one behind the other the last one counts.
        if blocks and not outer.growth:
            blocks = blocks[:-1]
            outer = self._path(goal, blocks)
        return outer, blocks

    def joining(self, node: Node, before: int, last_up: int | None) -> list[int]:
        """Branches that join the path at `node` and don't come of its last upsampling."""
        if last_up is None:
            return []
        return [
            other
            for other in node.inputs
            if other != before
            and not self.is_gate(other)
            and self.graph.extents[other] == self.graph.extents[node.index]
            and not self._origins[other] >> last_up & 1
        ]

    def is_gate(self, node: int) -> bool:
        """Context, and maps of one channel that weigh others, are no features; nor empty ones."""
        if node == self._image:
            return False
        one = self._nodes[node].channels <= 1
        return self.graph.context[node] or (one and self._is_no_feature[node])

    # -- ranking -----------------------------------------------------------------------------

    def _path(self, goal: int, blocks: tuple[Call, ...]) -> DecoderPath:
        best: dict[int, _Step] = {self._image: _Step(0.0, False, 0, -1, None)}
        for node in self._nodes[self._image + 1 : goal + 1]:
            if not self.graph.descends(goal, node.index):
                continue
            flat = node.index < self.encoded or any(block.made(node.index) for block in blocks)
            steps = [
                self._step(node, before, best[before], flat=flat)
                for before in node.inputs
                if before in best
            ]
            if steps:
                best[node.index] = max(steps, key=self._rank)
        nodes, at = [], goal
        while at != -1:
            nodes.append(at)
            at = best[at].before
        nodes.reverse()
        return DecoderPath(tuple(nodes), {at: best[at].last_up for at in nodes}, best[goal].growth)

    def _step(self, node: Node, before: int, best: _Step, *, flat: bool) -> _Step:
        growth = 0.0 if flat else self.graph.upsampling(node, before)
        gated = best.gated or self.is_gate(before)
        joins = best.joins + len(self.joining(node, before, best.last_up))
        last_up = node.index if growth else best.last_up
        return _Step(best.growth + growth, gated, joins, before, last_up)

    def _rank(self, step: _Step) -> tuple[float, bool, int, int, int]:
        pixels = math.prod(self.graph.extents[step.before])
        return round(step.growth, 1), not step.gated, step.joins, pixels, step.before

    # -- what a path passes ------------------------------------------------------------------

    def _features_origins(self) -> list[int]:
        """Each node's ancestors by its features alone, as bits: what weighs them is left out."""
        origins: list[int] = []
        for node in self._nodes:
            features = [before for before in node.inputs if not self.is_gate(before)]
            bits = 1 << node.index
            for before in features or node.inputs:
                bits |= origins[before]
            origins.append(bits)
        return origins

    def _encoder_end(self, heads: tuple[int, ...]) -> int:
        encoders = [
            call
            for call in self._calls
            if call.name
            and len(set(call.outputs)) >= _ENCODER_MAPS
            and not any(call.made(head) for head in heads)
        ]
        return min(encoders, key=lambda call: (call.start, call.depth)).end if encoders else 0

    def _goes_down_again(self, path: DecoderPath) -> bool:
        """Whether the path is enlarged, reduced, and enlarged again."""
        ups, reduced = 0, False
        for before, at in itertools.pairwise(path.nodes):
            if path.last_ups[at] == at:
                if reduced:
                    return True
                ups += 1
            elif ups and self.graph.strides[at] > self.graph.strides[before]:
                reduced = True
        return False

    def _blocks(self, path: DecoderPath) -> tuple[Call, ...]:
        """The outermost modules that the path leaves at the scale at which it came in."""
        ups = {at for at in path.nodes if path.last_ups[at] == at}
        blocks: list[Call] = []
        for call in sorted(self._calls, key=lambda call: (call.start, call.depth)):
            inside = [at for at in path.nodes if call.made(at)]
            if not inside or any(block.made(inside[0]) for block in blocks):
                continue
            entry = path.nodes[max(0, path.nodes.index(inside[0]) - 1)]
            strides = self.graph.strides
            level = strides[entry] == strides[inside[-1]] < max(strides[at] for at in inside)
            if level and 0 < sum(call.made(up) for up in ups) < len(ups):
                blocks.append(call)
        return tuple(blocks)


_PRODUCTS = ("mul", "__mul__", "__rmul__", "__imul__", "multiply", "bmm", "matmul", "__matmul__")


#: Operations with weights, or that an untraced one may hide.
_LEARNED = ("conv", "linear", "matmul", "__matmul__", "einsum", "bmm", "addmm", "opaque")


def is_learned(node: Node) -> bool:
    """Whether an operation puts weights to features."""
    return node.op.startswith(_LEARNED)


def _gates_and_side_outputs(nodes: tuple[Node, ...], heads: tuple[int, ...]) -> list[bool]:
    """Whether each map of at most one channel is no feature.

    One that goes, alone, into a product with a map of more channels weighs that; one that is
    returned, enlarged or otherwise changed without weights, is a side output, as those that a
    last convolution fuses.
    """
    weighs = [node.channels < 1 for node in nodes]
    side_outputs = [node.index in heads for node in nodes]
    for node in reversed(nodes):
        alone = node.channels <= 1
        is_weight = weighs[node.index] if alone else node.op.startswith(_PRODUCTS)
        is_side_output = alone and side_outputs[node.index] and not is_learned(node)
        for before in node.inputs:
            if nodes[before].channels <= 1:
                weighs[before] = weighs[before] or is_weight
                side_outputs[before] = side_outputs[before] or is_side_output
    return [weigh or side_output for weigh, side_output in zip(weighs, side_outputs, strict=True)]


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
