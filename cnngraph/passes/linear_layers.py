"""Linear layers over few rows read their weights, and write their gradients, at the memory's rate."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph
from cnngraph.ops.fused import FullyConnected
from cnngraph.ops.linear import Linear


def linear_layers(graph: Graph) -> Graph:
    return graph.with_nodes(
        [
            replace(node, op=FullyConnected(op=node.op), parts=(node,)) if isinstance(node.op, Linear) else node
            for node in graph.nodes
        ]
    )
