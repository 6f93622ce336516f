"""Places the units of a level that is no tree of branches: maps that exchange values, pyramids.

They are drawn as in the papers of HRNet and FPN: a row for each resolution, and columns from left
to right. A value that is read further on has a lane through the columns between (Sugiyama, Tagawa
and Toda, 1981). A row has as many tracks as it has cells in one column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

from cnngraph.drawing.shapes import Piece

Place = tuple[int, int]
"""A row and a track in it, both from the top."""
Draw = Callable[[Sequence[float], float], Piece]
"""Makes a piece: of the distances from its axis at which lines arrive, and the height of its rows
between the first and the last axis."""


@dataclass(eq=False)
class Cell:
    """A unit in the grid, or a lane of a value (`draw` is None).

    Attributes:
        values: the values that it gives to others.
        reads: the values that it reads.
        joins: whether lines end at it without an arrow.
        ends: whether it is the end of a value's line, and nothing else.
        rows: the rows of its values; a unit of several resolutions has several.
        sources: for each value of `reads`, the cell in the column before that it comes from.
    """

    values: tuple[str, ...]
    reads: tuple[str, ...]
    draw: Draw | None = None
    joins: bool = False
    ends: bool = False
    column: int = 0
    rows: range = range(1)
    track: int = 0
    sources: list[tuple[Cell, str]] = field(default_factory=list["tuple[Cell, str]"])


@dataclass(frozen=True)
class Grid:
    """Cells by column; `row_of` is the row of each value, and `labels` name the rows."""

    columns: list[list[Cell]]
    row_of: Mapping[str, int]
    labels: list[str]

    def leaves(self, cell: Cell, value: str) -> Place:
        """Where a value leaves a cell."""
        return self._nearest(cell, value)

    def arrivals(self, cell: Cell) -> list[tuple[Cell, str, Place, int]]:
        """The lines into a cell: source, value, the place where it arrives, and its port.

        Port 0 is on the axis; lines from above have ports -1, -2, ..., those from below 1, 2, ...
        """
        groups: dict[Place, list[tuple[Place, Cell, str]]] = {}
        for source, value in cell.sources:
            here = self._nearest(cell, value)
            groups.setdefault(here, []).append((self.leaves(source, value), source, value))
        found: list[tuple[Cell, str, Place, int]] = []
        for here, lines in groups.items():
            lines.sort(key=lambda line: line[0])
            straight = next((i for i, line in enumerate(lines) if line[0] == here), None)
            if straight is None:
                straight = -1 if lines[0][0] > here else len(lines)
            alone = len(lines) == 1
            found += [
                (source, value, here, 0 if alone else index - straight)
                for index, (_, source, value) in enumerate(lines)
            ]
        return found

    def _nearest(self, cell: Cell, value: str) -> Place:
        row = min(max(self.row_of[value], cell.rows[0]), cell.rows[-1])
        return row, cell.track


def place(
    cells: Sequence[Cell],
    entering: Iterable[str],
    leaving: Iterable[str],
    size: Callable[[str], tuple[int, str]],
) -> Grid:
    """The grid of the cells, which are in an order of computation.

    Args:
        entering: the values that come from outside.
        leaving: the values that are read outside, the main result first.
        size: the pixels of a value's map, and its resolution as text.
    """
    starts = [Cell((value,), ()) for value in entering]
    owner = {value: cell for cell in (*starts, *cells) for value in cell.values}
    for cell in cells:
        cell.column = 1 + max((owner[value].column for value in cell.reads), default=0)
    last = 1 + max(cell.column for cell in cells)
    ends = [
        Cell((value,), (value,), ends=True, column=owner[value].column + 1) for value in leaving
    ]
    ends[0].column, ends[0].joins = last, True
    lanes = _lanes([*cells, *ends], owner)
    for cell in (*cells, *ends, *lanes.values()):
        before = cell.column - 1
        cell.sources = [(lanes.get((value, before), owner[value]), value) for value in cell.reads]
    row_of, labels = _rows(cells, owner, size)
    columns: list[list[Cell]] = [[] for _ in range(last + 1)]
    for cell in (*starts, *cells, *ends, *lanes.values()):
        rows = [row_of[value] for value in cell.values]
        cell.rows = range(min(rows), max(rows) + 1)
        columns[cell.column].append(cell)
    for column in columns:
        _set_tracks(column, row_of)
    return Grid(columns, row_of, labels)


def _lanes(cells: Iterable[Cell], owner: Mapping[str, Cell]) -> dict[tuple[str, int], Cell]:
    """A lane for each value in each column between its owner and its last reader."""
    reach: dict[str, int] = {}
    for cell in cells:
        for value in cell.reads:
            reach[value] = max(cell.column, reach.get(value, 0))
    return {
        (value, column): Cell((value,), (value,), column=column)
        for value, end in reach.items()
        for column in range(owner[value].column + 1, end)
    }


def _rows(
    cells: Iterable[Cell], owner: Mapping[str, Cell], size: Callable[[str], tuple[int, str]]
) -> tuple[dict[str, int], list[str]]:
    """The row of each value, larger maps above. What enters for one cell is in its first row."""
    sizes = {value: size(value) for value in owner}
    readers: dict[str, list[Cell]] = {}
    for cell in cells:
        for value in cell.reads:
            readers.setdefault(value, []).append(cell)
    for value, cell in owner.items():
        if not cell.reads and cell.draw is None and len(readers.get(value, ())) == 1:
            sizes[value] = max(sizes[given] for given in readers[value][0].values)
    labels = sorted(set(sizes.values()), reverse=True)
    return {value: labels.index(found) for value, found in sizes.items()}, [
        label for _, label in labels
    ]


def _set_tracks(column: Iterable[Cell], row_of: Mapping[str, int]) -> None:
    """Gives each cell the track of its source, to keep on a line, or a free one.

    Units come first; lanes that have to give way run above them.
    """
    wishes = {cell: _wish(cell, row_of) for cell in column}
    taken: set[Place] = set()

    def rank(cell: Cell) -> tuple[bool, bool, bool, list[int]]:
        return cell.draw is None, len(cell.rows) == 1, not wishes[cell], wishes[cell]

    for cell in sorted(wishes, key=rank):
        free = count(-1, -1) if cell.draw is None and cell.sources else count()
        tracks = chain(wishes[cell], free)
        cell.track = next(track for track in tracks if not _is_taken(taken, cell, track))
        taken |= {(row, cell.track) for row in cell.rows}


def _wish(cell: Cell, row_of: Mapping[str, int]) -> list[int]:
    tracks = sorted(source.track for source, value in cell.sources if row_of[value] in cell.rows)
    return [track for track in tracks if cell.draw is None or track >= 0]


def _is_taken(taken: set[Place], cell: Cell, track: int) -> bool:
    return any((row, track) in taken for row in cell.rows)
