"""A batch norm and what follows it become one node, computed in one go: an addition, an activation, both, or neither."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.fused import BatchNormAct
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fuse_batch_norm_act(graph: Graph) -> Graph:
    """Works backwards, so that an addition goes with the activation after it, where that takes it."""
    fused: dict[str, Node] = {}
    taken: set[str] = set()
    for node in reversed(graph.nodes):
        parts = () if node.path in taken else _parts(graph, node)
        if parts:
            taken.update(part.path for part in parts)
            fused[node.path] = _fuse(parts)
    nodes = [fused.get(node.path, node) for node in graph.nodes if node.path in fused or node.path not in taken]
    return graph.with_nodes(nodes)


def _parts(graph: Graph, last: Node) -> tuple[Node, ...]:
    """What an activation that the kernel knows, or an addition, is fused with, and itself; a batch norm alone.

    Of two batch norms that are added to each other it is the first the addition reads, which ends the body of a residual.
    """
    if isinstance(last.op, FUSED_WITH_BATCH_NORM):
        before = _only_for(graph, last, last.inputs[0])
        if before is not None and isinstance(before.op, BatchNorm):
            return before, last
        if before is not None and isinstance(before.op, Add):
            parts = _parts(graph, before)
            return (*parts, last) if parts else ()
    if isinstance(last.op, Add) and len(last.inputs) == 2:
        for path in last.inputs:
            norm = _only_for(graph, last, path)
            if norm is not None and isinstance(norm.op, BatchNorm):
                return norm, last
    return (last,) if isinstance(last.op, BatchNorm) else ()


def _only_for(graph: Graph, reader: Node, path: str) -> Node | None:
    """The node of a value that `reader` alone reads, once."""
    node = graph.by_path.get(path)
    if node is None or path in graph.outputs or len(graph.users[path]) > 1 or node.aux != reader.aux:
        return None
    return node


def _fuse(parts: tuple[Node, ...]) -> Node:
    """The fused node has the last part's path and place, by which others read it."""
    norm, last = parts[0], parts[-1]
    residual = tuple(path for part in parts if isinstance(part.op, Add) for path in part.inputs if path != norm.path)
    activation = None if isinstance(last.op, Add | BatchNorm) else last.op
    op = BatchNormAct(batch_norm=norm.op, activation=activation, residual=bool(residual))
    return replace(last, op=op, inputs=(*norm.inputs, *residual), parts=parts)
