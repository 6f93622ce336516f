"""A max pool keeps a byte for each of its results, and takes in the ReLU before it where nothing else reads that."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.activation import ReLU
from cnngraph.ops.fused import FusedMaxPool2d
from cnngraph.ops.pool import MaxPool2d


def fuse_max_pool(graph: Graph) -> Graph:
    fused: dict[str, Node] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        if isinstance(node.op, MaxPool2d):
            before = graph.by_path.get(node.inputs[0])
            relu = before if before is not None and _is_for(graph, before, node) else None
            if relu is not None:
                taken.add(relu.path)
            fused[node.path] = _fuse(relu, node)
    return graph.with_nodes([fused.get(node.path, node) for node in graph.nodes if node.path not in taken])


def _is_for(graph: Graph, node: Node, pool: Node) -> bool:
    """Whether a node is a ReLU that the pool alone reads."""
    if not isinstance(node.op, ReLU) or node.path in graph.outputs or node.aux != pool.aux:
        return False
    return len(graph.users[node.path]) == 1


def _fuse(relu: Node | None, pool: Node) -> Node:
    """The fused node has the pool's path and place."""
    if relu is None:
        return replace(pool, op=FusedMaxPool2d(relu=None, pool=pool.op), parts=(pool,))
    op = FusedMaxPool2d(relu=relu.op, pool=pool.op)
    return replace(pool, op=op, inputs=relu.inputs, parts=(relu, pool))
