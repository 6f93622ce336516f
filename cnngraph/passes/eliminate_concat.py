"""Lets branches write their result straight into the concatenated map."""

from __future__ import annotations

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops import Op
from cnngraph.ops.activation import ReLU
from cnngraph.ops.fused import BatchNormAct, CatBatchNormAct
from cnngraph.ops.merge import Concat


def eliminate_concat(graph: Graph) -> Graph:
    """Fuses a concatenation with the batch norms and activations at the ends of its branches.

    Runs after the passes that look for activations or concatenations.
    """

    def match(node: Node) -> Group | None:
        ends = _ends(graph, node) if isinstance(node.op, Concat) else {}
        return _fuse(ends, node) if ends else None

    return graph.rewrite(match)


def _ends(graph: Graph, concat: Node) -> dict[str, Node]:
    """The branches' last nodes that can be fused, by path. All must have the same activation."""
    ends: dict[str, Node] = {}
    activation: Op | None = None
    for path in concat.inputs:
        node = graph.producer_for(concat, path)
        if node is None:
            continue
        if isinstance(node.op, BatchNormAct) and not node.op.residual:
            own = node.op.activation
        elif isinstance(node.op, ReLU):
            own = node.op
        else:
            continue
        activation = activation or own
        if own in (None, activation):
            ends[path] = node
    return ends


def _fuse(ends: dict[str, Node], concat: Node) -> Group:
    nodes = [ends.get(path) for path in concat.inputs]
    op = CatBatchNormAct(branches=tuple(None if node is None else node.op for node in nodes))
    inputs = [
        path if node is None else node.inputs[0]
        for path, node in zip(concat.inputs, nodes, strict=True)
    ]
    group = [*ends.values(), concat]
    return group, Node.fuse(group, op, inputs)
