"""Fuses max pools with the ReLU before them, and keeps one byte per result for backward."""

from __future__ import annotations

from cnngraph.graph import Graph, Group, Node
from cnngraph.ops.activation import ReLU
from cnngraph.ops.fused import FusedMaxPool2d
from cnngraph.ops.pool import MaxPool2d


def fuse_max_pool(graph: Graph) -> Graph:
    """The ReLU is fused if nothing else reads it."""

    def match(pool: Node) -> Group | None:
        if not isinstance(pool.op, MaxPool2d) or pool.op.padding == "same":
            return None
        before = graph.producer_for(pool, pool.inputs[0])
        relu = before if before is not None and isinstance(before.op, ReLU) else None
        nodes = [pool] if relu is None else [relu, pool]
        op = FusedMaxPool2d(relu=relu.op if relu else None, pool=pool.op)
        return nodes, Node.fuse(nodes, op, nodes[0].inputs)

    return graph.rewrite(match)
