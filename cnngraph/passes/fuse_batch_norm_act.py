"""Batch norm, an addition to it if there is one, and the activation after them become one node, computed in one go."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.fused import BatchNormAct
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fuse_batch_norm_act(graph: Graph) -> Graph:
    fused: dict[str, Node] = {}
    taken: set[str] = set()
    for node in graph.nodes:
        parts = _parts(graph, node)
        if parts:
            taken.update(part.path for part in parts)
            fused[node.path] = _fuse(parts)
    nodes = [fused.get(node.path, node) for node in graph.nodes if node.path in fused or node.path not in taken]
    return graph.with_nodes(nodes)


def _parts(graph: Graph, activation: Node) -> tuple[Node, ...]:
    """What an activation that the kernel knows is fused with, and itself.

    Of two batch norms that are added to each other it is the first the addition reads, which ends the body of a residual.
    """
    if not isinstance(activation.op, FUSED_WITH_BATCH_NORM):
        return ()
    before = _only_for(graph, activation, activation.inputs[0])
    if before is None:
        return ()
    if isinstance(before.op, BatchNorm):
        return before, activation
    if isinstance(before.op, Add) and len(before.inputs) == 2:
        for path in before.inputs:
            norm = _only_for(graph, before, path)
            if norm is not None and isinstance(norm.op, BatchNorm):
                return norm, before, activation
    return ()


def _only_for(graph: Graph, reader: Node, path: str) -> Node | None:
    """The node of a value that `reader` alone reads, once."""
    node = graph.by_path.get(path)
    if node is None or path in graph.outputs or len(graph.users[path]) > 1 or node.aux != reader.aux:
        return None
    return node


def _fuse(parts: tuple[Node, ...]) -> Node:
    """The fused node has the activation's path and place, by which others read it."""
    norm, *adds, activation = parts
    residual = tuple(path for add in adds for path in add.inputs if path != norm.path)
    op = BatchNormAct(batch_norm=norm.op, activation=activation.op, residual=bool(adds))
    return replace(activation, op=op, inputs=(*norm.inputs, *residual), parts=parts)
