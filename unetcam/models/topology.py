"""Find a U-Net's layers by running it once and watching.

The run gives a graph of tensors. The way that counts leads from the image to the logits through as
much upsampling as possible and, among equals, past as many skips as possible. Its upsamplings
divide it into stages; a stage's layer is the outermost module that gives its last feature map.
No module's name or type is looked at.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor, nn

from unetcam.errors import ModelError
from unetcam.models.graph import FeatureGraph
from unetcam.models.output import Output
from unetcam.models.support import check_supported
from unetcam.models.table import LayerInfo, LayerTable, Stage
from unetcam.models.tracing import Call, Node, Trace, trace

_LEARNED = ("conv", "linear", "matmul", "__matmul__", "einsum", "bmm", "addmm", "opaque")
_ENCODER_MAPS = 3  # an encoder module hands out this many maps; a block with a skip, two


def find_layers(model: nn.Module, example: Tensor, *, output: Output | None = None) -> LayerTable:
    """The layers of a segmentation network, stage by stage.

    Parameters
    ----------
    model : nn.Module
        Any network that maps (B, C, *spatial) to logits (B, classes, *spatial); left as found.
    example : Tensor
        (B, C, *spatial) on the model's device, of a size that the network takes; its first image
        is run.
    output : callable, optional
        Picks the logits from what the model returns; see :func:`~unetcam.models.output.pick_logits`
        for what is understood without.

    Returns
    -------
    LayerTable
        From the image to the logits; ``.decoder`` holds the names of the decoder's layers.

    Raises
    ------
    ModelError
        When the logits can't be traced back to the image, or the model is of a kind that can't be
        hooked.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2),
    ...     nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 2, 1))
    >>> print(find_layers(model, torch.zeros(1, 1, 8, 8)))
    layer  stage       stride  channels  size  skips
    0      bottleneck       2         4  4x4
    2      decoder          1         8  8x8
    3      head             1         2  8x8
    """
    check_supported(model)
    return _Topology(trace(model, example, output)).table()


@dataclass(frozen=True)
class _Best:
    """The best way from the image to a node."""

    growth: float
    joins: int
    before: int
    last_up: int | None


class _Topology:
    def __init__(self, run: Trace) -> None:
        self.calls, self.logits = run.calls, run.logits
        self.graph = FeatureGraph(run)
        self.nodes, self.image = run.nodes, run.image
        if not self.graph.descends(self.logits, self.image):
            raise ModelError(
                "The logits could not be traced back to the image: name the layers yourself with "
                "layers=[...] (model.named_modules() lists them)."
            )
        runs = Counter(call.name for call in self.calls)
        self.layers = [
            call for call in self.calls if call.name and call.single and runs[call.name] == 1
        ]
        self.encoded = self._encoded()

    def _encoded(self) -> int:
        """Up to which node an encoder runs that is a module and hands out several maps; else 0."""
        encoders = [
            call
            for call in self.calls
            if call.name and len(set(call.outputs)) >= _ENCODER_MAPS and not call.made(self.logits)
        ]
        return min(encoders, key=lambda call: (call.start, call.depth)).end if encoders else 0

    # -- the way -----------------------------------------------------------------------------

    def _joining(self, node: Node, before: int, last_up: int | None) -> list[int]:
        """Branches that join the way at `node` and don't come of its last upsampling."""
        if last_up is None:
            return []
        return [
            other
            for other in node.inputs
            if other != before
            and self.graph.extents[other] == self.graph.extents[node.index]
            and not self.graph.descends(other, last_up)
        ]

    def _way_to(self, goal: int) -> list[tuple[int, int | None]]:
        """Nodes from the image to `goal` on the best way, each with its last upsampling."""
        best: dict[int, _Best] = {self.image: _Best(0.0, 0, -1, None)}
        for node in self.nodes[self.image + 1 : goal + 1]:
            if not self.graph.descends(goal, node.index):
                continue
            ways = []
            for before in node.inputs:
                if before not in best:
                    continue
                way = best[before]
                encoded = node.index < self.encoded
                growth = 0.0 if encoded else self.graph.upsampling(node, before)
                last_up = node.index if growth else way.last_up
                joins = len(self._joining(node, before, way.last_up))
                ways.append(_Best(way.growth + growth, way.joins + joins, before, last_up))
            if ways:
                best[node.index] = max(ways, key=self._rank)
        steps, at = [], goal
        while at != -1:
            steps.append((at, best[at].last_up))
            at = best[at].before
        return steps[::-1]

    def _rank(self, way: _Best) -> tuple[float, int, int, int]:
        pixels = 0 if self._is_gate(way.before) else math.prod(self.graph.extents[way.before])
        return round(way.growth, 1), way.joins, pixels, way.before

    def _is_gate(self, node: int) -> bool:
        """Context and one-channel maps weigh features, they are none."""
        return self.graph.context[node] or self.nodes[node].shape[1:2] == (1,)

    def _head(self) -> tuple[int, int]:
        """The operation that makes the logits, and the feature map that it is given."""
        at = self.logits
        while self.nodes[at].inputs:
            node = self.nodes[at]
            source = max(node.inputs)
            if node.op.startswith(_LEARNED):
                return at, source
            at = source
        raise ModelError(
            "No convolution or linear layer makes the logits: name the layers yourself with "
            "layers=[...] (model.named_modules() lists them)."
        )

    # -- the table ---------------------------------------------------------------------------

    def table(self) -> LayerTable:
        maker, features = self._head()
        way = self._way_to(features)
        rows: list[LayerInfo] = []
        end = 0
        for stage, nodes in self._stages(way):
            call = self._layer(nodes, end)
            if call is None:
                continue
            end = call.end
            if stage == "bottleneck" and 0 < self.encoded <= call.start:
                stage = "decoder"
            rows.append(
                self._row(call, stage, call.outputs[0], self._skips(nodes, dict(way), call))
            )
        if rows and not any(row.stage == "decoder" for row in rows):
            rows[-1] = replace(rows[-1], stage="decoder")
        head = [call for call in self.layers if call.made(maker) and call.start >= end]
        if head:
            outermost = min(head, key=lambda call: call.depth)
            rows.append(self._row(outermost, "head", self.logits, ()))
        return LayerTable(rows)

    def _stages(self, way: list[tuple[int, int | None]]) -> Iterable[tuple[Stage, list[int]]]:
        """The way's nodes by stage: the encoder's by stride, then one stage per upsampling."""
        down: dict[int, list[int]] = {}
        up: dict[int, list[int]] = {}
        for node, last_up in way:
            if node == self.image or self._is_gate(node):
                continue
            if last_up is None:
                down.setdefault(self.graph.strides[node], []).append(node)
            else:
                up.setdefault(last_up, []).append(node)
        encoder = [down[stride] for stride in sorted(down)]
        for nodes in encoder[:-1]:
            yield "encoder", nodes
        for nodes in encoder[-1:]:
            yield "bottleneck", nodes
        for nodes in up.values():
            yield "decoder", nodes

    def _layer(self, nodes: list[int], end: int) -> Call | None:
        """The outermost module that gives the stage's last map, without an earlier stage in it."""
        inside = set(nodes)
        fitting = [
            call
            for call in self.layers
            if call.start >= end
            and call.outputs
            and call.outputs[0] in inside
            and call.made(call.outputs[0])
            and self.graph.maps[call.outputs[0]]
        ]
        # Of two modules equally far out the later one; of two that give the same map its maker.
        return min(fitting, key=lambda call: (call.depth, -call.outputs[0], call.end), default=None)

    def _skips(
        self, nodes: list[int], last_ups: dict[int, int | None], layer: Call
    ) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for before, at in itertools.pairwise(nodes):
            for other in self._joining(self.nodes[at], before, last_ups[before]):
                names[self._source(other, layer)] = None
        return tuple(names)

    def _source(self, node: int, layer: Call) -> str:
        """The outermost module outside `layer` that gave a node, or the nearest before it."""
        while self.nodes[node].inputs:
            givers = [
                call
                for call in self.calls
                if call.name
                and call.single
                and node in call.outputs
                and call.made(node)
                and not (layer.start <= call.start and call.end <= layer.end)
            ]
            if givers:
                return min(givers, key=lambda call: call.depth).name
            # Of a map and the gate it is multiplied with, the map is the larger.
            node = max(
                self.nodes[node].inputs,
                key=lambda index: (math.prod(self.graph.extents[index]), index),
            )
        return "input"

    def _row(self, call: Call, stage: Stage, node: int, skips: tuple[str, ...]) -> LayerInfo:
        return LayerInfo(
            call.name,
            stage,
            self.graph.strides[node],
            self.nodes[node].shape[1],
            tuple(self.graph.extents[node]),
            skips,
        )
