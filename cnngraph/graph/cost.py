"""What a network, or a part of it, costs: parameters, buffers and multiply-accumulates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from cnngraph.graph import Graph, Node
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Cost:
    """The cost of one or several nodes.

    Attributes:
        params: number of trainable values.
        buffers: number of buffer tensors (three for a batch norm).
        macs: multiply-accumulates for one image, of convolutions and products; biases do not count.
    """

    params: int = 0
    buffers: int = 0
    macs: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params, self.buffers + other.buffers, self.macs + other.macs
        )

    def __mul__(self, count: int) -> Cost:
        return Cost(self.params * count, self.buffers * count, self.macs * count)


@dataclass(frozen=True)
class Summary:
    """The network's cost.

    Attributes:
        total: params and buffers of the whole network; MACs in evaluation.
        training_macs: MACs of a forward pass in training, side heads included.
    """

    total: Cost
    training_macs: int


def node_cost(graph: Graph, node: Node) -> Cost:
    """The cost of a node; for a fused node, that of the nodes it replaces."""
    return _sum(_leaf_cost(leaf, graph.input_shapes(leaf)) for leaf in node.leaves)


def _leaf_cost(leaf: Node, shapes: Sequence[TensorShape]) -> Cost:
    if leaf.shared:  # its weights are counted where they were first used
        return Cost(macs=leaf.op.macs(leaf.shape, *shapes))
    return Cost(
        params=sum(prod(shape) for shape in leaf.op.parameters(*shapes).values()),
        buffers=len(leaf.op.buffers(*shapes)),
        macs=leaf.op.macs(leaf.shape, *shapes),
    )


def cost_of(graph: Graph, path: str) -> Cost:
    """The cost of the node, composite or block at `path`."""
    return _sum(
        node_cost(graph, node)
        for node in graph.nodes
        if node.path == path or node.path.startswith(f"{path}.")
    )


def shape_at(graph: Graph, path: str) -> TensorShape | None:
    """The shape of the result of a node, composite, block or side head; None for other paths."""
    if path in graph.aux:
        return graph.shape_of(
            graph.aux[path]
        )  # the head's own result, not the value that passes by
    if path in graph.scopes:
        return graph.scopes[path].shape
    if path in graph.inputs or path in graph.by_path:
        return graph.shape_of(path)
    return None


def summarize(graph: Graph) -> Summary:
    """The cost of the whole network.

    Leaves with the same op and the same shapes, such as copies of a repeat, are counted together.
    """
    leaves = [*graph.leaves()]
    keys = [
        (id(leaf.op), bool(leaf.aux), bool(leaf.shared), *map(graph.shape_of, leaf.inputs))
        for leaf in leaves
    ]
    counts = Counter(keys)
    total, aux = Cost(), 0
    for key, leaf in dict(zip(keys, leaves, strict=True)).items():
        cost = _leaf_cost(leaf, graph.input_shapes(leaf)) * counts[key]
        total += cost
        aux += cost.macs if leaf.aux else 0
    return Summary(replace(total, macs=total.macs - aux), total.macs)


def _sum(costs: Iterable[Cost]) -> Cost:
    return sum(costs, Cost())
