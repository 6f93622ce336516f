"""Draws a grid: its cells, the lines between them, and its bands, wrapped at a width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cnngraph.drawing.grid import Cell, Grid, Place
from cnngraph.drawing.pieces import SPAN_END
from cnngraph.drawing.rows import GAP, ROW_GAP
from cnngraph.drawing.shapes import Disc, Piece, Rect, Shape, Text, Wire
from cnngraph.drawing.text import widest
from cnngraph.drawing.trunks import TRUNK, Line, Trunks, trunks_before

_PORT = 6.0
"""The distance of lines that arrive at one cell."""
_TRACK_GAP = 5.0
_ROW_PAD = 4.0
_LABEL = 12.0
"""The space above a row that is labelled."""
_LANE = 4.0
"""The height of a track with nothing but lines."""


def draw_grid(grid: Grid, limit: float, labelled: bool) -> Piece:
    """The grid as a piece. If it is wider than `limit`, its columns go on below.

    Args:
        labelled: whether the rows are named by their resolution.
    """
    labels = grid.labels if labelled and len(grid.labels) > 1 else [""] * len(grid.labels)
    trunks = [trunks_before(grid, column) for column in grid.columns]
    pieces = {
        cell: cell.draw([_PORT * port for *_, port in grid.arrivals(cell)], 0.0)
        for column in grid.columns
        for cell in column
        if cell.draw
    }
    widths = [
        max((pieces[cell].width for cell in column if cell in pieces), default=0.0)
        for column in grid.columns
    ]
    sizes = [found.gap + wide for found, wide in zip(trunks, widths, strict=True)]
    start = margin = 0.0
    tall = any(len(cell.rows) > 1 for column in grid.columns for cell in column)
    if any(labels) and (tall or trunks[1].slots or sum(sizes) > limit):
        start = widest(labels) + 8
    if start + sum(sizes) > limit:
        margin = TRUNK * (1 + max(len(_sources(column)) for column in grid.columns))
    spans = _split(sizes, limit - start - 2 * margin - GAP)
    systems = [_System(grid, span, trunks, widths, pieces, start, labels) for span in spans]
    return _stacked(systems, margin)


def _split(widths: Sequence[float], limit: float) -> list[range]:
    """The columns side by side; the last, where lines end, stays beside the one before."""
    spans: list[range] = []
    start, used = 0, 0.0
    *others, last = widths
    for index, wide in enumerate(others):
        need = wide + (last if index == len(others) - 1 else 0.0)
        if used + need > limit and index > start:
            spans.append(range(start, index))
            start, used = index, 0.0
        used += need
    return [*spans, range(start, len(widths))]


class _System:
    """The columns of a grid that are side by side."""

    def __init__(
        self,
        grid: Grid,
        span: range,
        trunks: Sequence[Trunks],
        widths: Sequence[float],
        pieces: Mapping[Cell, Piece],
        start: float,
        labels: Sequence[str],
    ) -> None:
        self.grid = grid
        self.span = span
        self.trunks = trunks
        self.pieces = dict(pieces)
        self.start = start
        self.labels = labels
        self.lefts: dict[int, float] = {}
        x = start
        for index in span:
            self.lefts[index] = x + trunks[index].gap
            x = self.lefts[index] + widths[index]
        self.width = x + (GAP if span.stop < len(grid.columns) else 0)
        self.rights = {index: self.lefts[index] + widths[index] for index in span}
        first, last = grid.columns[span.start], grid.columns[span.stop - 1]
        self.entering = (
            _sources(first) if span.start else [(cell, cell.values[0]) for cell in first]
        )
        self.leaving = (
            _sources(grid.columns[span.stop])
            if span.stop < len(grid.columns)
            else [(cell, cell.values[0]) for cell in last if cell.ends]
        )
        self.axes, self.bands, self.height = self._axes()

    def _axes(self) -> tuple[dict[Place, float], dict[int, tuple[float, float]], float]:
        """The height of each place and the top and bottom of each row."""
        above: dict[Place, float] = {}
        below: dict[Place, float] = {}
        for cell in self._cells():
            piece = self.pieces.get(cell)
            for row in cell.rows:
                up = down = _LANE / 2
                if piece and len(cell.rows) == 1:
                    up, down = piece.axis, piece.height - piece.axis
                elif piece:
                    up = down = SPAN_END
                here = row, cell.track
                above[here] = max(up, above.get(here, 0.0))
                below[here] = max(down, below.get(here, 0.0))
        for source, value in self.entering:
            here = self.grid.leaves(source, value)
            above.setdefault(here, _LANE / 2)
            below.setdefault(here, _LANE / 2)
        axes: dict[Place, float] = {}
        bands: dict[int, tuple[float, float]] = {}
        y = 0.0
        for row in sorted({row for row, _ in above}):
            top = y
            y += _LABEL if any(self.labels) else _ROW_PAD
            for here in sorted(here for here in above if here[0] == row):
                axes[here] = y + above[here]
                y += above[here] + below[here] + _TRACK_GAP
            y += _ROW_PAD - _TRACK_GAP
            bands[row] = top, y
            y += 1
        return axes, bands, y - 1

    def _cells(self) -> list[Cell]:
        return [cell for index in self.span for cell in self.grid.columns[index]]

    def at(self, source: Cell, value: str) -> float:
        """The height at which a value leaves a cell, or its line passes."""
        fall = self.pieces[source].fall if source in self.pieces else 0.0
        return self.axes[self.grid.leaves(source, value)] + fall

    def shapes(self) -> list[Shape]:
        """The bands, the cells, and the lines between them."""
        shapes: list[Shape] = []
        if any(self.labels):
            for number, (row, (top, bottom)) in enumerate(self.bands.items()):
                shapes.append(Rect(0, top, self.width, bottom - top, f"step-{number % 2}", 3))
                shapes.append(Text(3, top + 8, self.labels[row], "start", style="quiet"))
        for index in self.span:
            column = self.grid.columns[index]
            for cell in column:
                shapes += self._cell(cell, index)
            shapes += self._lines(column, index)
        last = self.span.stop - 1
        if self.span.stop < len(self.grid.columns):
            shapes += [
                Wire(((self._right(cell, last), y), (self.width, y)), arrow=False)
                for cell, value in self.leaving
                for y in [self.at(cell, value)]
            ]
        return shapes

    def _cell(self, cell: Cell, index: int) -> list[Shape]:
        axis = self.axes[cell.rows[0], cell.track]
        if cell.ends:
            return []
        if cell.draw is None:
            ends = (self.lefts[index] if index else 0.0, axis), (self.rights[index], axis)
            return [Wire(ends, arrow=False)] if ends[0] != ends[1] else []
        if len(cell.rows) > 1:
            height = self.axes[cell.rows[-1], cell.track] - axis
            ports = [_PORT * port for *_, port in self.grid.arrivals(cell)]
            self.pieces[cell] = cell.draw(ports, height)
        piece = self.pieces[cell]
        return piece.at(self.lefts[index], axis - piece.axis)

    def _right(self, cell: Cell, index: int) -> float:
        """The right edge of a cell in a column of this system."""
        piece = self.pieces.get(cell)
        return self.lefts[index] + piece.width if piece else self.rights[index]

    def _lines(self, column: Sequence[Cell], index: int) -> list[Shape]:
        """The lines into a column: along, down or up beside the column, and along."""
        entries: dict[Line, list[tuple[Cell, float]]] = {}
        for cell in column:
            for source, value, here, port in self.grid.arrivals(cell):
                y = self.axes[here] + _PORT * port
                entries.setdefault((source, value), []).append((cell, y))
        left, trunks = self.lefts[index], self.trunks[index]
        shapes: list[Shape] = []
        for key, targets in entries.items():
            y = self.at(*key)
            inside = index > self.span.start
            start = self._right(key[0], index - 1) if inside else 0.0
            for cell, end in targets:
                points = [(start, y), (left, end)]
                if y != end:
                    x = trunks.at(key, left) if key in trunks.slots else left - 8
                    points[1:1] = [(x, y), (x, end)]
                lane = cell.draw is None and not cell.ends
                shapes.append(Wire(tuple(points), arrow=not cell.joins and not lane))
            if len(targets) > 1:
                shapes.append(
                    Disc(trunks.at(key, left) if key in trunks.slots else start, y, 1.4, "dot")
                )
        return shapes


def _sources(column: Sequence[Cell]) -> list[Line]:
    return list(dict.fromkeys(source for cell in column for source in cell.sources))


@dataclass(frozen=True)
class _Turn:
    """A line from the right end of a system to the left end of the next."""

    end: float
    start: float


def _stacked(systems: Sequence[_System], margin: float) -> Piece:
    """The systems below one another, each line joined with its next start."""
    wide = max(system.width for system in systems) + 2 * margin
    shapes: list[Shape] = []
    y = 0.0
    for number, system in enumerate(systems):
        shapes += Piece(0, 0, 0, tuple(system.shapes())).at(margin, y)
        if number:
            before = systems[number - 1]
            above = y - before.height - _between(before)
            turns = [_Turn(above + before.at(*key), y + system.at(*key)) for key in before.leaving]
            shapes += _turns(turns, margin + before.width, margin, y - 4)
        y += system.height + _between(system)
    first, last = systems[0], systems[-1]
    if margin:
        shapes += [
            Wire(((0, y), (margin, y)), arrow=False)
            for y in [first.at(*line) for line in first.entering]
        ]
    axis = first.at(*first.entering[0]) if first.entering else first.height / 2
    leaves = y - _between(last) - last.height + last.at(*last.leaving[0])
    if margin:
        shapes.append(Wire(((margin + last.width, leaves), (wide, leaves)), arrow=False))
    return Piece(wide, y - _between(last), axis, tuple(shapes), fall=leaves - axis)


def _between(system: _System) -> float:
    return ROW_GAP + TRUNK * len(system.leaving)


def _turns(turns: Sequence[_Turn], right: float, left: float, bottom: float) -> list[Shape]:
    """Lines around the end of a system, none of which crosses another."""
    shapes: list[Shape] = []
    for number, turn in enumerate(sorted(turns, key=lambda turn: turn.end)):
        out = TRUNK * (len(turns) - number)
        y = bottom - 4 - TRUNK * number
        inner = left - TRUNK * (number + 1)
        points = ((right, turn.end), (right + out, turn.end), (right + out, y))
        shapes.append(Wire((*points, (inner, y), (inner, turn.start), (left, turn.start)), False))
    return shapes
