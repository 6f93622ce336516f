"""The levels of a graph: which nodes lie in each, and which values pass its border. It knows nothing of torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from cnngraph.graph import INPUT, Graph, Node


@dataclass
class Level:
    """A path below which nodes lie; it becomes a module.

    Attributes:
        inputs: paths of the values its nodes read from outside, in order of first use.
        outputs: paths of its values that are read outside, its own result first.
        nodes: the nodes directly in it, as written in the spec.
        levels: the levels directly in it.
        last: the index of its last node in the graph.
    """

    path: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    last: int = -1

    @property
    def prefix(self) -> str:
        """What the paths of everything in it begin with."""
        return f"{self.path}." if self.path else ""

    def name_of(self, path: str) -> str:
        """The name in this level of what lies directly in it; empty for the node that joins its branches."""
        return path[len(self.prefix) :]


class Levels(dict[str, Level]):
    """All levels of a graph by path, outer ones before those inside of them; the root's path is empty."""

    def __init__(self, graph: Graph) -> None:
        super().__init__({"": Level("")})
        for path in (*(node.path for node in graph.nodes), *(f"{head}." for head in graph.aux)):
            self._add(parent_of(path))
        for index, node in enumerate(graph.nodes):
            own = self.around(node.path)
            next(own).nodes.append(node)
            for level in self.around(node.path):
                level.last = index
        self._find_borders(graph)

    def _add(self, path: str) -> None:
        if path not in self:
            parent = parent_of(path)
            self._add(parent)
            self[path] = Level(path)
            self[parent].levels.append(self[path])

    def around(self, path: str) -> Iterator[Level]:
        """The level that the node at `path` lies directly in, and those around it, from the inside out.

        The node that joins the branches of a composite has the composite's own path, and lies in it.
        """
        if path not in self:
            path = parent_of(path)
        yield self[path]
        while path:
            path = parent_of(path)
            yield self[path]

    def home_of(self, node: Node) -> Level:
        """The innermost level that all parts of a node lie in."""
        paths = [next(self.around(leaf.path)).path.split(".") for leaf in node.leaves]
        names = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
        return self[".".join(name for name, *_ in names)]

    def _find_borders(self, graph: Graph) -> None:
        inputs: dict[str, dict[str, None]] = {path: {} for path in self}
        outputs: dict[str, dict[str, None]] = {path: {} for path in self}
        inside = {
            node.path: [level.path for level in self.around(node.path)] for node in graph.nodes
        }
        inside[INPUT] = [""]
        for scope in graph.scopes.values():
            if scope.path in self and scope.path in inside.get(scope.output, ()):
                outputs[scope.path][scope.output] = None
        for node in graph.nodes:
            for value in node.inputs:
                here, there = inside[node.path], inside[value]
                if here is there:
                    continue
                for path in here:
                    if path in there:
                        break
                    inputs[path][value] = None
                for path in there:
                    if path in here:
                        break
                    outputs[path][value] = None
        for value in (graph.output, *graph.features.values(), *graph.aux.values()):
            for path in inside[value]:
                outputs[path][value] = None
        for path, level in self.items():
            level.inputs, level.outputs = tuple(inputs[path]), tuple(outputs[path])
        self[""].inputs = (INPUT,)
        self[""].outputs = tuple(
            dict.fromkeys(graph.features.values() or (graph.output, *graph.aux.values()))
        )


def parent_of(path: str) -> str:
    return path.rpartition(".")[0]


def is_chain(graph: Graph, level: Level) -> bool:
    """Whether each child reads the result of the one before it, and nothing else happens in the level."""
    if len(level.inputs) != 1 or (graph.features and not level.path):
        return False
    (value,) = level.inputs
    children: list[tuple[int, Node | Level]] = [
        *((graph.index[node.path], node) for node in level.nodes),
        *((child.last, child) for child in level.levels),
    ]
    names: list[str] = []
    for _, child in sorted(children, key=lambda item: item[0]):
        outputs = (child.path,) if isinstance(child, Node) else child.outputs
        if child.inputs != (value,) or len(outputs) != 1 or child.path in graph.aux:
            return False
        if isinstance(child, Node) and (not child.op.has_module or _is_parameter(graph, child)):
            return False
        names.append(level.name_of(child.path))
        value = outputs[0]
    first = [name for name in graph.order.get(level.path, ()) if name in names]
    return level.outputs == (value,) and names == [*first, *(n for n in names if n not in first)]


def _is_parameter(graph: Graph, node: Node) -> bool:
    """Whether a node holds a parameter at its own path, and has no module."""
    return "" in node.op.parameters(*graph.input_shapes(node))
