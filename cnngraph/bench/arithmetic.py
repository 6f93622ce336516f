"""The arithmetic of a step, from the graph alone."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.bench.variants import Work
from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph
from cnngraph.graph.cost import node_cost
from cnngraph.shape import ShapeError, TensorShape

TRAINING = 3
"""A training step's arithmetic over the forward pass's: the gradients of inputs and weights cost as much each."""


def graph_of(work: Work) -> Graph:
    """The network's graph for an input of `work.input`. Raises `CnngraphError` where the network does not take it."""
    graph = elaborate_or_raise(read_spec(work.spec), work.params)
    return resized(graph, TensorShape(work.input))


def resized(graph: Graph, input: TensorShape) -> Graph:
    """The same network, weights as declared, for another input. Raises `CnngraphError` where it does not take it."""
    shapes = {INPUT: input}
    nodes = []
    for node in graph.nodes:
        inputs = [shapes[path] for path in node.inputs]
        try:
            shape = node.op.infer(*inputs)
        except ShapeError as error:
            raise CnngraphError(f"{graph.name} does not take {input}: {node.path}: {error}") from None
        if node.op.parameters(*inputs) != node.op.parameters(*graph.input_shapes(node)):
            raise CnngraphError(
                f"{graph.name} does not take {input}: the weights of {node.path} would need another shape"
            )
        shapes[node.path] = shape
        nodes.append(replace(node, shape=shape))
    return replace(graph, input=input, nodes=tuple(nodes))


def macs_of(graph: Graph, work: Work) -> int:
    """Multiply-accumulates of a forward pass for one image, side heads' in training."""
    return sum(node_cost(graph, node).macs for node in graph.nodes if work.mode == "train" or not node.aux)


def flops_of(macs: int, work: Work) -> int:
    """Floating-point operations of a step, two for each multiply-accumulate."""
    return 2 * macs * work.batch_size * (TRAINING if work.mode == "train" else 1)
