"""Convolutions and their gradients are computed by the fastest of several ways, chosen by size when they run."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Convolution


def convolutions(graph: Graph) -> Graph:
    """Runs after the passes that look for convolutions. Those of groups stay: there the library has the fastest way."""
    return graph.with_nodes([_rewritten(node) for node in graph.nodes])


def _rewritten(node: Node) -> Node:
    if isinstance(node.op, Recomputed):
        # The last stays torch's, which keeps what it reads before it computes: backward then stops in time.
        *before, last = node.op.nodes
        inner = (*map(_rewritten, before), last)
        return replace(node, op=node.op.model_copy(update={"nodes": inner}))
    if not isinstance(node.op, Conv2d) or node.op.padding_mode != "zeros" or node.op.groups > 1:
        return node
    return replace(node, op=Convolution(op=node.op), parts=(node,))
