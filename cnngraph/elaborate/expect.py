"""`expect:` compares the figures that an author states with those of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice

from cnngraph.errors import MAX_MISTAKES, Diagnostic, Position, did_you_mean
from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost, node_cost, shape_at, summarize
from cnngraph.shape import TensorShape
from cnngraph.spec.spec import Spec


def check_expectations(spec: Spec, graph: Graph) -> list[Diagnostic]:
    """A diagnostic for every figure that is wrong, with the difference."""
    return list(islice(_failures(spec, graph), MAX_MISTAKES))


def _failures(spec: Spec, graph: Graph) -> Iterator[Diagnostic]:
    expect, located = spec.expected, spec.expect
    if expect is None or located is None:
        return
    if any(figure is not None for figure in (expect.params, expect.buffers, expect.macs)):
        total = summarize(graph).total
        for figure in ("params", "buffers", "macs"):
            stated = getattr(expect, figure)
            if stated is not None and stated != getattr(total, figure):
                message = _difference(graph.name, figure, stated, getattr(total, figure))
                yield Diagnostic("E301", message, located.at((figure,)))
    for path, stated in expect.shapes.items():
        shape = shape_at(graph, path)
        position = located.at(("shapes", path))
        if shape is None:
            yield _no_such_path(graph, path, position)
        elif shape != stated:
            message = f"expected `{path}` to be {TensorShape(stated)}, but it is {shape}"
            yield Diagnostic("E301", message, position)
    costs = _costs(graph, expect.nodes)
    for path, node in expect.nodes.items():
        if shape_at(graph, path) is None:
            yield _no_such_path(graph, path, located.at(("nodes", path)))
            continue
        for figure in ("params", "macs"):
            stated = getattr(node, figure)
            if stated is not None and stated != getattr(costs[path], figure):
                message = _difference(path, figure, stated, getattr(costs[path], figure))
                yield Diagnostic("E301", message, located.at(("nodes", path, figure)))


def _costs(graph: Graph, paths: Iterable[str]) -> dict[str, Cost]:
    """The cost of each node, composite or block at `paths`."""
    costs = dict.fromkeys(paths, Cost())

    @cache
    def around(path: str) -> tuple[str, ...]:
        """Those of the paths that are `path`, or contain it."""
        outer = around(path.rpartition(".")[0]) if path else ()
        return (*outer, path) if path in costs else outer

    for node in graph.nodes if costs else ():
        for path in around(node.path):
            costs[path] += node_cost(graph, node)
    return costs


def _difference(what: str, figure: str, stated: int, found: int) -> str:
    gap = found - stated
    percent = f", {gap / stated:+.2%}" if abs(gap) < stated else ""
    name = "MACs" if figure == "macs" else figure
    return f"expected `{what}` to have {stated:,} {name}, but it has {found:,} ({gap:+,}{percent})"


def _no_such_path(graph: Graph, path: str, position: Position) -> Diagnostic:
    notes = did_you_mean(path, [*graph.scopes, *graph.by_path])
    return Diagnostic("E109", f"no node is called `{path}`", position, notes=notes)
