"""Rows of a chain: arcs and letters above them, panels of one resolution below, and their turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from math import log2

from cnngraph.drawing.shapes import Disc, Piece, Rect, Shape, Text, Wire, move
from cnngraph.drawing.text import width

GAP = 12.0
"""The space between boxes, with an arrow."""
MARGIN = 6.0
"""Left and right of wrapped rows, for the line that leads to the next row."""
ROW_GAP = 16.0
_STEP = 4.0
"""A step is this much lower for each halving of the map."""


@dataclass
class Item:
    """A piece of a chain; `ins` and `outs` are letters of links that end and start here.

    `step` is the resolution, "" for a piece that shows those of its parts.
    """

    piece: Piece
    step: str
    pixels: int
    merge: bool = False
    ins: list[str] = field(default_factory=list[str])
    outs: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Arc:
    """An arc from the gap before item `start` into item `end`."""

    start: int
    end: int


def widen_steps(items: list[Item]) -> None:
    """Makes the first item of each step at least as wide as the label of the step."""
    for _, group in groupby(items, key=lambda item: item.step):
        step = list(group)
        need = width(step[0].step) + 6
        have = sum(item.piece.width for item in step) + GAP * (len(step) - 1)
        if have < need:
            step[0].piece = _padded(step[0].piece, need - have)


def _padded(piece: Piece, more: float) -> Piece:
    leaves = piece.axis + piece.fall
    shapes: list[Shape] = [
        *piece.at(more / 2, 0),
        Wire(((0, piece.axis), (more / 2, piece.axis)), arrow=False),
        Wire(((more / 2 + piece.width, leaves), (more + piece.width, leaves)), arrow=False),
    ]
    port = piece.port[0] + more / 2, piece.port[1]
    return replace(piece, width=piece.width + more, shapes=tuple(shapes), port=port)


def split_rows(items: Sequence[Item], limit: float) -> list[range]:
    """The items of each row."""
    rows: list[range] = []
    start, used = 0, 0.0
    for index, item in enumerate(items):
        need = GAP + item.piece.width + (GAP if item.outs else 0)
        if used + need > limit and index > start:
            rows.append(range(start, index))
            start, used = index, 0.0
        used += need
    return [*rows, range(start, len(items))]


def row(items: Sequence[Item], arcs: Sequence[Arc], first: int, lead: bool) -> Piece:
    """Items side by side on one axis, with the arcs above.

    Args:
        first: the index of the first item.
        lead: whether a line leads to the first item.
    """
    lefts: list[float] = []
    x = GAP
    for item in items:
        lefts.append(x)
        x += item.piece.width + GAP
    tops = [-item.piece.axis - (3 if not item.merge else 0) for item in items]
    shapes: list[Shape] = []
    for index, item in enumerate(items):
        shapes += item.piece.at(lefts[index], -item.piece.axis)
        if lead or index:
            fall = items[index - 1].piece.fall if index else 0.0
            points = _jog(lefts[index] - GAP, fall, lefts[index])
            shapes.append(Wire(points, arrow=not item.merge))
    for arc in sorted(arcs, key=lambda arc: (arc.end - arc.start, arc.end)):
        start, end = arc.start - first, arc.end - first
        y = min(tops[start:end] or [tops[end]]) - 7
        _arc(shapes, items, lefts, start, end, y)
        for index in range(start, end):
            tops[index] = y
        tops[end] = min(tops[end], y + 3)
    spans = [(left, left + item.piece.width) for left, item in zip(lefts, items, strict=True)]
    for index, item in enumerate(items):
        x = lefts[index] + item.piece.port[0]
        _port(shapes, item.ins, x, tops, spans, item.piece.port[1])
        x = lefts[index] + item.piece.width + GAP / 2
        _port(shapes, item.outs, x, tops, spans, None)
        if item.outs:
            shapes.append(Wire(_jog(x - GAP / 2, item.piece.fall, x + GAP / 2), arrow=False))
    top = min([*tops, *(-item.piece.axis for item in items)])
    bottom = max(item.piece.height - item.piece.axis for item in items)
    wide = lefts[-1] + items[-1].piece.width + (GAP if items[-1].outs else 0)
    fall = items[-1].piece.fall if not items[-1].outs else 0.0
    return Piece(wide, bottom - top, -top, tuple(move(shapes, 0, -top)), fall=fall)


def _jog(left: float, fall: float, right: float) -> tuple[tuple[float, float], ...]:
    """A line to the axis from a piece that ends `fall` below it."""
    middle = (left + right) / 2
    return (
        ((left, fall), (middle, fall), (middle, 0), (right, 0)) if fall else ((left, 0), (right, 0))
    )


def _arc(
    shapes: list[Shape],
    items: Sequence[Item],
    lefts: Sequence[float],
    start: int,
    end: int,
    y: float,
) -> None:
    x = lefts[start] - GAP / 2
    join = lefts[end] + items[end].piece.port[0]
    shapes.append(Disc(x, 0, 1.4, "dot"))
    shapes.append(Wire(((x, 0), (x, y), (join, y), (join, items[end].piece.port[1]))))


def _port(
    shapes: list[Shape],
    letters: Sequence[str],
    x: float,
    tops: list[float],
    spans: Sequence[tuple[float, float]],
    end: float | None,
) -> None:
    """Letters above a line at `x`; it goes on where the same letter is found once more.

    `end` is where the line ends that comes from the letters, None if it leads to them.
    """
    if not letters:
        return
    text = " ".join(letters)
    half = max(5.5, width(text, bold=True) / 2 + 3)
    left, right = x - half - GAP / 2, x + half + GAP / 2
    near = [index for index, span in enumerate(spans) if span[0] < right and span[1] > left]
    y = min(tops[index] for index in near) - 9
    points = ((x, 0.0), (x, y + 5.5)) if end is None else ((x, y + 5.5), (x, end))
    shapes.append(Wire(points))
    shapes.append(Rect(x - half, y - 5.5, 2 * half, 11, "port", 5.5))
    shapes.append(Text(x, y + 2.6, text, bold=True, style="port-text"))
    for index in near:
        tops[index] = y - 6


def with_steps(piece: Piece, items: Sequence[Item], last: bool) -> Piece:
    """The row on panels, one for each run of a resolution, higher for larger maps.

    Args:
        last: whether nothing follows; a line leads to the right edge otherwise.
    """
    largest = max(item.pixels for item in items)
    least = min(item.pixels for item in items)
    halvings = log2(largest / least) / 2 if largest > least else 0.0
    top = 11 + halvings * _STEP
    panels: list[Shape] = []
    labels: list[Shape] = []
    x = GAP / 2
    for number, (label, group) in enumerate(groupby(items, key=lambda item: item.step)):
        step = list(group)
        wide = sum(item.piece.width + GAP for item in step)
        if not label:
            x += wide
            continue
        fall = log2(largest / step[0].pixels) / 2 * _STEP
        panels.append(
            Rect(x, fall, wide - 1, top + piece.height + 4 - fall, f"step-{number % 2}", 3)
        )
        labels.append(Text(x + 3, fall + 8, label, "start", style="quiet"))
        x += wide
    wide, high = piece.width + GAP / 2, top + piece.height + 4
    leaves = top + piece.axis + piece.fall
    line = () if last else (Wire(((piece.width, leaves), (wide, leaves)), arrow=False),)
    shapes = (*panels, *piece.at(0, top), *line, *labels)
    return Piece(wide, high, top + piece.axis, shapes, fall=piece.fall)


def joined(rows: Sequence[Piece], lead: bool, last: bool) -> Piece:
    """Rows below one another, each end joined with the next start.

    Args:
        lead: whether a line leads to the first row.
        last: whether nothing follows; a line leads to the right edge otherwise.
    """
    if len(rows) == 1:
        return rows[0]
    wide = max(row.width for row in rows) + 2 * MARGIN
    shapes: list[Shape] = []
    y = 0.0
    axes: list[float] = []
    for index, row in enumerate(rows):
        shapes += row.at(MARGIN, y)
        axes.append(y + row.axis)
        if index:
            before = rows[index - 1]
            turn = y - ROW_GAP / 2
            leaves = axes[-2] + before.fall
            points = (
                (MARGIN + before.width, leaves),
                (MARGIN + before.width + 5, leaves),
                (MARGIN + before.width + 5, turn),
                (2.0, turn),
                (2.0, axes[-1]),
                (MARGIN, axes[-1]),
            )
            shapes.append(Wire(points, arrow=False))
        y += row.height + ROW_GAP
    leaves = axes[-1] + rows[-1].fall
    if lead:
        shapes.append(Wire(((0, axes[0]), (MARGIN, axes[0])), arrow=False))
    if not last:
        shapes.append(Wire(((MARGIN + rows[-1].width, leaves), (wide, leaves)), arrow=False))
    return Piece(wide, y - ROW_GAP, axes[0], tuple(shapes), fall=leaves - axes[0])
