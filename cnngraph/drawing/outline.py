"""A graph as a drawing shows it: flows of levels, folded copies, and the distinct blocks."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from cnngraph.drawing.flow import Chain, Element, Flow, Fork, end_of, flow_of, units_of
from cnngraph.drawing.labels import Slots, slots
from cnngraph.drawing.units import Unit, Units
from cnngraph.graph import Graph
from cnngraph.ops.conv import Conv2d
from cnngraph.shape import TensorShape

Run = tuple[Element, ...]
"""Consecutive elements that are drawn once: copies of a repeat, or calls of one block."""


@dataclass(frozen=True)
class Block:
    """A distinct block: calls that differ in numbers only.

    Attributes:
        kind: the block's name.
        calls: the units that call it, at least one, in the order of computation.
    """

    kind: str
    calls: tuple[Unit, ...]


class Outline:
    """What is drawn of a graph.

    Args:
        depth: how many levels of blocks are opened in place; 1 folds every block.
    """

    def __init__(self, graph: Graph, depth: int = 1) -> None:
        self.graph = graph
        self.units = Units(graph, depth)
        self._flows: dict[str, Flow] = {}
        self._templates: dict[str, Hashable] = {}

    def flow(self, unit: Unit | None = None) -> Flow:
        """The flow inside a folded block; without one, that of the network."""
        key = unit.scope.path if unit and unit.scope else ""
        if key not in self._flows:
            units = self.units.top() if unit is None else self.units.inside(unit)
            self._flows[key] = flow_of(units, self.units.source)
        return self._flows[key]

    def slots(self, unit: Unit) -> Slots:
        """The arguments of a layer that are shown."""
        return slots(self.graph, unit.nodes[0])

    def template(self, unit: Unit) -> Hashable:
        """The structure of a unit, without its numbers."""
        if unit.scope is None:
            return unit.kind, unit.tail
        if unit.scope.path not in self._templates:
            flow = self.flow(unit)
            found = unit.kind, tuple(map(self._chain_template, flow.chains)), len(flow.links)
            self._templates[unit.scope.path] = found
        return self._templates[unit.scope.path]

    def _chain_template(self, chain: Chain) -> Hashable:
        return tuple(self._element_template(run[-1]) for run in self.runs(chain))

    def _element_template(self, element: Element) -> Hashable:
        if isinstance(element, Unit):
            return self.template(element)
        return self.template(element.merge), tuple(map(self._chain_template, element.branches))

    def runs(self, chain: Chain) -> list[Run]:
        """The chain, with copies put together."""
        runs: list[Run] = []
        for element in chain:
            if runs and self._continues(runs[-1], element):
                runs[-1] = (*runs[-1], element)
            else:
                runs.append((element,))
        return runs

    def _continues(self, run: Run, element: Element) -> bool:
        first, last = end_of(run[0]), end_of(run[-1])
        unit = end_of(element)
        if unit.kind != last.kind or unit.shape.spatial != first.shape.spatial:
            return False
        if unit.aux != last.aux or type(element) is not type(run[-1]):
            return False
        if unit.scope is not None and unit.kind != "repeat":
            return len(run) == 1 or self.template(unit) == self.template(last)
        return _same_repeat(last, unit) and self._exact(element) == self._exact(run[-1])

    def _exact(self, element: Element) -> Hashable:
        """The structure of an element with its numbers; blocks without."""
        if isinstance(element, Unit):
            return self.template(element), () if element.scope else self.slots(element)
        branches = tuple(tuple(map(self._exact, branch)) for branch in element.branches)
        return self.template(element.merge), branches

    def entry(self, unit: Unit) -> TensorShape:
        """The shape of what a unit reads first."""
        return self.graph.shape_of(unit.nodes[0].inputs[0])

    def shapes(self, unit: Unit) -> list[TensorShape]:
        """The shapes of the values that others read of a unit, larger maps first."""
        inside = {node.path for node in unit.nodes}
        readers = self.units.readers
        read = [node.shape for node in unit.nodes if set(readers.get(node.path, ())) - inside]
        return sorted(set(read), key=lambda shape: -prod(shape.spatial)) or [unit.shape]

    def stride(self, unit: Unit) -> str:
        """`/2` for a unit that halves the map, `up 2` for one that doubles it, otherwise ""."""
        before, after = self.entry(unit).spatial, unit.shape.spatial
        if not before or not after or max(after) == 1:
            return ""
        down, up = round(before[0] / after[0]), round(after[0] / before[0])
        return f"/{down}" if down > 1 else f"up {up}" if up > 1 else ""

    def note(self, run: Sequence[Unit]) -> str:
        """How the first call of a run of blocks differs: `first /2 + projection`."""
        first, last = run[0], run[-1]
        alone = len(self.shapes(first)) == 1
        parts = [stride] if alone and (stride := self.stride(first)) else []
        if self._projects(first) and (first is last or not self._projects(last)):
            parts.append("projection")
        return ("first " if parts and first is not last else "") + " + ".join(parts)

    def _projects(self, unit: Unit) -> bool:
        sums = (
            element
            for element in self.flow(unit).chain
            if isinstance(element, Fork) and element.merge.kind == "add"
        )
        return any(all(item.branches) and any(map(_is_projection, item.branches)) for item in sums)

    def blocks(self) -> list[Block]:
        """The distinct blocks, the outer ones first."""
        calls: dict[Hashable, list[Unit]] = {}
        level = [*_folded(self.flow())]
        while level:
            inner: list[Unit] = []
            for unit in level:
                if unit.kind != "repeat":
                    calls.setdefault(self.template(unit), []).append(unit)
                inner += _folded(self.flow(unit))
            level = inner
        order = self.graph.index
        return [
            Block(units[0].kind, tuple(sorted(units, key=lambda unit: order[unit.nodes[0].path])))
            for units in calls.values()
        ]


def _folded(flow: Flow) -> Iterator[Unit]:
    for chain in flow.chains:
        yield from (unit for unit in units_of(chain) if unit.scope)


def _is_projection(branch: Chain) -> bool:
    """Whether a branch is a 1x1 convolution, perhaps after a pooling."""
    layers = [element.nodes[0].op for element in branch if isinstance(element, Unit)]
    if len(layers) < len(branch) or not 1 <= len(branch) <= 2:
        return False
    return isinstance(layers[-1], Conv2d) and layers[-1].kernel_size == (1, 1)


def _same_repeat(a: Unit, b: Unit) -> bool:
    """Whether two units are copies of one repeat."""
    one, other = a.nodes[0].copies, b.nodes[0].copies
    return bool(one) and len(one) == len(other) and one[-1].repeat == other[-1].repeat
