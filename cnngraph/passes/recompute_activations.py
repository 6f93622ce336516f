"""For less memory: an activation that a convolution alone reads is computed again in backward, and not kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, BatchNormActConv, DenseBlock


def recompute_activations(graph: Graph) -> Graph:
    return recompute_these(graph, activations_of_convolutions(graph))


def activations_of_convolutions(graph: Graph) -> list[str]:
    """Paths of the activations of batch norms that a convolution alone reads, and of dense blocks, which have such inside."""
    return [
        node.path
        for node in graph.nodes
        if isinstance(node.op, DenseBlock) or _is_read_by_a_convolution_alone(graph, node)
    ]


def recompute_these(graph: Graph, activations: Collection[str]) -> Graph:
    nodes: list[Node] = []
    waiting: dict[str, Node] = {}
    for node in graph.nodes:
        if node.path in activations and isinstance(node.op, DenseBlock):
            nodes.append(replace(node, op=node.op.model_copy(update={"keep_activations": False})))
        elif node.path in activations:
            waiting[node.path] = node
        elif node.inputs and node.inputs[0] in waiting:
            nodes.append(_fuse(waiting.pop(node.inputs[0]), node))
        else:
            nodes.append(node)
    return graph.with_nodes(nodes)


def _is_read_by_a_convolution_alone(graph: Graph, node: Node) -> bool:
    if not isinstance(node.op, BatchNormAct) or node.op.activation is None or node.op.residual:
        return False
    if node.path in graph.outputs:
        return False
    users = graph.users.get(node.path, ())
    return len(users) == 1 and isinstance(users[0].op, Conv2d) and users[0].aux == node.aux


def _fuse(activation: Node, conv: Node) -> Node:
    """The fused node has the convolution's path and place."""
    op = BatchNormActConv(batch_norm_act=activation.op, conv=conv.op)
    return replace(conv, op=op, inputs=activation.inputs, parts=(*activation.parts, conv))
