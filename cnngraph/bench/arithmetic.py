"""Floating-point operations of a step, from the graph alone."""

from __future__ import annotations

from dataclasses import replace

from cnngraph.bench.variants import Work
from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import node_cost
from cnngraph.shape import ShapeError, TensorShape

TRAINING = 3
"""Arithmetic of a training step over that of its forward pass.

The gradients of the inputs and of the weights each cost as much as the forward pass.
"""


def graph_of(work: Work) -> Graph:
    """The network's graph for `work.input`.

    Raises:
        CnngraphError: the network does not accept this input; `SpecError` if the spec is invalid.
    """
    graph = elaborate_or_raise(read_spec(work.spec, work.allow_code), work.params)
    return resized(graph, TensorShape(work.input))


def resized(graph: Graph, input: TensorShape) -> Graph:
    """The same network, with the same weights, for another input shape.

    Raises:
        CnngraphError: the network does not accept this input.
    """
    if len(graph.inputs) > 1:
        raise CnngraphError(f"{graph.name} has several inputs, but benchmarks are for one")
    (name,) = graph.inputs
    shapes = {name: input}
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = [shapes[path] for path in node.inputs]
        try:
            shape = node.op.infer(*inputs)
        except ShapeError as error:
            problem = f"{node.path}: {error}"
            raise CnngraphError(f"{graph.name} does not accept {input}: {problem}") from None
        if node.op.parameters(*inputs) != node.op.parameters(*graph.input_shapes(node)):
            problem = f"the weights of {node.path} would need another shape"
            raise CnngraphError(f"{graph.name} does not accept {input}: {problem}")
        shapes[node.path] = shape
        nodes.append(replace(node, shape=shape))
    return replace(graph, inputs={name: input}, nodes=tuple(nodes))


def macs_of(graph: Graph, work: Work) -> int:
    """Multiply-accumulates of a forward pass for one image; in training with the side heads."""
    training = work.mode == "train"
    return sum(node_cost(graph, node).macs for node in graph.nodes if training or not node.aux)


def flops_of(macs: int, work: Work) -> int:
    """Floating-point operations of a step: two for each multiply-accumulate."""
    return 2 * macs * work.batch_size * (TRAINING if work.mode == "train" else 1)
