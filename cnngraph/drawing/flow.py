"""The units of a level as a series-parallel flow: a chain whose elements are units and forks.

`residual`, `parallel`, `dense`, gates and the skips of a U-Net are forks, nested in one another.
What remains, such as a value that is read from afar, is a link; what starts aside, such as a side
head, is a strand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from cnngraph.drawing.units import Unit, drawn_inputs

START = -1
"""Stands for the value that enters the level."""


@dataclass(frozen=True)
class Fork:
    """Branches from one value that are joined; an empty branch is the value itself."""

    branches: tuple[tuple[Element, ...], ...]
    merge: Unit


Element = Unit | Fork
Chain = tuple[Element, ...]


def end_of(element: Element) -> Unit:
    """The unit that gives the value of an element."""
    return element if isinstance(element, Unit) else element.merge


def units_of(chain: Chain) -> Iterator[Unit]:
    """All units of a chain, in order."""
    for element in chain:
        if isinstance(element, Fork):
            for branch in element.branches:
                yield from units_of(branch)
        yield end_of(element)


@dataclass(frozen=True)
class Strand:
    """A chain that starts at the value of a unit (None: of the level) beside the main chain."""

    origin: Unit | None
    chain: Chain

    @property
    def aux(self) -> bool:
        """Whether it is a side head."""
        return end_of(self.chain[0]).aux


@dataclass(frozen=True)
class Flow:
    """A level.

    Attributes:
        chain: the main chain, from what enters the level to its result.
        strands: the other chains.
        links: the values that are read from afar: `(from, to)`.
    """

    chain: Chain
    strands: tuple[Strand, ...] = ()
    links: tuple[tuple[Unit | None, Unit], ...] = ()

    @cached_property
    def tangle(self) -> range:
        """The elements of the main chain among which values are exchanged, strands included.

        Empty if the level consists of branches, shortcuts and side heads alone.
        """
        strands = [strand for strand in self.strands if not strand.aux]
        if not self.links and not strands:
            return range(0)
        last = len(self.chain) - 1
        origins = [strand.origin for strand in strands] + [origin for origin, _ in self.links]
        starts = [0 if origin is None else self._after(origin) for origin in origins]
        joined = {origin for origin, _ in self.links}
        open_ends = [last for strand in strands if end_of(strand.chain[-1]) not in joined]
        ends = [self._place(unit) for _, unit in self.links]
        found = [min(index, last) for index in (*starts, *ends, *open_ends) if index is not None]
        return range(min(found), max(found) + 1)

    @property
    def in_grid(self) -> Iterator[Unit]:
        """The units that exchange values."""
        if self.tangle:
            yield from units_of(self.chain[self.tangle.start : self.tangle.stop])
            for strand in self.strands:
                yield from units_of(strand.chain)

    def _place(self, unit: Unit) -> int | None:
        """The index of the element that contains a unit, None if a strand does."""
        places = (i for i, element in enumerate(self.chain) if unit in units_of((element,)))
        return next(places, None)

    def _after(self, unit: Unit) -> int | None:
        """The index of the first element that can read a unit's value."""
        place = self._place(unit)
        return place if place is None else place + (end_of(self.chain[place]) == unit)

    @property
    def chains(self) -> tuple[Chain, ...]:
        """The main chain and those of the strands."""
        return (self.chain, *(strand.chain for strand in self.strands))


def flow_of(units: Sequence[Unit], source: Callable[[str], str]) -> Flow:
    """The flow of the units of a level.

    Args:
        source: the path of the node that is drawn for a value.
    """
    return _Builder(units, source).build()


@dataclass
class _Open:
    """A chain that has not been joined with another yet."""

    origin: int
    elements: list[Element] = field(default_factory=list[Element])


class _Builder:
    def __init__(self, units: Sequence[Unit], source: Callable[[str], str]) -> None:
        self.source = source
        self.units = units
        self.owner = {node.path: i for i, unit in enumerate(units) for node in unit.nodes}
        self.reads = [self._sources(unit) for unit in units]
        self.users: dict[int, int] = {}
        for sources in self.reads:
            for index in sources:
                self.users[index] = self.users.get(index, 0) + 1
        self.ends: dict[int, _Open] = {START: _Open(START)}
        self.links: list[tuple[int, int]] = []

    def _sources(self, unit: Unit) -> list[int]:
        """The units whose values a unit reads, in order; `START` for values of outer levels."""
        inside = {node.path for node in unit.nodes}
        read = (self.source(path) for node in unit.nodes for path in drawn_inputs(node))
        paths = (path for path in read if path not in inside)
        return list(dict.fromkeys(self.owner.get(path, START) for path in paths))

    def build(self) -> Flow:
        for index, unit in enumerate(self.units):
            sources = self.reads[index]
            if unit.is_merge and len(sources) > 1 and self._join(index, unit, sources):
                continue
            self._append(index, unit, sources)
        chain, last = self._main()
        strands: list[Strand] = []
        for end in self.ends.keys() - {START, last}:
            opened = self.ends[end]
            strands.append(Strand(self._unit(opened.origin), tuple(opened.elements)))
        strands.sort(key=lambda strand: self._index(strand.chain[0]))
        links = tuple((self._unit(a), self.units[b]) for a, b in self.links)
        return Flow(chain, tuple(strands), links)

    def _index(self, element: Element) -> int:
        while isinstance(element, Fork):
            element = next((branch[0] for branch in element.branches if branch), element.merge)
        return self.units.index(element)

    def _unit(self, index: int) -> Unit | None:
        return None if index == START else self.units[index]

    def _append(self, index: int, unit: Unit, sources: list[int]) -> None:
        first = sources[0] if sources else START
        if self.users.get(first) == 1 and first in self.ends and first != START:
            opened = self.ends.pop(first)
        else:
            opened = _Open(first)
        opened.elements.append(unit)
        self.ends[index] = opened
        self.links += [(source, index) for source in sources[1:]]

    def _join(self, index: int, unit: Unit, sources: list[int]) -> bool:
        """Replaces the chains from their common start to this join by a fork."""
        climbs = [list(self._climb(source)) for source in sources]
        fork = next((end for end in climbs[0] if all(end in climb for climb in climbs)), None)
        if fork is None or fork not in self.ends:
            return False
        branches: list[Chain] = []
        for climb in climbs:
            branch: list[Element] = []
            for end in climb[: climb.index(fork)]:
                branch = [*self.ends.pop(end).elements, *branch]
            branches.append(tuple(branch))
        opened = self.ends.pop(fork) if fork != START else _Open(START)
        opened.elements.append(Fork(tuple(branches), unit))
        self.ends[index] = opened
        return True

    def _climb(self, end: int) -> Iterable[int]:
        """A value, the start of its chain, the start of the chain that leads there, ..."""
        while end in self.ends:
            yield end
            if end == START:
                return
            end = self.ends[end].origin

    def _main(self) -> tuple[Chain, int]:
        """The longest chain from the start of the level, and the index at its end."""
        ends = [end for end in self.ends if end != START]
        climbs = {end: [*self._climb(end)] for end in ends}
        whole = [end for end in ends if climbs[end][-1] == START]
        main = [end for end in whole if not self.units[end].aux] or whole
        last = max(main, default=START)
        chain: list[Element] = []
        for end in climbs.get(last, ()):
            opened = self.ends[end] if end in (last, START) else self.ends.pop(end)
            chain = [*opened.elements, *chain]
        return tuple(chain), last
