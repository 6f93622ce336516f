"""What a network costs: parameters, buffers and multiply-accumulates, or a part of it. Nothing is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

from cnngraph.graph import INPUT, Graph, Node
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Cost:
    """Costs of one or several nodes.

    Attributes:
        params: trainable values.
        buffers: buffer tensors (three for a batch norm).
        macs: multiply-accumulates of convolutions and linear layers for one image, bias additions not counted.
    """

    params: int = 0
    buffers: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params, self.buffers + other.buffers, self.macs + other.macs
        )


@dataclass(frozen=True)
class Summary:
    """The network's costs.

    Attributes:
        total: params and buffers of everything; MACs of what evaluation computes.
        training_macs: MACs of a forward pass in training, side heads included.
    """

    total: Cost
    training_macs: int


def node_cost(graph: Graph, node: Node) -> Cost:
    shapes = graph.input_shapes(node)
    return Cost(
        params=sum(prod(shape) for shape in node.op.parameters(*shapes).values()),
        buffers=len(node.op.buffers(*shapes)),
        macs=node.op.macs(node.shape, *shapes),
    )


def cost_of(graph: Graph, path: str) -> Cost:
    """The cost of the node, composite or block at `path`."""
    return _sum(
        node_cost(graph, node)
        for node in graph.nodes
        if node.path == path or node.path.startswith(f"{path}.")
    )


def shape_at(graph: Graph, path: str) -> TensorShape | None:
    """The shape of what a node, composite, block or side head results in; None where there is no such path."""
    if path in graph.aux:
        return graph.shape_of(
            graph.aux[path]
        )  # the head's own result, not the value that passes by
    if path in graph.scopes:
        return graph.scopes[path].shape
    if path == INPUT or path in graph.by_path:
        return graph.shape_of(path)
    return None


def summarize(graph: Graph) -> Summary:
    """The costs of an elaborated graph."""
    total = _sum(node_cost(graph, node) for node in graph.nodes)
    aux = sum(node_cost(graph, node).macs for node in graph.nodes if node.aux)
    return Summary(replace(total, macs=total.macs - aux), total.macs)


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())
