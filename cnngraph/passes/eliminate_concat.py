"""Branches that end in a batch norm, an activation, or both write their results side by side: nothing is concatenated after."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops import Op
from cnngraph.ops.activation import ReLU
from cnngraph.ops.fused import BatchNormAct, CatBatchNormAct
from cnngraph.ops.merge import Concat


def eliminate_concat(graph: Graph) -> Graph:
    """Runs after the passes that look for activations, or for concatenations of their own."""
    fused: dict[str, Node] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        ends = _ends(graph, node) if isinstance(node.op, Concat) else {}
        if ends:
            taken.update(ends)
            fused[node.path] = _fuse(ends, node)
    return graph.with_nodes([fused.get(node.path, node) for node in graph.nodes if node.path not in taken])


def _ends(graph: Graph, concat: Node) -> dict[str, Node]:
    """What the concatenation alone reads and the operator can compute, by path: it knows one activation for all."""
    ends: dict[str, Node] = {}
    activation: Op | None = None
    for path in concat.inputs:
        node = graph.by_path.get(path)
        if node is None or path in graph.outputs or len(graph.users[path]) > 1 or node.aux != concat.aux:
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


def _fuse(ends: dict[str, Node], concat: Node) -> Node:
    """The fused node has the concatenation's path and place; what it does not take in, it reads as ever."""
    nodes = [ends.get(path) for path in concat.inputs]
    op = CatBatchNormAct(branches=tuple(None if node is None else node.op for node in nodes))
    inputs = [path if node is None else node.inputs[0] for path, node in zip(concat.inputs, nodes, strict=True)]
    parts = [part for node in ends.values() for part in node.leaves]
    return replace(concat, op=op, inputs=tuple(inputs), parts=(*parts, concat))
