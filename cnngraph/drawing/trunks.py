"""The vertical lines between two columns of a grid: which run beside which, and their space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from cnngraph.drawing.grid import Cell, Grid, Place
from cnngraph.drawing.rows import GAP

Line = tuple[Cell, str]
"""A value that leaves a cell."""
TRUNK = 4.0
"""The distance of vertical lines between two columns."""
_ENTRY = 9.0
"""The length of the lines into the first column."""


@dataclass(frozen=True)
class Trunks:
    """The vertical lines before a column: for each value that needs one, its slot."""

    slots: Mapping[Line, int]
    gap: float

    def at(self, line: Line, right: float) -> float:
        """The position of a value's vertical line; `right` is the left edge of the column."""
        return right - 8 - TRUNK * (max(self.slots.values()) - self.slots[line])


def trunks_before(grid: Grid, column: Sequence[Cell]) -> Trunks:
    """The vertical lines before a column, in an order in which few cross."""
    ends: dict[Line, list[tuple[Place, int]]] = {}
    for cell in column:
        for source, value, here, port in grid.arrivals(cell):
            ends.setdefault((source, value), []).append((here, port))
    starts = {line: (grid.leaves(*line), 0) for line in ends}
    bent = {line: found for line, found in ends.items() if {*found} != {starts[line]}}
    slots: dict[Line, int] = {}
    waiting = list(bent)
    while waiting:
        after = {
            line: [o for o in bent if o != line and starts[o] in ends[line]] for line in waiting
        }
        free = (line for line in waiting if not any(other in waiting for other in after[line]))
        line = next(free, waiting[0])
        waiting.remove(line)
        least = 1 + max((slots.get(other, -1) for other in after[line]), default=-1)
        taken = {
            slots[o] for o in slots if _overlap([starts[line], *ends[line]], [starts[o], *ends[o]])
        }
        slots[line] = next(slot for slot in count(least) if slot not in taken)
    if not ends:
        return Trunks(slots, 0.0)
    least = GAP if bent or column[0].column > 1 else _ENTRY
    return Trunks(slots, least + TRUNK * max(slots.values(), default=0))


def _overlap(one: Sequence[tuple[Place, int]], other: Sequence[tuple[Place, int]]) -> bool:
    return min(one) <= max(other) and min(other) <= max(one)
