"""Convolutions take their weight's gradient by the faster of two ways, chosen by size when they run."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Convolution


def weight_gradients(graph: Graph) -> Graph:
    """Runs after the passes that look for convolutions. Those of groups stay: there the library has the faster way."""
    return graph.with_nodes([_rewritten(node) for node in graph.nodes])


def _rewritten(node: Node) -> Node:
    if not isinstance(node.op, Conv2d) or node.op.padding_mode != "zeros" or node.op.groups > 1:
        return node
    return replace(node, op=Convolution(conv=node.op), parts=(node,))
