"""Receptive fields: which part of the input each value of a network can depend on.

They are exact on branches and joins (the hull of all that is read), with dilation, resizing and
transposed convolutions. What counts is evaluation: a batch norm reads its own position only, and
whatever pools globally or normalizes over positions reads the whole input. The arithmetic of a
single path is that of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural
Networks" (Distill, 2019).
"""

from __future__ import annotations

from collections.abc import Mapping

from cnngraph.graph import Graph, Node
from cnngraph.ops.reach import SAME, Reach

Field = tuple[Reach, ...] | None
"""For each axis, the input positions that a position reads; None if it may read all of them."""

_Fields = Mapping[str, Field | str]

_NOTHING = "nothing"
"""The field of a value that does not depend on the input."""


def receptive_fields(graph: Graph) -> dict[str, Field]:
    """The receptive field of every value, by its path, in positions of the first input.

    A value that does not depend on it, but on another input, is left out.
    """
    first, *others = graph.inputs
    fields: dict[str, Field | str] = dict.fromkeys(others, _NOTHING)
    fields[first] = tuple(SAME for _ in graph.input.spatial) or None
    for node in graph.nodes:
        fields[node.path] = _field(graph, node, fields)
    return {path: field for path, field in fields.items() if not isinstance(field, str)}


def _field(graph: Graph, node: Node, fields: _Fields) -> Field | str:
    shapes = graph.input_shapes(node)
    read = node.inputs[:1] if node.op.references else node.inputs  # of a reference, only the size
    result: Field | str = _NOTHING
    for index, path in enumerate(read):
        before = fields[path]
        if isinstance(before, str):
            continue
        reach = node.op.reach(index, node.shape, *shapes)
        if before is None or reach is None or len(reach) != len(before):
            return None
        field = tuple(one.after(other) for one, other in zip(reach, before, strict=True))
        result = field if result == _NOTHING else _union(result, field, node)
    return result


def _union(one: Field | str, other: tuple[Reach, ...], node: Node) -> Field:
    assert isinstance(one, tuple)
    axes = zip(one, other, node.shape.spatial, strict=True)
    return tuple(first.union(second, length) for first, second, length in axes)
