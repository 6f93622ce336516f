"""Networks that come back from an import have the graph they had."""

from __future__ import annotations

import cnngraph
from cnngraph.graph import Graph
from cnngraph.graph.cost import summarize
from cnngraph.importer import Imported
from cnngraph.shape import TensorShape


def weights(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Key -> shape of all parameters and buffers."""
    return {
        f"{node.path}.{name}".rstrip("."): shape
        for node in graph.nodes
        for name, shape in {
            **node.op.parameters(*graph.input_shapes(node)),
            **node.op.buffers(*graph.input_shapes(node)),
        }.items()
    }


def results(graph: Graph) -> dict[str, TensorShape]:
    """The shapes of all results, by name."""
    named = {"": graph.output, **graph.aux, **graph.features}
    return {name: graph.shape_of(path) for name, path in named.items()}


def assert_comes_back(imported: Imported, graph: Graph) -> None:
    """The spec of an imported module has the same keys, shapes, costs and results as `graph`."""
    report = cnngraph.check(imported.spec)
    assert report.ok, str(report)
    found = report.graph
    assert found is not None
    assert weights(found) == weights(graph)
    assert summarize(found) == summarize(graph)
    assert results(found) == results(graph)
