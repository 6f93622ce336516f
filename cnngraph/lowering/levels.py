"""The levels of a graph: the nodes of each, and the values that it reads and returns.

This file does not depend on torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import takewhile

from cnngraph.graph import Graph, Node


@dataclass
class Level:
    """A path that contains nodes; it becomes a module.

    Attributes:
        path: the path; empty for the network itself.
        inputs: paths of the values that its nodes read from outside, in order of first use.
        outputs: paths of its values that are read outside, its own result first.
        nodes: its direct nodes, as written in the spec.
        levels: its direct levels.
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
        """The start of all paths in this level: `path.`, or an empty text for the network."""
        return f"{self.path}." if self.path else ""

    def name_of(self, path: str) -> str:
        """A path relative to this level; empty for the node that joins the level's branches."""
        return path[len(self.prefix) :]


class Levels(dict[str, Level]):
    """All levels of a graph by path, outer levels first; the root's path is empty."""

    def __init__(self, graph: Graph) -> None:
        super().__init__({"": Level("")})
        self._containers = _containers(graph)
        for path in (*(node.path for node in graph.nodes), *(f"{head}." for head in graph.aux)):
            self._add(parent_of(path))
        for index, node in enumerate(graph.nodes):
            own = self.around(node.path)
            next(own).nodes.append(node)
            for level in self.around(node.path):
                level.last = index
        self._find_borders(graph)

    def _add(self, path: str) -> None:
        if path in self._containers:
            self._add(parent_of(path))
        elif path not in self:
            parent = parent_of(path)
            self._add(parent)
            self[path] = Level(path)
            self._nearest(parent).levels.append(self[path])

    def _nearest(self, path: str) -> Level:
        """The innermost level at or around a path."""
        while path not in self:
            path = parent_of(path)
        return self[path]

    def around(self, path: str) -> Iterator[Level]:
        """The levels that contain the node at `path`, innermost first.

        The node that joins the branches of a composite has the composite's path and belongs to it.
        """
        level = self._nearest(path)
        yield level
        while level.path:
            level = self._nearest(parent_of(level.path))
            yield level

    def home_of(self, node: Node) -> Level:
        """The innermost level that contains all parts of a node."""
        paths = [next(self.around(leaf.path)).path.split(".") for leaf in node.leaves]
        names = takewhile(lambda names: len(set(names)) == 1, zip(*paths, strict=False))
        return self._nearest(".".join(name for name, *_ in names))

    def _find_borders(self, graph: Graph) -> None:
        inputs: dict[str, dict[str, None]] = {path: {} for path in self}
        outputs: dict[str, dict[str, None]] = {path: {} for path in self}
        inside = {
            node.path: [level.path for level in self.around(node.path)] for node in graph.nodes
        }
        inside |= {name: [""] for name in graph.inputs}
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
        self[""].inputs = tuple(graph.inputs)
        results = graph.features.values() or (graph.output,)
        self[""].outputs = tuple(dict.fromkeys((*results, *graph.aux.values())))


def _containers(graph: Graph) -> set[str]:
    """Paths that only hold modules: the levels around them call these.

    A level that calls a module outside of it cannot run by itself.
    """
    found = set(graph.containers)
    for node in graph.nodes:
        path = parent_of(node.path) if node.shared else ""
        while path and not node.shared.startswith(f"{path}."):
            found.add(path)
            path = parent_of(path)
    return found


def parent_of(path: str) -> str:
    """The path of the level that contains `path`; empty for the network."""
    return path.rpartition(".")[0]


def is_chain(graph: Graph, level: Level) -> bool:
    """Whether each child of a level is a module that reads only the previous child's result."""
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
        name = level.name_of(child.path)
        if "." in name or (isinstance(child, Node) and child.shared):
            return False
        names.append(name)
        value = outputs[0]
    first = [name for name in graph.order.get(level.path, ()) if name in names]
    return level.outputs == (value,) and names == [*first, *(n for n in names if n not in first)]


def _is_parameter(graph: Graph, node: Node) -> bool:
    """Whether a node is a parameter at its own path and has no module."""
    return "" in node.op.parameters(*graph.input_shapes(node))
