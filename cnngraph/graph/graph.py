"""The graph: a flat list of nodes in topological order, with shapes. It does not need torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cnngraph.errors import CnngraphError, Position
from cnngraph.ops.op import Op
from cnngraph.shape import ShapeError, TensorShape

INPUT = "input"
"""The name of the network's input among the `inputs` of nodes, if it has one without a name."""


class GraphError(CnngraphError):
    """A graph is inconsistent: a bug in whatever made it, such as a pass, not in the spec."""


@dataclass(frozen=True)
class Copy:
    """Marks a node as part of copy `index` (from 0) of the `times` copies made by a `repeat`.

    Attributes:
        repeat: the path of the `repeat`.
    """

    repeat: str
    index: int
    times: int


@dataclass(frozen=True)
class Node:
    """One value of the network, and the op that computes it.

    Attributes:
        path: the node's unique name, and the path of its module in the `nn.Module`.
        inputs: paths of the values it reads, in order, or names of the network's inputs.
        parts: for a fused node, the nodes of the spec that it replaces. Modules keep their paths.
        aux: the path of the side head it belongs to, or "".
        copies: the repeats it is a copy in, outermost first.
        shared: the path of the earlier node whose module it calls; empty if it has its own.
        init: parameter -> how it is initialised, where the node says so (`cnngraph.spec.initial`).
    """

    path: str
    op: Op
    inputs: tuple[str, ...]
    shape: TensorShape
    origin: Position
    parts: tuple[Node, ...] = ()
    aux: str = ""
    copies: tuple[Copy, ...] = ()
    shared: str = ""
    init: Mapping[str, tuple[str, dict[str, Any]]] = field(
        default_factory=dict[str, Any], hash=False
    )

    @property
    def module(self) -> str:
        """The path of its module."""
        return self.shared or self.path

    @property
    def leaves(self) -> tuple[Node, ...]:
        """The nodes of the spec it stands for: its parts if it is fused, otherwise itself."""
        return self.parts or (self,)

    @staticmethod
    def fuse(nodes: Sequence[Node], op: Op, inputs: Iterable[str]) -> Node:
        """One node in place of several: it computes the last one's value, under the same path."""
        parts = tuple(leaf for node in nodes for leaf in node.leaves)
        return replace(nodes[-1], op=op, inputs=tuple(inputs), parts=parts, shared="")


Group = tuple[Sequence[Node], Node]
"""Nodes of a graph and their replacement, which has the path of the last."""


@dataclass(frozen=True)
class Scope:
    """A composite or block with a path of its own.

    Attributes:
        kind: the composite's or block's name.
        output: the path of its result.
    """

    path: str
    kind: str
    output: str
    shape: TensorShape
    origin: Position


@dataclass(frozen=True)
class Graph:
    """A network: its nodes, each after its inputs.

    Attributes:
        inputs: the shape of each input by name, without the batch.
        output: the path of the main result.
        aux: for each side head, its name -> the path of its result; computed in training only.
        scopes: composites and blocks by path, in the order they were completed.
        features: the values to return in place of the result, by name, if the spec or the caller
            names any.
        order: for a path whose modules are not in execution order, the names that come first.
        containers: paths that only hold modules, which names with dots open.
    """

    name: str
    inputs: dict[str, TensorShape]
    nodes: tuple[Node, ...]
    output: str
    aux: dict[str, str] = field(default_factory=dict[str, str])
    scopes: dict[str, Scope] = field(default_factory=dict[str, Scope])
    features: dict[str, str] = field(default_factory=dict[str, str])
    order: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    containers: frozenset[str] = frozenset()

    @property
    def input(self) -> TensorShape:
        """The shape of the input, of the first if there are several."""
        return next(iter(self.inputs.values()))

    @cached_property
    def by_path(self) -> dict[str, Node]:
        """The nodes by path."""
        return {node.path: node for node in self.nodes}

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each node, by its path."""
        return {node.path: index for index, node in enumerate(self.nodes)}

    @cached_property
    def users(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read a value, by its path; a node that reads it twice is listed twice."""
        users: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            for path in node.inputs:
                users[path].append(node)
        return {path: tuple(nodes) for path, nodes in users.items()}

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Paths of all values the network returns."""
        return frozenset((*(self.features.values() or (self.output,)), *self.aux.values()))

    @cached_property
    def _shapes(self) -> dict[str, TensorShape]:
        shapes = dict(self.inputs)
        for node in self.nodes:
            for part in node.parts:
                shapes[part.path] = part.shape
            shapes[node.path] = node.shape
        return shapes

    def shape_of(self, path: str) -> TensorShape:
        """The shape of an input or of a node's value, of one inside a fused node too."""
        return self._shapes[path]

    def input_shapes(self, node: Node) -> tuple[TensorShape, ...]:
        """The shapes of the values a node reads."""
        shapes = self._shapes
        return tuple([shapes[path] for path in node.inputs])

    def leaves(self) -> Iterator[Node]:
        """The nodes of the spec: each fused node gives its parts."""
        for node in self.nodes:
            yield from node.leaves

    # --- what passes share ----------------------------------------------------------------------

    def only_user(self, path: str) -> Node | None:
        """The single node that reads a value, once; None if there is no such node.

        None too if the network returns the value, or if only one of them is part of a side head.
        """
        users = self.users.get(path, ())
        if len(users) != 1 or path in self.outputs:
            return None
        aux = self.by_path[path].aux if path in self.by_path else ""
        return users[0] if users[0].aux == aux else None

    def producer_for(self, user: Node, path: str) -> Node | None:
        """The node whose value only `user` reads; None if others read it, or for the input."""
        return self.by_path.get(path) if self.only_user(path) is user else None

    def with_nodes(self, nodes: Iterable[Node]) -> Graph:
        """The same graph with other nodes."""
        return replace(self, nodes=tuple(nodes))

    def rewrite(self, match: Callable[[Node], Group | None]) -> Graph:
        """Replaces the groups that `match` finds, going from the last node to the first.

        Nodes that are in a group already are skipped.
        """
        groups: list[Group] = []
        taken: set[str] = set()
        for node in reversed(self.nodes):
            group = None if node.path in taken else match(node)
            if group is not None:
                groups.append(group)
                taken.update(part.path for part in group[0])
        return self.replace_groups(groups)

    def replace_groups(self, groups: Iterable[Group]) -> Graph:
        """Puts one node in the place of each group's last node, and removes the others."""
        fused: dict[str, Node] = {}
        absorbed: set[str] = set()
        for nodes, node in groups:
            fused[nodes[-1].path] = node
            absorbed.update(part.path for part in nodes[:-1])
        return self.with_nodes(
            fused.get(node.path, node) for node in self.nodes if node.path not in absorbed
        )

    # --- consistency ----------------------------------------------------------------------------

    def verify(self) -> None:
        """Raises `GraphError` if the graph is inconsistent."""
        seen = dict(self.inputs)
        modules: set[str] = set()
        for node in self.nodes:
            if node.path in seen:
                raise GraphError(f"{node.path} is defined twice")
            if missing := [path for path in node.inputs if path not in seen]:
                raise GraphError(f"{node.path} reads {missing} before they are defined")
            try:
                inferred = node.op.infer(*(seen[path] for path in node.inputs))
            except ShapeError as error:
                raise GraphError(f"{node.path} cannot be computed: {error}") from error
            if inferred != node.shape:
                raise GraphError(
                    f"the shape of {node.path} is {node.shape}, but its op gives {inferred}"
                )
            for leaf in node.leaves:
                if leaf.path in modules:
                    raise GraphError(f"{leaf.path} is part of two nodes")
                modules.add(leaf.path)
            seen[node.path] = node.shape
        if undefined := sorted(self.outputs - seen.keys()):
            raise GraphError(f"the output {undefined[0]} is never defined")

    def __repr__(self) -> str:
        outputs = ", ".join(self.outputs)
        inputs = " and ".join(map(str, self.inputs.values()))
        return f"<Graph {self.name}: {inputs} to {outputs}, {len(self.nodes)} nodes>"

    def __str__(self) -> str:
        inputs = ", ".join(f"{name}: {shape}" for name, shape in self.inputs.items())
        lines = [f"graph {self.name}({inputs})"]
        for node in self.nodes:
            call = f"{node.op}({', '.join(node.inputs)})"
            lines.append(f"  {node.path}: {node.shape} = {call}")
        named = [f"{name}={path}" for name, path in {**self.features, **self.aux}.items()]
        results = named if self.features else [self.output, *named]
        return "\n".join([*lines, f"  return {', '.join(results)}"])
