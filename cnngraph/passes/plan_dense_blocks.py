"""The layers of a dense block become one node: each adds channels to one buffer, in place of a concatenation a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, DenseBlock
from cnngraph.ops.merge import Concat

_FEWEST_LAYERS = 2
_MOST_STEPS = 2


@dataclass(frozen=True)
class _Layer:
    """What a concatenation adds to what it reads first: convolutions, and the activations before them."""

    steps: tuple[tuple[Node, Node], ...]
    concat: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*(node for step in self.steps for node in step), self.concat)


def plan_dense_blocks(graph: Graph) -> Graph:
    layers = {node.path: layer for node in graph.nodes if (layer := _layer(graph, node))}
    fused: dict[str, Node] = {}
    taken: set[str] = set()
    for path in reversed(list(layers)):
        if path in taken:
            continue
        block = _block(graph, layers, layers[path])
        if len(block) >= _FEWEST_LAYERS:
            taken.update(node.path for layer in block for node in layer.nodes)
            fused[path] = _fuse(block)
    nodes = [fused.get(node.path, node) for node in graph.nodes if node.path in fused or node.path not in taken]
    return graph.with_nodes(nodes)


def _layer(graph: Graph, concat: Node) -> _Layer | None:
    """The layer whose result this concatenation puts after what the layer itself reads."""
    if not isinstance(concat.op, Concat) or len(concat.inputs) != 2:
        return None
    maps, path = concat.inputs
    steps: list[tuple[Node, Node]] = []
    reader = concat
    while path != maps and len(steps) < _MOST_STEPS:
        conv = _only_for(graph, reader, path)
        activation = _only_for(graph, conv, conv.inputs[0]) if conv and _keeps_the_size(graph, conv) else None
        if conv is None or activation is None:
            return None
        if not isinstance(activation.op, BatchNormAct) or activation.op.residual or activation.op.activation is None:
            return None
        steps.insert(0, (activation, conv))
        reader, path = activation, activation.inputs[0]
    return _Layer(tuple(steps), concat) if path == maps and steps else None


def _only_for(graph: Graph, reader: Node, path: str) -> Node | None:
    """The node of a value that `reader` alone reads."""
    node = graph.by_path.get(path)
    if node is None or path in graph.outputs or graph.users[path] != (reader,) or node.aux != reader.aux:
        return None
    return node


def _keeps_the_size(graph: Graph, conv: Node) -> bool:
    op = conv.op
    if not isinstance(op, Conv2d) or op.stride != (1, 1) or op.padding_mode != "zeros":
        return False
    return conv.shape.spatial == graph.shape_of(conv.inputs[0]).spatial


def _block(graph: Graph, layers: dict[str, _Layer], last: _Layer) -> list[_Layer]:
    """The longest run of layers that ends with this one, of which each reads the one before, and no other node does."""
    block = [last]
    while True:
        first = block[0]
        before = layers.get(first.concat.inputs[0])
        if before is None or not _alike(before, last):
            return block
        path = before.concat.path
        readers = {node.path for node in graph.users[path]}
        if path in graph.outputs or readers != {first.steps[0][0].path, first.concat.path}:
            return block
        block.insert(0, before)


def _alike(layer: _Layer, other: _Layer) -> bool:
    """Whether one operator can run both: it has one activation, one eps, and as many steps for each layer."""
    kinds = {
        (step.op.activation, step.op.batch_norm.eps)  # pyright: ignore[reportAttributeAccessIssue]
        for step, _ in (*layer.steps, *other.steps)
    }
    return len(layer.steps) == len(other.steps) and len(kinds) == 1 and layer.concat.aux == other.concat.aux


def _fuse(block: Sequence[_Layer]) -> Node:
    """The fused node has the path and place of the last concatenation, by which others read it."""
    op = DenseBlock(layers=tuple(tuple((norm.op, conv.op) for norm, conv in layer.steps) for layer in block))  # pyright: ignore[reportArgumentType]
    parts = [part for layer in block for node in layer.nodes for part in node.leaves]
    return replace(block[-1].concat, op=op, inputs=block[0].concat.inputs[:1], parts=tuple(parts))
