"""Saves memory: backward recomputes activations that only a convolution reads."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, BatchNormActConv, DenseBlock


def recompute_activations(graph: Graph) -> Graph:
    """Recomputes all activations that `activations_of_convolutions` finds."""
    return recompute_these(graph, activations_of_convolutions(graph))


def activations_of_convolutions(graph: Graph) -> list[str]:
    """Paths of batch norms with an activation that only a convolution reads, and of dense blocks.

    Dense blocks contain such activations.
    """
    return [
        node.path
        for node in graph.nodes
        if isinstance(node.op, DenseBlock) or _feeds_only_a_convolution(graph, node)
    ]


def _feeds_only_a_convolution(graph: Graph, node: Node) -> bool:
    if not isinstance(node.op, BatchNormAct) or node.op.activation is None or node.op.residual:
        return False
    user = graph.only_user(node.path)
    if user is None or not isinstance(user.op, Conv2d):
        return False
    return not user.op.pads_by_size  # it keeps a padded copy for backward, not the activation


def recompute_these(graph: Graph, activations: Collection[str]) -> Graph:
    """Recomputes the activations at these paths, which `activations_of_convolutions` found."""

    def match(node: Node) -> Group | None:
        if isinstance(node.op, DenseBlock):
            return ([node], without_activations(node)) if node.path in activations else None
        if not isinstance(node.op, Conv2d) or node.inputs[0] not in activations:
            return None
        activation = graph.producer_for(node, node.inputs[0])
        if activation is None or not isinstance(activation.op, BatchNormAct):
            return None
        op = BatchNormActConv(batch_norm_act=activation.op, conv=node.op)
        group = [activation, node]
        return group, Node.fuse(group, op, activation.inputs)

    return graph.rewrite(match)


def without_activations(node: Node) -> Node:
    """A dense block that recomputes its activations; any other node as it is."""
    if not isinstance(node.op, DenseBlock):
        return node
    return replace(node, op=node.op.model_copy(update={"keep_activations": False}))
