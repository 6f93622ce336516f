"""Replaces convolutions by an op that chooses the fastest kernel for their size when it runs."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.graph import Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import Convolution


def convolutions(graph: Graph) -> Graph:
    """Runs after the passes that look for `Conv2d`.

    Grouped convolutions stay: torch's are the fastest.
    """
    return graph.with_nodes(map(_rewritten, graph.nodes))


def _rewritten(node: Node) -> Node:
    if isinstance(node.op, Recomputed):
        # The last node stays torch's, which saves its input before it computes, so that
        # recomputation can stop there.
        *before, last = node.op.nodes
        inner = (*map(_rewritten, before), last)
        return replace(node, op=node.op.model_copy(update={"nodes": inner}))
    if not isinstance(node.op, Conv2d) or node.op.padding_mode != "zeros" or node.op.groups > 1:
        return node
    return Node.fuse([node], Convolution(op=node.op), node.inputs)
