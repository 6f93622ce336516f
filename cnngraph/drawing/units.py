"""The units of a level: what is drawn as one box or one join.

A unit is a layer with the norms, activations and dropouts that follow it, or a block of the spec,
which is folded. Composites without a meaning of their own (`sequential`, branches) are opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

from cnngraph.drawing.labels import class_of, module_of, short_kind
from cnngraph.graph import Graph, Node, Scope
from cnngraph.ops.op import Op
from cnngraph.shape import TensorShape
from cnngraph.spec.document import COMPOSITES

_OPENED = {*COMPOSITES, "branch", "project"} - {"aux"}
"""Kinds of scopes that are drawn as what they contain."""
_NOTHING = "identity"
"""The kind of nodes that are not drawn."""
_FOLLOWS = {"norm", "activation", "scale"}
_CARRIES = {"conv", "linear", "norm", "activation", "merge", "scale"}
"""The classes of ops that are drawn together with a norm or an activation that follows."""


@dataclass(frozen=True)
class Unit:
    """A box or a join of a drawing.

    Attributes:
        path: the path of its node or scope.
        nodes: what it stands for, in order; of a layer, the first is the layer.
        scope: the folded block, or None for a layer.
    """

    path: str
    nodes: tuple[Node, ...]
    scope: Scope | None = None

    @property
    def output(self) -> str:
        """The path of its value."""
        if self.scope and any(node.path == self.scope.output for node in self.nodes):
            return self.scope.output
        return self.nodes[-1].path

    @property
    def shape(self) -> TensorShape:
        """The shape of its value."""
        output = self.output
        return next(node.shape for node in reversed(self.nodes) if node.path == output)

    @property
    def kind(self) -> str:
        """The name of its block or op."""
        return self.scope.kind if self.scope else self.nodes[0].op.kind

    @property
    def style(self) -> str:
        """Its class, a key of `labels.CLASSES`."""
        if isinstance(self.nodes[0].op, _Input):
            return "input"
        return "block" if self.scope else class_of(self.nodes[0].op)

    @property
    def tail(self) -> tuple[str, ...]:
        """Short names of what follows a layer in its box: `("BN", "relu")`."""
        return () if self.scope else tuple(short_kind(node.op) for node in self.nodes[1:])

    @property
    def is_merge(self) -> bool:
        """Whether it joins several values."""
        return self.style == "merge"

    @property
    def aux(self) -> bool:
        """Whether it is part of a side head."""
        return bool(self.nodes[0].aux)


class _Input(Op):
    """Stands for one of several inputs of a network."""

    kind = "input"


def drawn_inputs(node: Node) -> tuple[str, ...]:
    """The values that a node computes with, without one of which it only takes the size."""
    return node.inputs[:1] if getattr(node.op, "like", None) else node.inputs


class Units:
    """The units of each level of a graph.

    Args:
        depth: how many levels of blocks are opened at the top; 1 folds every block.
    """

    def __init__(self, graph: Graph, depth: int = 1) -> None:
        self.graph = graph
        self.depth = depth
        self._inside: dict[str, tuple[Unit, ...]] = {}

    def source(self, path: str) -> str:
        """The path of the node that is drawn for a value: that of an `identity` is its input's."""
        while (node := self.graph.by_path.get(path)) and node.op.kind == _NOTHING:
            path = node.inputs[0]
        return path

    @cached_property
    def readers(self) -> dict[str, list[str]]:
        """The paths of the drawn nodes that read a value, by its path; "" if it is returned."""
        readers: dict[str, list[str]] = {}
        for node in self.graph.nodes:
            for path in drawn_inputs(node) if node.op.kind != _NOTHING else ():
                readers.setdefault(self.source(path), []).append(node.path)
        for path in self.graph.outputs:
            readers.setdefault(self.source(path), []).append("")
        return readers

    def top(self) -> tuple[Unit, ...]:
        """The units of the network; several inputs have a unit each."""
        units = self._units("", self.graph.nodes, self.depth)
        names = self.graph.inputs if len(self.graph.inputs) > 1 else ()
        return (*map(self._input, names), *units)

    def _input(self, name: str) -> Unit:
        origin = self.graph.nodes[0].origin
        return Unit(name, (Node(name, _Input(), (), self.graph.inputs[name], origin),))

    def inside(self, unit: Unit) -> tuple[Unit, ...]:
        """The units in a folded block."""
        assert unit.scope is not None
        path = unit.scope.path
        if path not in self._inside:
            self._inside[path] = self._units(path, unit.nodes, 1)
        return self._inside[path]

    def _units(self, level: str, nodes: Iterable[Node], depth: int) -> tuple[Unit, ...]:
        groups: dict[tuple[str, bool], list[Node]] = {}
        for node in nodes:
            if node.op.kind == _NOTHING:
                continue
            groups.setdefault(self._owner(level, node.path, depth), []).append(node)
        scopes = self.graph.scopes
        return self._with_tails(
            self._unwrapped(Unit(path, tuple(group), scopes[path] if folded else None))
            for (path, folded), group in groups.items()
        )

    def _owner(self, level: str, path: str, depth: int) -> tuple[str, bool]:
        """The path of the block that a node is folded into at this level, or its own path."""
        here = level
        for part in path[len(level) :].lstrip(".").split(".") if path != level else ():
            here = f"{here}.{part}" if here else part
            if here in self.graph.scopes and self._folds(here):
                if depth <= 1:
                    return here, True
                depth -= 1
        return path, False

    def _folds(self, path: str) -> bool:
        kind = self.graph.scopes[path].kind
        return path in self._stages if kind == "repeat" else kind not in _OPENED

    @cached_property
    def _stages(self) -> set[str]:
        """The named repeats with nothing inside but blocks of one resolution."""
        scopes = self.graph.scopes
        children: dict[str, dict[str, list[Node]]] = {}
        for node in self.graph.nodes:
            here, _, rest = node.path.partition(".")
            while rest:
                part, _, rest = rest.partition(".")
                child = f"{here}.{part}"
                if here in scopes and scopes[here].kind == "repeat":
                    children.setdefault(here, {}).setdefault(child, []).append(node)
                here = child
        return {path for path, found in children.items() if self._are_blocks(found)}

    def _are_blocks(self, children: dict[str, list[Node]]) -> bool:
        scopes = self.graph.scopes
        if any(path not in scopes or scopes[path].kind in _OPENED for path in children):
            return False
        units = [Unit(path, tuple(nodes), scopes[path]) for path, nodes in children.items()]
        same_size = len({unit.shape.spatial for unit in units}) == 1
        return same_size and all(len(self.inside(unit)) > 1 for unit in units)

    def _unwrapped(self, unit: Unit) -> Unit:
        """A block that contains a single unit as that unit, under the block's path."""
        if unit.scope is None:
            return unit
        inside = self.inside(unit)
        return replace(inside[0], path=unit.path) if len(inside) == 1 else unit

    def _with_tails(self, units: Iterable[Unit]) -> tuple[Unit, ...]:
        """Puts norms, activations and dropouts into the boxes of the layers that they follow."""
        found: list[Unit] = []
        for unit in units:
            if found and self._follows(found[-1], unit):
                found[-1] = replace(found[-1], nodes=(*found[-1].nodes, *unit.nodes))
            else:
                found.append(unit)
        return tuple(found)

    def _follows(self, before: Unit, unit: Unit) -> bool:
        node, last = unit.nodes[0], before.nodes[-1]
        if before.scope or unit.scope or node.aux != last.aux:
            return False
        read = [*map(self.source, drawn_inputs(node))]
        if read != [last.path] or len(self.readers[last.path]) > 1:
            return False
        kind = module_of(node.op)
        return kind == "regularization" or (
            kind in _FOLLOWS and module_of(before.nodes[0].op) in _CARRIES
        )
