"""For a budget of memory: chooses what backward computes again, so that a step fits, at the least extra time.

Cheapest first: the activations of batch norms; then 1x1 convolutions, between the maps before and after them; then parts
of the network between values that everything passes through, such as residual blocks, and longer and longer ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.graph.step_memory import extra_time, predict, time_again
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, DenseBlock, SiblingConvs
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.saved import Batch
from cnngraph.passes.recompute_activations import activations_of_convolutions, recompute_these

_LENGTHS = (64, 32, 16, 8, 4)
"""Longer parts hold a 64th of all values each, a 32nd, ..."""


@dataclass(frozen=True)
class _Part:
    """Nodes of which the last is the only one read outside.

    Attributes:
        whole: they as one node.
        bytes: how much less is kept when they are computed again.
        time: how long that takes.
    """

    nodes: tuple[Node, ...]
    whole: Node
    bytes: int
    time: float


def recompute_to_fit(graph: Graph, budget: int, batch_size: int) -> Graph:
    """The graph with as much computed again as its step with so many images needs to stay within `budget` bytes.

    Raises `CnngraphError` where it cannot.
    """
    if predict(graph, batch_size).peak <= budget:
        return graph
    found = list(_fitting(graph, budget, batch_size))
    if not found:
        raise CnngraphError(_too_much(graph, budget, batch_size))
    return min(found, key=lambda fitting: extra_time(fitting, batch_size))


def _fitting(graph: Graph, budget: int, batch_size: int) -> Iterator[Graph]:
    """The graph made to fit in ways that differ in kind."""
    for make, count in _ways(graph, Batch(batch_size)):
        if predict(make(count), batch_size).peak > budget:
            continue
        least, most = 0, count  # with `most` it fits
        while most - least > 1:
            middle = (least + most) // 2
            if predict(make(middle), batch_size).peak <= budget:
                most = middle
            else:
                least = middle
        yield make(most)


_Way = tuple[Callable[[int], Graph], int]


def _ways(graph: Graph, batch: Batch) -> Iterator[_Way]:
    """Functions that compute the first so many places of a kind again, and how many there are."""
    activations = sorted(
        activations_of_convolutions(graph), key=lambda path: graph.shape_of(path).elements, reverse=True
    )
    yield lambda count: _applied(graph, activations[:count], ()), len(activations)
    pointwise = _sorted(_disjoint(_around_pointwise(graph, batch)))
    yield lambda count: _applied(graph, activations, pointwise[:count]), len(pointwise)
    between = list(_between(graph))
    total = sum(batch.bytes_of(node.shape) for node in graph.nodes)
    for length in (0, *(total // share for share in _LENGTHS)):
        parts = _sorted(_joined(graph, batch, between, length))

        def make(count: int, parts: list[_Part] = parts) -> Graph:
            chosen = parts[:count]
            inside = {node.path for part in chosen for node in part.nodes}
            rest = [part for part in pointwise if not any(node.path in inside for node in part.nodes)]
            return _applied(graph, activations, [*chosen, *rest])

        yield make, len(parts)


def _applied(graph: Graph, activations: Sequence[str], parts: Sequence[_Part]) -> Graph:
    """The graph with these computed again. An activation inside of a part belongs to that."""
    inside = {node.path for part in parts for node in part.nodes}
    alone = [path for path in activations if inside.isdisjoint(_takes_part(graph, path))]
    wholes = {part.whole.path: part.whole for part in parts}
    nodes = [wholes.get(node.path, node) for node in graph.nodes if node.path in wholes or node.path not in inside]
    return recompute_these(graph.with_nodes(nodes), alone)


def _takes_part(graph: Graph, activation: str) -> tuple[str, ...]:
    """What is one node when it is computed again: an activation and its convolution, or a dense block."""
    alone = isinstance(graph.by_path[activation].op, DenseBlock)
    return (activation,) if alone else (activation, graph.users[activation][0].path)


def _as_one(nodes: Sequence[Node]) -> Node:
    nodes = [_lean(node) for node in nodes]
    own = {node.path for node in nodes}
    reads = tuple(dict.fromkeys(path for node in nodes for path in node.inputs if path not in own))
    parts = tuple(part for node in nodes for part in node.leaves)
    return replace(nodes[-1], op=Recomputed(reads=reads, nodes=tuple(nodes)), inputs=reads, parts=parts)


def _lean(node: Node) -> Node:
    """A dense block keeps its activations from one time to the other no more than for backward."""
    if isinstance(node.op, DenseBlock):
        return replace(node, op=node.op.model_copy(update={"keep_activations": False}))
    return node


def _sorted(parts: Sequence[_Part]) -> list[_Part]:
    return sorted((part for part in parts if part.bytes), key=lambda part: part.time / part.bytes)


def _disjoint(parts: Iterator[_Part]) -> list[_Part]:
    """Without those that overlap with an earlier one."""
    taken: set[str] = set()
    found = []
    for part in parts:
        paths = {node.path for node in part.nodes}
        if taken.isdisjoint(paths):
            taken |= paths
            found.append(part)
    return found


# --- 1x1 convolutions ------------------------------------------------------------------------------------------------


def _around_pointwise(graph: Graph, batch: Batch) -> Iterator[_Part]:
    """Each 1x1 convolution of which a batch norm keeps the result, with the activations before and after it."""
    for conv in graph.nodes:
        norm = _only_reader(graph, conv)
        if not isinstance(conv.op, Conv2d) or conv.op.kernel_size != (1, 1) or norm is None:
            continue
        if not isinstance(norm.op, BatchNorm | BatchNormAct) or norm.inputs[0] != conv.path:
            continue
        nodes = [conv, norm]
        before = graph.by_path.get(conv.inputs[0])
        if before is not None and isinstance(before.op, BatchNormAct) and _only_reader(graph, before) is conv:
            nodes.insert(0, before)
        after = _only_reader(graph, norm)
        if after is not None and isinstance(after.op, Conv2d) and isinstance(norm.op, BatchNormAct):
            nodes.append(after)
        if not any(node.aux for node in nodes):
            yield _part(graph, batch, nodes)


def _only_reader(graph: Graph, node: Node) -> Node | None:
    users = graph.users.get(node.path, ())
    return users[0] if len(users) == 1 and node.path not in graph.outputs else None


# --- parts of the trunk ----------------------------------------------------------------------------------------------


def _between(graph: Graph) -> Iterator[list[Node]]:
    """The nodes from one value that everything after it depends on to the next."""
    outside = {path for node in graph.nodes if node.aux for path in node.inputs} | graph.outputs
    nodes = [node for node in graph.nodes if not node.aux]
    last = {path: index for index, node in enumerate(nodes) for path in node.inputs}
    last |= dict.fromkeys(outside, len(nodes))
    part: list[Node] = []
    reach = last.get(INPUT, -1)
    for index, node in enumerate(nodes):
        part.append(node)
        if reach <= index and not isinstance(node.op, SiblingConvs):  # which is several values
            yield part
            part = []
        reach = max(reach, last.get(node.path, -1))
    if part:
        yield part


def _joined(graph: Graph, batch: Batch, between: list[list[Node]], length: int) -> list[_Part]:
    """Parts of at least so many bytes of values, where they have more than one node."""
    parts: list[list[Node]] = [[]]
    size = 0
    for nodes in between:
        size += sum(batch.bytes_of(node.shape) for node in nodes)
        parts[-1] += nodes
        if size > length:
            parts.append([])
            size = 0
    return [_part(graph, batch, nodes) for nodes in parts if len(nodes) > 1 and _ends_in_its_only_result(graph, nodes)]


def _ends_in_its_only_result(graph: Graph, nodes: list[Node]) -> bool:
    own = {node.path for node in nodes}
    inner = [
        node
        for node in nodes[:-1]
        if node.path in graph.outputs or {u.path for u in graph.users.get(node.path, ())} - own
    ]
    return not inner


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
    return _Part(tuple(nodes), whole, sum(kept.values()), time_again(whole, graph.input_shapes(whole), batch))


# --- where nothing helps ---------------------------------------------------------------------------------------------


def _too_much(graph: Graph, budget: int, batch_size: int) -> str:
    least = _least(graph, batch_size)
    message = (
        f"a training step of batch {batch_size} does not fit into {_size(budget)}: it needs {_size(least)} at its peak "
        f"with all computed again that can be, {_size(least - budget)} more"
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
        f"{message}. No batch fits: weights, their gradients and the optimizer's state alone are "
        f"{_size(memory.weights + 2 * memory.optimizer)}"
    )


def _least(graph: Graph, batch_size: int) -> int:
    ways = _ways(graph, Batch(batch_size))
    return min(predict(make(count), batch_size).peak for make, count in ways)


def _size(bytes: int) -> str:
    return f"{bytes / 1e9:.2f} GB" if bytes >= 10**9 else f"{bytes / 1e6:.1f} MB"
