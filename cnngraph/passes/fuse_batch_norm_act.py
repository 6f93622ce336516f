"""Batch norm and the activation that alone reads it become one node, computed in one go."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.activation import FUSED_WITH_BATCH_NORM
from cnngraph.ops.fused import BatchNormAct
from cnngraph.ops.norm import BatchNorm


def fuse_batch_norm_act(graph: Graph) -> Graph:
    nodes: list[Node] = []
    fused: set[str] = set()
    for node in graph.nodes:
        activation = _activation_of(graph, node)
        if activation is not None:
            fused.add(activation.path)
            nodes.append(_fuse(node, activation))
        elif node.path not in fused:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _activation_of(graph: Graph, node: Node) -> Node | None:
    """The only reader of a batch norm's result, if it is an activation the kernel knows."""
    if not isinstance(node.op, BatchNorm) or node.path in graph.outputs:
        return None
    users = graph.users.get(node.path, ())
    if len(users) != 1 or not isinstance(users[0].op, FUSED_WITH_BATCH_NORM):
        return None
    return users[0]


def _fuse(norm: Node, activation: Node) -> Node:
    """The fused node has the activation's path, by which others read it."""
    op = BatchNormAct(batch_norm=norm.op, activation=activation.op)
    return replace(activation, op=op, inputs=norm.inputs, parts=(norm, activation))
