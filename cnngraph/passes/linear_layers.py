"""Replaces linear layers by an op that chooses the faster kernel for their size when it runs."""

from __future__ import annotations

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.fused import FullyConnected
from cnngraph.ops.linear import Linear


def linear_layers(graph: Graph) -> Graph:
    """With few rows, these kernels read weights and write gradients at memory bandwidth."""

    def match(node: Node) -> Group | None:
        if not isinstance(node.op, Linear):
            return None
        return [node], Node.fuse([node], FullyConnected(op=node.op), node.inputs)

    return graph.rewrite(match)
