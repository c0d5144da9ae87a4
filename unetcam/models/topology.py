"""Find a U-Net's layers by running it once and watching.

The run gives a graph of tensors. The decoder's path leads from the image to the logits through as
much upsampling as possible and, among equals, past as many skips as possible. Its upsamplings
divide it into stages; a stage's layer is the outermost module that gives its last feature map, or,
where a function gives it, the first module that takes it on. No module's name or type is looked at.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from unetcam.engine.request import Entry
from unetcam.errors import ModelError
from unetcam.models.decoder_path import DecoderPaths, FeatureGraph, is_learned
from unetcam.models.layers import LayerInfo, LayerTable, Part, Stage
from unetcam.models.outputs import OutputMap
from unetcam.models.tracing import Call, Trace


def table_of(run: Trace) -> LayerTable:
    """The layers that a run of a network shows; see :func:`unetcam.find_layers`."""
    return _Topology(run).table()


class _Topology:
    def __init__(self, run: Trace) -> None:
        self.nodes, self.image, self.calls = run.nodes, run.image, run.calls
        self.graph = FeatureGraph(run)
        self.paths = DecoderPaths(run, self.graph)
        self.rivals: tuple[int, ...] = ()
        self.output, self.logits = self._chosen(run.outputs)
        self.maker, features = self._head(self.logits)
        self.path, self.blocks = self.paths.to(features)
        self.runs = Counter(call.name for call in self.calls)
        self.layers = [call for call in self.calls if call.name and call.single]
        self.names = self._names()

    def _names(self) -> dict[Call, str]:
        """What each run of a module is called: of several, by its number among them."""
        names: dict[Call, str] = {}
        counts: Counter[str] = Counter()
        for call in sorted(self.calls, key=lambda call: call.start):
            counts[call.name] += 1
            number = f"#{counts[call.name]}" if self.runs[call.name] > 1 else ""
            names[call] = f"{call.name}{number}"
        return names

    # -- the head ----------------------------------------------------------------------------

    def _chosen(self, outputs: Sequence[OutputMap]) -> tuple[int, int]:
        """Of several outputs the largest that as much upsampling as possible leads to.

        Never one from which another descends through a learned operation: features, hidden
        states, and what a further stage refines.
        """
        traced = [
            (index, output.pixels, output.node)
            for index, output in enumerate(outputs)
            if output.node is not None
            and output.node != self.image
            and self.graph.descends(output.node, self.image)
        ]
        if not traced:
            raise ModelError(
                "The logits could not be traced back to the image: name the layers yourself with "
                "layers=[...] (model.named_modules() lists them)."
            )
        last = [one for one in traced if not self._is_passed(one[2], one[1], traced)]
        most = max(pixels for _, pixels, _ in last)
        largest = [(index, node) for index, pixels, node in last if pixels == most]
        self.rivals = tuple(index for index, _ in largest)
        if len(largest) == 1:
            return largest[0]

        def growth(head: int) -> float:
            return round(self.paths.to(self._head(head)[1])[0].growth, 1)

        return max(largest, key=lambda one: growth(one[1]))

    def _is_passed(self, node: int, pixels: int, others: Sequence[tuple[int, int, int]]) -> bool:
        """Whether a later output counts instead; a smaller one of as many channels is its copy."""
        channels = self.nodes[node].channels
        later = {
            other
            for _, size, other in others
            if other != node and (size >= pixels or self.nodes[other].channels != channels)
        }
        return self._is_learned_from(later, node)

    def _is_learned_from(self, others: set[int], start: int) -> bool:
        """Whether one of some nodes descends from another through a learned operation."""
        learned: dict[int, bool] = {start: False}
        for node in self.nodes[start + 1 : max(others, default=start) + 1]:
            through = [learned[before] for before in node.inputs if before in learned]
            if through:
                learned[node.index] = any(through) or is_learned(node)
        return any(learned.get(other, False) for other in others)

    def _head(self, logits: int) -> tuple[int, int]:
        """The operation that makes the logits, and the feature map that it is given.

        Between it and the logits no weights act on features: what else reaches the logits (a
        gate or a score from the bottleneck, a second head, a prior) is no decoder. Of several
        operations the one counts whose features come by the most upsampling.
        """
        makers: dict[int, int] = {}
        left, passed = [logits], set[int]()
        while left:
            at = left.pop()
            if at in passed:
                continue
            passed.add(at)
            node = self.nodes[at]
            if node.inputs and is_learned(node):
                makers[at] = max(
                    node.inputs, key=lambda before: (math.prod(self.graph.extents[before]), before)
                )
            else:
                left += node.inputs
        if not makers:
            raise ModelError(
                "No convolution or linear layer makes the logits: name the layers yourself with "
                "layers=[...] (model.named_modules() lists them)."
            )
        if len(makers) == 1:
            return next(iter(makers.items()))

        def rank(maker: int) -> tuple[bool, bool, float, int]:
            features = makers[maker]
            from_image = not self.graph.descends(features, self.image) or features == self.image
            growth = 0.0 if from_image else round(self.paths.to(features)[0].growth, 1)
            return not from_image, not self.paths.is_gate(features), growth, maker

        best = max(makers, key=rank)
        return best, makers[best]

    # -- the table ---------------------------------------------------------------------------

    def table(self) -> LayerTable:
        rows: list[LayerInfo] = []
        entries: dict[str, Part] = {}
        end = 0
        for stage, nodes in self._stages():
            call = self._layer(nodes, end)
            if call is not None:
                end = call.end
            else:
                call = self._taken_on(nodes[-1])
            if call is None:
                continue
            if stage == "bottleneck" and 0 < self.paths.encoded <= call.start:
                stage = "decoder"
            parts = {f"{self.names[call]}:{part}": at for part, at in self._parts(nodes).items()}
            rows.append(self._row(call, stage, call.outputs[0], self._skips(nodes, call), parts))
            entries |= parts
        if rows and not any(row.stage == "decoder" for row in rows):
            rows[-1] = replace(rows[-1], stage="decoder")
        head = [call for call in self.layers if call.made(self.maker) and call.start >= end]
        if head:
            outermost = min(head, key=lambda call: call.depth)
            rows.append(self._row(outermost, "head", self.logits, (), {}))
        return LayerTable(rows, entries, self.output, self.rivals)

    def _stages(self) -> Iterable[tuple[Stage, list[int]]]:
        """The path's nodes by stage: the encoder's by stride, then one stage per upsampling."""
        down: dict[int, list[int]] = {}
        up: dict[int, list[int]] = {}
        for node in self.path.nodes:
            within = any(block.made(node) and node not in block.outputs for block in self.blocks)
            if node == self.image or within or self.paths.is_gate(node):
                continue
            last_up = self.path.last_ups[node]
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
            if call.start >= end and inside.intersection(call.outputs) and self._gives_map(call)
        ]
        # Of two modules equally far out the later one; of two that give the same map its maker.
        return min(fitting, key=lambda call: (call.depth, -call.outputs[0], call.end), default=None)

    def _taken_on(self, last: int) -> Call | None:
        """Where a function gives a stage's last map: the first module that takes it on, if any."""
        size = self.graph.extents[last]
        fitting = [
            call
            for call in self.layers
            if call.start > last
            and self._gives_map(call)
            and self.graph.extents[call.outputs[0]] == size
            and self.graph.descends(call.outputs[0], last)
            and not call.made(self.maker)
            and call.outputs[0] not in self.path.last_ups
        ]
        return min(fitting, key=lambda call: (call.start, call.depth), default=None)

    def _gives_map(self, call: Call) -> bool:
        return (
            bool(call.outputs) and call.made(call.outputs[0]) and self.graph.maps[call.outputs[0]]
        )

    def _skips(self, nodes: list[int], layer: Call) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for before, at in itertools.pairwise(nodes):
            for other in self.paths.joining(self.nodes[at], before, self.path.last_ups[before]):
                names[self._source(other, layer)] = None
        return tuple(names)

    def _parts(self, nodes: list[int]) -> dict[str, Part]:
        """Where a stage's skips enter, and the upsampling path beside the first of them."""
        path: Part | None = None
        skips: list[Part | None] = []
        for before, at in itertools.pairwise(nodes):
            joining = self.paths.joining(self.nodes[at], before, self.path.last_ups[before])
            if joining and path is None:
                path = self._part(at, before)
            skips += [self._part(at, other) for other in joining]
        names = ["skip"] if len(skips) == 1 else [f"skip{i}" for i in range(1, len(skips) + 1)]
        parts = {**dict(zip(names, skips, strict=True)), "path": path}
        return {name: part for name, part in parts.items() if part is not None}

    def _part(self, at: int, given: int) -> Part | None:
        """The entry of a node into the operation that makes another; None where it is no map."""
        node, source = self.nodes[at], self.nodes[given]
        if node.site is None or source.layout is None:
            return None
        position = node.site.positions[node.inputs.index(given)]
        entry = Entry(node.op, node.site.count, position, source.channels)
        run = node.site.run if self.runs[node.site.module] > 1 else None
        return Part(node.site.module, run, entry, source.layout)

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
                return self.names[min(givers, key=lambda call: call.depth)]
            # Of a map and the gate it is multiplied with, the map is the feature.
            node = max(
                self.nodes[node].inputs,
                key=lambda index: (
                    not self.paths.is_gate(index),
                    math.prod(self.graph.extents[index]),
                    index,
                ),
            )
        return "input"

    def _row(
        self,
        call: Call,
        stage: Stage,
        node: int,
        skips: tuple[str, ...],
        parts: Mapping[str, Part],
    ) -> LayerInfo:
        return LayerInfo(
            self.names[call],
            stage,
            self.graph.strides[node],
            self.nodes[node].channels,
            tuple(self.graph.extents[node]),
            skips,
            tuple(name.rpartition(":")[2] for name in parts),
        )
