"""The graph: a flat list of nodes in topological order, with shapes. It knows nothing of torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from cnngraph.errors import Position
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from cnngraph.ops.op import Op

INPUT = "input"
"""What nodes call the network's input among their `inputs`."""


@dataclass(frozen=True)
class Copy:
    """Says that a node belongs to copy `index` (from 0) of the `times` copies of the repeat at `repeat`."""

    repeat: str
    index: int
    times: int


@dataclass(frozen=True)
class Node:
    """One value of the network.

    Attributes:
        path: the node's unique name, and where its module sits in the `nn.Module`.
        inputs: paths of the values it reads, in order; `"input"` is the network's input.
        parts: for a fused node, the nodes it replaces: their modules keep their paths.
        aux: the path of the side head it belongs to, or "".
        copies: the repeats it is a copy in, outermost first.
    """

    path: str
    op: Op
    inputs: tuple[str, ...]
    shape: TensorShape
    origin: Position
    parts: tuple[Node, ...] = ()
    aux: str = ""
    copies: tuple[Copy, ...] = ()

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The nodes as written in the spec that it stands for: itself where it is not fused."""
        return self.parts or (() if self.op.picks else (self,))


@dataclass(frozen=True)
class Scope:
    """A composite or block with a path of its own: nodes `[start, stop)` of the elaborated graph lie in it."""

    path: str
    kind: str
    output: str
    shape: TensorShape
    origin: Position


@dataclass(frozen=True)
class Graph:
    """A network: its nodes in an order in which each comes after its inputs.

    Attributes:
        output: the path of the main result.
        aux: for each side head, its name -> the path of its result; computed in training only.
        scopes: composites and blocks by path, in the order they were finished.
        features: the values returned, by name, where those were asked for instead of the result.
        order: for a path whose modules are not kept in the order they run in, the names that come first.
    """

    name: str
    input: TensorShape
    nodes: tuple[Node, ...]
    output: str
    aux: dict[str, str] = field(default_factory=dict)
    scopes: dict[str, Scope] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    order: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @cached_property
    def by_path(self) -> dict[str, Node]:
        return {node.path: node for node in self.nodes}

    @cached_property
    def users(self) -> dict[str, tuple[Node, ...]]:
        """Which nodes read a value, by the value's path; one that reads it twice is there twice."""
        users: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for path in node.inputs:
                users[path].append(node)
        return {path: tuple(nodes) for path, nodes in users.items()}

    @property
    def outputs(self) -> frozenset[str]:
        """Paths of all values the network returns."""
        return frozenset(self.features.values() or (self.output, *self.aux.values()))

    def shape_of(self, path: str) -> TensorShape:
        return self.input if path == INPUT else self.by_path[path].shape

    def input_shapes(self, node: Node) -> tuple[TensorShape, ...]:
        return tuple(map(self.shape_of, node.inputs))

    def leaves(self) -> Iterator[Node]:
        """The nodes as written in the spec: fused nodes are taken apart."""
        for node in self.nodes:
            yield from node.leaves

    def with_nodes(self, nodes: list[Node]) -> Graph:
        return replace(self, nodes=tuple(nodes))

    def verify(self) -> None:
        """Raises `AssertionError` where the graph contradicts itself: after a pass, that is the pass's fault."""
        seen: dict[str, TensorShape] = {INPUT: self.input}
        modules: set[str] = set()
        for node in self.nodes:
            assert node.path not in seen, f"{node.path} is defined twice"
            missing = [path for path in node.inputs if path not in seen]
            assert not missing, f"{node.path} reads {missing} before they are defined"
            try:
                inferred = node.op.infer(*(seen[path] for path in node.inputs))
            except ShapeError as error:
                raise AssertionError(f"{node.path} cannot be computed: {error}") from error
            assert inferred == node.shape, f"{node.path} is {node.shape}, its rule says {inferred}"
            for part in node.leaves:
                assert part.path not in modules, f"{part.path} is held twice"
                modules.add(part.path)
            seen[node.path] = node.shape
        for path in self.outputs:
            assert path in seen, f"the output {path} is never defined"

    def __repr__(self) -> str:
        return f"<Graph {self.name}: {self.input} to {', '.join(self.outputs)}, {len(self.nodes)} nodes>"

    def __str__(self) -> str:
        lines = [f"graph {self.name}({INPUT}: {self.input})"]
        for node in self.nodes:
            call = f"{node.op}({', '.join(node.inputs)})"
            lines.append(f"  {node.path}: {node.shape} = {call}")
        named = [f"{name}={path}" for name, path in (self.features or self.aux).items()]
        results = named if self.features else [self.output, *named]
        return "\n".join([*lines, f"  return {', '.join(results)}"])
