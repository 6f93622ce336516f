"""Fuses a batch norm with the addition, the activation, or both after it, or with neither."""

from __future__ import annotations

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.fused import BatchNormAct
from cnngraph.ops.merge import Add
from cnngraph.ops.norm import BatchNorm


def fuse_batch_norm_act(graph: Graph) -> Graph:
    """An addition is fused together with the activation after it if that is possible."""

    def match(node: Node) -> Group | None:
        nodes = _group(graph, node)
        return (nodes, _fuse(nodes)) if nodes else None

    return graph.rewrite(match)


def _group(graph: Graph, last: Node) -> list[Node]:
    """The batch norm, the addition, and the activation that end in this node; empty if none do.

    If two batch norms are added, the first is fused: it ends the body of a residual.
    """
    if isinstance(last.op, FUSED_WITH_BATCH_NORM):
        before = graph.producer_for(last, last.inputs[0])
        if before is not None and isinstance(before.op, BatchNorm):
            return [before, last]
        if before is not None and isinstance(before.op, Add):
            nodes = _group(graph, before)
            return [*nodes, last] if nodes else []
    if isinstance(last.op, Add) and len(last.inputs) == 2:
        for path in last.inputs:
            norm = graph.producer_for(last, path)
            if norm is not None and isinstance(norm.op, BatchNorm):
                return [norm, last]
    return [last] if isinstance(last.op, BatchNorm) else []


def _fuse(nodes: list[Node]) -> Node:
    norm, last = nodes[0], nodes[-1]
    residual = [
        path
        for node in nodes
        if isinstance(node.op, Add)
        for path in node.inputs
        if path != norm.path
    ]
    activation = None if isinstance(last.op, Add | BatchNorm) else last.op
    op = BatchNormAct(batch_norm=norm.op, activation=activation, residual=bool(residual))
    return Node.fuse(nodes, op, (*norm.inputs, *residual))
