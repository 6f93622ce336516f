"""Replaces a dense block by one op whose layers append to one buffer, without concatenation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, DenseBlock
from cnngraph.ops.merge import Concat

_MIN_LAYERS = 2
_MAX_STEPS = 2


@dataclass(frozen=True)
class _Layer:
    """A concatenation, and the activations and convolutions that compute what it appends."""

    steps: tuple[tuple[Node, Node], ...]
    concat: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*(node for step in self.steps for node in step), self.concat)

    def kinds(self) -> Iterator[object]:
        """For each step, what must be the same in all steps of a block."""
        for activation, _ in self.steps:
            if isinstance(activation.op, BatchNormAct):
                yield activation.op.activation, getattr(activation.op.batch_norm, "eps", None)


def plan_dense_blocks(graph: Graph) -> Graph:
    """Replaces the longest runs of at least two layers that have one activation and one eps."""
    layers = {node.path: layer for node in graph.nodes if (layer := _layer(graph, node))}

    def match(node: Node) -> Group | None:
        block = _block(graph, layers, layers[node.path]) if node.path in layers else []
        return _fuse(block) if len(block) >= _MIN_LAYERS else None

    return graph.rewrite(match)


def _layer(graph: Graph, concat: Node) -> _Layer | None:
    """The layer whose result this concatenation appends to the maps that the layer reads."""
    if not isinstance(concat.op, Concat) or len(concat.inputs) != 2:
        return None
    maps, path = concat.inputs
    steps: list[tuple[Node, Node]] = []
    reader = concat
    while path != maps and len(steps) < _MAX_STEPS:
        conv = graph.producer_for(reader, path)
        if conv is None or not _keeps_size(graph, conv):
            return None
        activation = graph.producer_for(conv, conv.inputs[0])
        if activation is None or not isinstance(activation.op, BatchNormAct):
            return None
        if activation.op.residual or activation.op.activation is None:
            return None
        steps.insert(0, (activation, conv))
        reader, path = activation, activation.inputs[0]
    return _Layer(tuple(steps), concat) if path == maps and steps else None


def _keeps_size(graph: Graph, conv: Node) -> bool:
    op = conv.op
    if not isinstance(op, Conv2d) or op.stride != (1, 1) or op.padding_mode != "zeros":
        return False
    return conv.shape.spatial == graph.shape_of(conv.inputs[0]).spatial


def _block(graph: Graph, layers: dict[str, _Layer], last: _Layer) -> list[_Layer]:
    """The longest run of layers that ends with this one, each read by the next one only."""
    block = [last]
    while True:
        first = block[0]
        before = layers.get(first.concat.inputs[0])
        if before is None or not _alike(before, last):
            return block
        path = before.concat.path
        users = {node.path for node in graph.users[path]}
        if path in graph.outputs or users != {first.steps[0][0].path, first.concat.path}:
            return block
        block.insert(0, before)


def _alike(layer: _Layer, other: _Layer) -> bool:
    """Whether one operator can run both: one activation, one eps, and as many steps in each."""
    same_kinds = len({*layer.kinds(), *other.kinds()}) == 1
    same_place = layer.concat.aux == other.concat.aux
    return same_kinds and same_place and len(layer.steps) == len(other.steps)


def _fuse(block: Sequence[_Layer]) -> Group:
    nodes = [node for layer in block for node in layer.nodes]
    layers = tuple(tuple((norm.op, conv.op) for norm, conv in layer.steps) for layer in block)
    op = DenseBlock(layers=layers)  # pyright: ignore[reportArgumentType]
    return nodes, Node.fuse(nodes, op, block[0].concat.inputs[:1])
