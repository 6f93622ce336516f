"""The stages of a network: its main parts, with their output shapes and costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import Cost, node_cost
from cnngraph.graph.trained import trained_weights
from cnngraph.ops.saved import Batch
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Stage:
    """One part of a network.

    Attributes:
        kind: the name of its op, composite or block.
        output: the path of its result.
        frozen: how many of its parameters are not trained.
        values: how many values its nodes result in for one image; views of others do not count.
        copies: the number of copies of a repeat, otherwise 1.
        aux: whether it is a side head, which is not computed in evaluation.
    """

    path: str
    kind: str
    shape: TensorShape
    cost: Cost
    output: str = ""
    values: int = 0
    frozen: int = 0
    copies: int = 1
    aux: bool = False


def stages(graph: Graph, depth: int | None = 1, frozen: Sequence[str] = ()) -> tuple[Stage, ...]:
    """The parts of a graph at a depth: 1 stands for the children of the top level, None for nodes.

    A `sequential` is replaced by its children. Copies of an unnamed repeat that differ only in
    their names are one stage. `frozen` are patterns of the paths of weights that are not trained,
    as of `cnngraph.freeze`. Raises `CnngraphError` if a pattern matches nothing.
    """
    groups: dict[str, list[Node]] = {}
    for node in graph.nodes:
        groups.setdefault(_stage_path(graph, node.path, depth), []).append(node)
    trained = trained_weights(graph, frozen)
    rows = [
        (_repeat(path, nodes[0]), _stage(graph, path, nodes, trained))
        for path, nodes in groups.items()
    ]
    return tuple(_collapsed(rows))


def _stage_path(graph: Graph, path: str, depth: int | None) -> str:
    if depth is None:
        return path
    parts, level = path.split("."), 1
    stage = parts[0]
    for part in parts[1:]:
        scope = graph.scopes.get(stage)
        if stage not in graph.containers and (scope is None or scope.kind != "sequential"):
            if level == depth:
                break
            level += 1
        stage = f"{stage}.{part}"
    return stage


def _stage(graph: Graph, path: str, nodes: list[Node], trained: Mapping[str, list[int]]) -> Stage:
    scope = graph.scopes.get(path)
    copies = [copy.times for node in nodes for copy in node.copies if copy.repeat == path]
    kind = scope.kind if scope else nodes[-1].op.kind
    shape = scope.shape if scope else nodes[-1].shape
    if path in graph.aux:
        shape = graph.shape_of(
            graph.aux[path]
        )  # the head's own result, not the value that passes by
    cost = sum((node_cost(graph, node) for node in nodes), Cost())
    return Stage(
        path=path,
        kind=_repeated_kind(graph, path, nodes) if kind == "repeat" else kind,
        shape=shape,
        cost=cost,
        output=scope.output if scope else nodes[-1].path,
        values=sum(result_values(graph, node) for node in nodes),
        frozen=cost.params - sum(sum(trained.get(node.path, ())) for node in nodes),
        copies=copies[0] if copies else 1,
        aux=path in graph.aux,
    )


def result_values(graph: Graph, node: Node) -> int:
    """How many values a node results in for one image; 0 for a view of another value."""
    saved = node.op.saves(Batch(1), node.shape, *graph.input_shapes(node))
    return 0 if saved.view else node.shape.elements


def _repeated_kind(graph: Graph, path: str, nodes: list[Node]) -> str:
    """The kind of the repeated node, or `repeat` if there are several kinds."""
    kinds: set[str] = set()
    for node in nodes:
        child = f"{path}.{node.path.removeprefix(f'{path}.').partition('.')[0]}"
        kinds.add(graph.scopes[child].kind if child in graph.scopes else node.op.kind)
    return kinds.pop() if len(kinds) == 1 else "repeat"


def _repeat(path: str, node: Node) -> tuple[str, int] | None:
    """The unnamed repeat whose copies are stages, and the index of this stage's copy."""
    level = path.rpartition(".")[0]
    for copy in reversed(node.copies):
        if copy.repeat.rpartition("@")[0] == level and "@" in copy.repeat:
            return copy.repeat, copy.index
    return None


def _collapsed(rows: list[tuple[tuple[str, int] | None, Stage]]) -> Iterator[Stage]:
    for repeat, run in groupby(rows, key=lambda row: row[0] and row[0][0]):
        if repeat is None:
            yield from (stage for _, stage in run)
            continue
        copies = [[stage for _, stage in copy] for _, copy in groupby(run, key=lambda row: row[0])]
        for _, same in groupby(copies, key=_signature):
            yield from map(_merged, zip(*same, strict=True))


def _signature(copy: list[Stage]) -> tuple[object, ...]:
    return tuple(
        (stage.kind, stage.shape, stage.cost, stage.values, stage.copies) for stage in copy
    )


def _merged(same: tuple[Stage, ...]) -> Stage:
    first, last = same[0], same[-1]
    if first is last:
        return first
    return Stage(
        path=f"{first.path} .. {last.path.rpartition('.')[2]}",
        kind=first.kind,
        shape=last.shape,
        cost=sum((stage.cost for stage in same), Cost()),
        output=last.output,
        values=sum(stage.values for stage in same),
        frozen=sum(stage.frozen for stage in same),
        copies=len(same) * first.copies,
        aux=first.aux,
    )
