"""The weights that are trained: all but those that `cnngraph.freeze` would freeze."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.patterns import matches, unmatched


def trained_weights(graph: Graph, frozen: Sequence[str] = ()) -> dict[str, list[int]]:
    """Path of each module -> the numbers of values of its trained weights.

    Args:
        frozen: patterns of the paths of the weights that are not trained.

    Raises:
        CnngraphError: a pattern matches no weight.
    """
    trained: dict[str, list[int]] = {}
    paths: list[str] = []  # norms without weights can be named too: they are frozen
    for leaf in graph.leaves():
        if leaf.shared:
            continue
        shapes = graph.input_shapes(leaf)
        paths += [f"{leaf.path}.{name}" for name in leaf.op.buffers(*shapes)]
        own = trained.setdefault(leaf.path, [])
        for name, shape in leaf.op.parameters(*shapes).items():
            path = f"{leaf.path}.{name}".rstrip(".")
            paths.append(path)
            if not any(matches(path, pattern) for pattern in frozen):
                own.append(prod(shape))
    for pattern in frozen:
        if (problem := unmatched(pattern, paths)) is not None:
            raise CnngraphError(problem)
    return trained
