"""Finds the input sizes that a network accepts, by evaluating its shape rules over a range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from cnngraph.graph import Graph, Node
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from cnngraph.ops.op import Op

LARGEST = 1024
"""The largest size that is tried."""
MOST_EVALUATIONS = 80_000
"""The most shape rules evaluated, times their inputs.

Networks with very many nodes are tried at fewer sizes, or at none.
"""


@dataclass(frozen=True)
class Failure:
    """Sizes that fail at one node.

    Attributes:
        sizes: heights (and widths) of the input, ascending.
        path: the node that fails first.
        code: the code of the broken shape rule, such as E202.
        reason: the message of its shape rule at the first of these sizes.
    """

    sizes: tuple[int, ...]
    path: str
    code: str
    reason: str


@dataclass(frozen=True)
class InputSizes:
    """The input sizes that a network accepts with the weights of its declared size.

    Attributes:
        range: the first and last square size that were tried.
        valid: the sizes that work, ascending.
        stride: input pixels per pixel of the last map that grows with the input, at least 1; None
            if no map grows.
        failures: the sizes that do not work, and why.
    """

    range: tuple[int, int]
    valid: tuple[int, ...]
    stride: int | None
    failures: tuple[Failure, ...]

    @property
    def least(self) -> int | None:
        """The smallest size that works."""
        return self.valid[0] if self.valid else None

    @property
    def runs(self) -> tuple[tuple[int, int], ...]:
        """The valid sizes as inclusive runs."""
        return tuple(runs(self.valid))


class _TooCostlyError(Exception):
    """These sizes take too many evaluations: the limit was reached after `share` of the nodes."""

    def __init__(self, share: float) -> None:
        self.share = share


@dataclass(frozen=True)
class _Table:
    """A value's shape for each input size: `shapes[groups[i]]` for the i-th, None if it failed.

    Deep in a network, many input sizes lead to few distinct shapes; each group has one shape.
    """

    groups: tuple[int, ...]
    shapes: tuple[TensorShape | None, ...]

    def __iter__(self) -> Iterator[TensorShape | None]:
        return (self.shapes[group] for group in self.groups)


def input_sizes(graph: Graph) -> InputSizes | None:
    """Tries square inputs from 1x1 to twice the declared size; lengths of signals, or cubes.

    Of several inputs, all maps are tried in proportion to the largest. Returns None if there is no
    map among the inputs, and if the network is too large to reach the declared size.
    """
    declared = max(max(shape.spatial, default=0) for shape in graph.inputs.values())
    if not declared:
        return None
    last = min(max(64, 2 * declared), LARGEST)
    try:
        return _sizes_to(last, graph)
    except _TooCostlyError as error:
        last = int(0.9 * error.share * last)
    try:
        return _sizes_to(last, graph) if last >= min(declared, LARGEST) else None
    except _TooCostlyError:
        return None


def _sizes_to(last: int, graph: Graph) -> InputSizes:
    sizes = range(1, last + 1)
    evaluations = len(graph.inputs) * last
    if evaluations > MOST_EVALUATIONS:
        raise _TooCostlyError(MOST_EVALUATIONS / evaluations)
    tables = _inputs(graph, last)
    known: dict[object, _Table] = {}  # so that copies of a repeat are evaluated once
    shared: dict[_Table, _Table] = {}
    failures: list[Failure] = []
    failed: set[int] = set()
    for index, node in enumerate(graph.nodes):
        inputs = [tables[path] for path in node.inputs]
        key = (_identity(node.op), graph.input_shapes(node), *map(id, inputs))
        if key in known:  # it fails at the same sizes, which are reported already
            tables[node.path] = known[key]
            continue
        groups, combinations = _combine(inputs)
        evaluations += (len(combinations) + last // 16) * len(inputs)
        if evaluations > MOST_EVALUATIONS:
            raise _TooCostlyError(index / len(graph.nodes))
        weights = node.op.parameters(*graph.input_shapes(node))
        outcomes = [_infer(node, inputs, weights) for inputs in combinations]
        wrong = {index: item for index, item in enumerate(outcomes) if isinstance(item, ShapeError)}
        found = (
            [size for size, group in zip(sizes, groups, strict=True) if group in wrong]
            if wrong
            else []
        )
        if fresh := [size for size in found if size not in failed]:
            error = wrong[groups[fresh[0] - 1]]
            failures.append(Failure(tuple(fresh), node.path, error.code, str(error)))
            failed.update(fresh)
        table = _regroup(groups, outcomes)
        known[key] = tables[node.path] = shared.setdefault(table, table)
    valid = tuple(size for size in sizes if size not in failed)
    return InputSizes((1, last), valid, _stride(graph, tables), tuple(failures))


def _inputs(graph: Graph, last: int) -> dict[str, _Table]:
    """The shapes of each input for sizes from 1 to `last`; flat inputs keep theirs."""
    largest = max(max(shape.spatial, default=0) for shape in graph.inputs.values())
    groups = tuple(range(last))
    tables: dict[str, _Table] = {}
    for name, shape in graph.inputs.items():
        if not shape.spatial:
            tables[name] = _Table((0,) * last, (shape,))
            continue
        own = (-(-size * max(shape.spatial) // largest) for size in range(1, last + 1))
        rank = len(shape.spatial)
        squares = tuple(TensorShape((shape.channels, *(size,) * rank)) for size in own)
        tables[name] = _Table(groups, squares)
    return tables


def _identity(op: Op) -> object:
    """A key that equal ops share. An op that cannot be hashed, such as a plugin's, has its own."""
    try:
        hash(op)
    except TypeError:
        return id(op)
    return op


def _combine(
    tables: list[_Table],
) -> tuple[tuple[int, ...], list[tuple[TensorShape | None, ...]]]:
    """The groups of sizes for which no table changes, and the shapes of each group."""
    first = tables[0].groups
    if all(table.groups is first for table in tables):
        return first, list(zip(*(table.shapes for table in tables), strict=True))
    index: dict[tuple[int, ...], int] = {}
    keys = zip(*(table.groups for table in tables), strict=True)
    groups = tuple(index.setdefault(key, len(index)) for key in keys)
    return groups, [
        tuple(table.shapes[group] for table, group in zip(tables, key, strict=True))
        for key in index
    ]


def _regroup(groups: tuple[int, ...], outcomes: list[TensorShape | ShapeError | None]) -> _Table:
    shapes = [None if isinstance(item, ShapeError) else item for item in outcomes]
    distinct = {shape: index for index, shape in enumerate(dict.fromkeys(shapes))}
    if len(distinct) == len(shapes):
        return _Table(groups, tuple(shapes))
    merged = [distinct[shape] for shape in shapes]
    return _Table(tuple(merged[group] for group in groups), tuple(distinct))


def _infer(
    node: Node, inputs: tuple[TensorShape | None, ...], weights: dict[str, tuple[int, ...]]
) -> TensorShape | ShapeError | None:
    known = [shape for shape in inputs if shape is not None]
    if len(known) < len(inputs):
        return None
    try:
        shape = node.op.infer(*known)
    except ShapeError as error:
        return error
    if weights and node.op.parameters(*known) != weights:
        return ShapeError(
            f"the weights of {node.op.kind} would need another shape for an input of {known[0]}"
        )
    return shape


def _stride(graph: Graph, tables: dict[str, _Table]) -> int | None:
    """Measured between the last two sizes at which the last growing map grows."""
    path, seen = graph.output, None
    while path not in graph.inputs:
        if tables[path] is seen:
            path = graph.by_path[path].inputs[0]
            continue
        seen = tables[path]
        shapes = enumerate(tables[path], start=1)
        heights = [(size, shape[1]) for size, shape in shapes if shape and shape.spatial]
        steps = [
            (size, after) for (_, before), (size, after) in pairwise(heights) if before < after
        ]
        if len(steps) > 1:
            (before, low), (after, high) = steps[-2:]
            return max(1, round((after - before) / (high - low)))
        path = graph.by_path[path].inputs[0]
    return None


_DIVISORS = (2, 4, 8, 16, 32, 64)


def divisor(
    nodes: Mapping[str, Node], network: Mapping[str, TensorShape], op: Op, inputs: Sequence[str]
) -> int | None:
    """The smallest power of two such that `op` accepts inputs of which it divides every size.

    None if there is none, or if the sizes of the input are not what `op` refuses.

    Args:
        nodes: the nodes of a network so far, by path.
        network: the network's inputs by name.
        inputs: paths of the values that `op` would read.
    """
    needed = {*inputs}
    for node in reversed([*nodes.values()]):
        if node.path in needed:
            needed.update(node.inputs)
    used = [node for node in nodes.values() if node.path in needed]
    for divisor in _DIVISORS if len(used) * len(_DIVISORS) <= MOST_EVALUATIONS else ():
        if all(
            _is_accepted(used, _rounded(network, divisor, more), op, inputs)
            for more in (0, divisor)
        ):
            return divisor
    return None


def _rounded(network: Mapping[str, TensorShape], divisor: int, more: int) -> dict[str, TensorShape]:
    """The inputs with sizes rounded up to multiples of `divisor`, plus `more`."""
    return {
        name: TensorShape(
            (shape.channels, *(-(-size // divisor) * divisor + more for size in shape.spatial))
        )
        for name, shape in network.items()
    }


def _is_accepted(
    nodes: Sequence[Node], network: dict[str, TensorShape], op: Op, inputs: Sequence[str]
) -> bool:
    shapes = dict(network)
    try:
        for node in nodes:
            shapes[node.path] = node.op.infer(*(shapes[path] for path in node.inputs))
        op.infer(*(shapes[path] for path in inputs))
    except ShapeError:
        return False
    return True


def runs(sizes: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Groups ascending sizes into inclusive runs of consecutive sizes."""
    start = previous = None
    for size in sizes:
        if previous is None or size != previous + 1:
            if start is not None and previous is not None:
                yield start, previous
            start = size
        previous = size
    if start is not None and previous is not None:
        yield start, previous
