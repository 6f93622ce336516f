"""Fits a training step into a memory budget by recomputing values, cheapest first.

First come activations of batch norms, then 1x1 convolutions with the activations around them, then
parts of the network with a single input and result, such as residual blocks, and longer parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.graph.step_memory import predict
from cnngraph.graph.step_time import extra_time, recompute_time
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, DenseBlock
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.saved import Batch
from cnngraph.passes.recompute_activations import (
    activations_of_convolutions,
    recompute_these,
    without_activations,
)

_SHARES = (64, 32, 16, 8, 4)
"""Longer parts: each has at least a 64th of the bytes of all values, a 32nd, ..."""


@dataclass(frozen=True)
class _Part:
    """A sequence of nodes; other nodes read only the result of the last.

    Attributes:
        whole: one node in their place.
        bytes: how many bytes less are kept for backward if they are recomputed.
        time: how long that takes, in the unit of `recompute_time`.
    """

    nodes: tuple[Node, ...]
    whole: Node
    bytes: int
    time: float

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(node.path for node in self.nodes)


def recompute_to_fit(graph: Graph, budget: int, batch_size: int) -> Graph:
    """Recomputes just enough for a step of `batch_size` images to stay within `budget` bytes.

    Raises `CnngraphError` if that is impossible.
    """
    if predict(graph, batch_size).peak <= budget:
        return graph
    candidates = list(_candidates(graph, budget, batch_size))
    if not candidates:
        raise CnngraphError(_does_not_fit(graph, budget, batch_size))
    return min(candidates, key=lambda candidate: extra_time(candidate, batch_size))


def _candidates(graph: Graph, budget: int, batch_size: int) -> Iterator[Graph]:
    """For each strategy that can meet the budget, the graph that recomputes the least."""
    for apply, count in _strategies(graph, Batch(batch_size)):
        if predict(apply(count), batch_size).peak > budget:
            continue
        too_few, enough = 0, count
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if predict(apply(middle), batch_size).peak <= budget:
                enough = middle
            else:
                too_few = middle
        yield apply(enough)


_Strategy = tuple[Callable[[int], Graph], int]
"""A function that recomputes the first `n` places of a kind, and how many places there are."""


def _strategies(graph: Graph, batch: Batch) -> Iterator[_Strategy]:
    activations = sorted(
        activations_of_convolutions(graph),
        key=lambda path: graph.shape_of(path).elements,
        reverse=True,
    )
    yield lambda count: _recompute(graph, activations[:count], ()), len(activations)
    pointwise = _sorted(_disjoint(_around_pointwise(graph, batch)))
    yield lambda count: _recompute(graph, activations, pointwise[:count]), len(pointwise)
    sections = list(_sections(graph))
    total = sum(batch.bytes_of(node.shape) for node in graph.nodes)
    for length in (0, *(total // share for share in _SHARES)):
        parts = _sorted(_joined(graph, batch, sections, length))

        def apply(count: int, parts: list[_Part] = parts) -> Graph:
            chosen = parts[:count]
            inside = frozenset[str]().union(*(part.paths for part in chosen))
            rest = [part for part in pointwise if inside.isdisjoint(part.paths)]
            return _recompute(graph, activations, [*chosen, *rest])

        yield apply, len(parts)


def _recompute(graph: Graph, activations: Sequence[str], parts: Sequence[_Part]) -> Graph:
    """The graph that recomputes these. An activation inside of a part is recomputed with it."""
    inside = frozenset[str]().union(*(part.paths for part in parts))
    alone = [path for path in activations if inside.isdisjoint(_unit(graph, path))]
    groups = ((part.nodes, part.whole) for part in parts)
    return recompute_these(graph.replace_groups(groups), alone)


def _unit(graph: Graph, activation: str) -> tuple[str, ...]:
    """The paths that are recomputed together: an activation and its convolution, or a block."""
    user = graph.only_user(activation)
    if user is None or isinstance(graph.by_path[activation].op, DenseBlock):
        return (activation,)
    return (activation, user.path)


def _sorted(parts: Sequence[_Part]) -> list[_Part]:
    return sorted((part for part in parts if part.bytes), key=lambda part: part.time / part.bytes)


def _disjoint(parts: Iterator[_Part]) -> list[_Part]:
    """The parts that do not overlap with an earlier one."""
    taken: set[str] = set()
    found: list[_Part] = []
    for part in parts:
        if taken.isdisjoint(part.paths):
            taken |= part.paths
            found.append(part)
    return found


# --- 1x1 convolutions ---------------------------------------------------------------------------


def _around_pointwise(graph: Graph, batch: Batch) -> Iterator[_Part]:
    """Each 1x1 convolution whose result a batch norm keeps, with the activations around it."""
    for conv in graph.nodes:
        norm = graph.only_user(conv.path)
        if not isinstance(conv.op, Conv2d) or conv.op.kernel_size != (1, 1) or norm is None:
            continue
        if not isinstance(norm.op, BatchNorm | BatchNormAct) or norm.inputs[0] != conv.path:
            continue
        nodes = [conv, norm]
        before = graph.producer_for(conv, conv.inputs[0])
        if before is not None and isinstance(before.op, BatchNormAct):
            nodes.insert(0, before)
        after = graph.only_user(norm.path)
        if after is not None and isinstance(after.op, Conv2d) and isinstance(norm.op, BatchNormAct):
            nodes.append(after)
        if not conv.aux:
            yield _part(graph, batch, nodes)


# --- sections of the network --------------------------------------------------------------------


def _sections(graph: Graph) -> Iterator[list[Node]]:
    """The nodes between values that everything after them depends on, section by section."""
    outside = {path for node in graph.nodes if node.aux for path in node.inputs} | graph.outputs
    nodes = [node for node in graph.nodes if not node.aux]
    last = {path: index for index, node in enumerate(nodes) for path in node.inputs}
    last |= dict.fromkeys(outside, len(nodes))
    section: list[Node] = []
    reach = max(last.get(name, -1) for name in graph.inputs)
    for index, node in enumerate(nodes):
        section.append(node)
        if reach <= index:
            yield section
            section = []
        reach = max(reach, last.get(node.path, -1))
    if section:
        yield section


def _joined(graph: Graph, batch: Batch, sections: list[list[Node]], length: int) -> list[_Part]:
    """Sections joined to more than `length` bytes of values; those of one node are left out."""
    parts: list[list[Node]] = [[]]
    size = 0
    for nodes in sections:
        size += sum(batch.bytes_of(node.shape) for node in nodes)
        parts[-1] += nodes
        if size > length:
            parts.append([])
            size = 0
    return [
        _part(graph, batch, nodes)
        for nodes in parts
        if len(nodes) > 1 and _only_last_is_read(graph, nodes)
    ]


def _only_last_is_read(graph: Graph, nodes: list[Node]) -> bool:
    own = {node.path for node in nodes}
    return not any(
        node.path in graph.outputs or {u.path for u in graph.users.get(node.path, ())} - own
        for node in nodes[:-1]
    )


def _part(graph: Graph, batch: Batch, nodes: Sequence[Node]) -> _Part:
    own = {node.path for node in nodes}
    kept: dict[str, int] = {}
    for node in nodes:
        saved = node.op.saves(batch, node.shape, *graph.input_shapes(node))
        paths = [node.inputs[index] for index in saved.inputs] + [node.path] * saved.output
        kept |= {path: batch.bytes_of(graph.shape_of(path)) for path in paths if path in own}
        kept[f"({node.path})"] = saved.extra
    kept.pop(nodes[-1].path, None)
    whole = _as_one(nodes)
    time = recompute_time(graph, whole, batch)
    return _Part(tuple(nodes), whole, sum(kept.values()), time)


def _as_one(nodes: Sequence[Node]) -> Node:
    nodes = [without_activations(node) for node in nodes]
    own = {node.path for node in nodes}
    reads = dict.fromkeys(path for node in nodes for path in node.inputs if path not in own)
    return Node.fuse(nodes, Recomputed(reads=tuple(reads), nodes=tuple(nodes)), reads)


# --- if nothing fits ----------------------------------------------------------------------------


def _does_not_fit(graph: Graph, budget: int, batch_size: int) -> str:
    least = _least(graph, batch_size)
    message = (
        f"a training step of batch {batch_size} does not fit into {_size(budget)}: "
        f"it needs {_size(least)} at its peak even if everything possible is recomputed, "
        f"{_size(least - budget)} too much"
    )
    fits, too_many = 0, batch_size
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if _least(graph, middle) <= budget:
            fits = middle
        else:
            too_many = middle
    if fits:
        return f"{message}. A batch of {fits} fits"
    memory = predict(graph, 1)
    return (
        f"{message}. No batch fits: weights, gradients and the optimizer's state alone take "
        f"{_size(memory.weights + 2 * memory.optimizer)}"
    )


def _least(graph: Graph, batch_size: int) -> int:
    """The smallest peak of a step that any strategy reaches, in bytes."""
    strategies = _strategies(graph, Batch(batch_size))
    return min(predict(apply(count), batch_size).peak for apply, count in strategies)


def _size(bytes: int) -> str:
    return f"{bytes / 1e9:.2f} GB" if bytes >= 10**9 else f"{bytes / 1e6:.1f} MB"
