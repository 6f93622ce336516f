"""Estimates the time that recomputation adds to a training step."""

from __future__ import annotations

from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import node_cost
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormActConv, DenseBlock
from cnngraph.ops.saved import Batch

_MACS_PER_BYTE = 8
"""Multiply-accumulates that take as long as moving one byte of a large tensor."""


def extra_time(graph: Graph, batch_size: int = 16) -> float:
    """Estimates the time that recomputation adds to a step, as a share of the step without it.

    Backward is taken to need the time of two forward passes.
    """
    batch = Batch(batch_size)
    recompute = sum(recompute_time(graph, node, batch) for node in graph.nodes)
    forward = sum(_forward_time(graph, node, batch) for node in graph.nodes)
    return recompute / (3 * forward)


def recompute_time(graph: Graph, node: Node, batch: Batch) -> float:
    """Estimates the time a node recomputes in backward, in bytes that could be moved in it."""
    inputs = graph.input_shapes(node)
    if isinstance(node.op, BatchNormActConv):
        return batch.bytes_of(inputs[0], inputs[0])
    if isinstance(node.op, DenseBlock) and not node.op.keep_activations:
        return sum(2 * batch.bytes_of(shape) for *_, shape, _ in node.op.steps(*inputs))
    if not isinstance(node.op, Recomputed):
        return 0.0
    inner = node.op.nodes
    if isinstance(inner[-1].op, Conv2d):
        inner = inner[:-1]  # backward needs its input, not its result
    return sum(_forward_time(graph, part, batch) for part in inner)


def _forward_time(graph: Graph, node: Node, batch: Batch) -> float:
    if isinstance(node.op, Recomputed):
        return sum(_forward_time(graph, part, batch) for part in node.op.nodes)
    moved = batch.bytes_of(node.shape, *graph.input_shapes(node))
    return node_cost(graph, node).macs * batch.size / _MACS_PER_BYTE + moved
