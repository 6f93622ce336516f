"""The parts of a chain as pieces: a box, a join, rails into a join, a frame around copies."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from cnngraph.drawing.captions import WIDEST, Caption
from cnngraph.drawing.shapes import Disc, Piece, Rect, Shape, Text, Wire
from cnngraph.drawing.text import LINE, widest, wrap
from cnngraph.drawing.units import Unit

_STRIP = 5.0
_PAD = 4.0
_SMALL_PAD = 2.5
_BAR = 26.0
_LEAD = 4.0
SPAN_END = 14.0
"""How far a box goes on above its first line and below its last one."""
_RAIL_GAP = 5.0


def box(caption: Caption, shaded: bool, span: float = 0.0) -> Piece:
    """A box: a strip in the colour and hatch of its class, and its texts.

    Args:
        span: the distance of its first and its last line, if it has several.
    """
    name = wrap(caption.name, WIDEST, bold=True) if caption.name else []
    lines = [part for line in caption.lines for part in wrap(line, WIDEST)]
    last = wrap(caption.output, WIDEST) if caption.output else []
    text = max(widest(name, bold=True), widest(lines), widest(last))
    wide = round(max(text + 2 * _PAD, _channel_width(caption)), 1)
    pad = _SMALL_PAD if caption.small else _PAD
    least = _STRIP + 2 * pad - 1 + LINE * len([*name, *lines, *last])
    high = max(least, span + 2 * SPAN_END) if span else least
    shapes: list[Shape] = []
    if shaded:
        shapes.append(Rect(-3, -3, wide + 6, high + 6, "fused", 4))
    if caption.style == "block":
        shapes.append(Rect(2.5, -2.5, wide, high, "box block", 2))
    shapes += [
        Rect(0, 0, wide, high, f"box {caption.style}", 2, caption.title, caption.path),
        Rect(0, 0, wide, _STRIP, f"strip {caption.style}"),
        Rect(0, 0, wide, _STRIP, f"hatch-{caption.style}"),
    ]
    y = _STRIP + pad + 0.76 * LINE - 1.5 + (high - least) / 2
    for line, bold, style in [
        *((line, True, "text") for line in name),
        *((line, False, "text") for line in lines),
        *((line, False, "quiet") for line in last),
    ]:
        shapes.append(Text(wide / 2, y, line, bold=bold, style=style))
        y += LINE
    return Piece(wide, high, (high - span) / 2, tuple(shapes), (14, -high / 2))


def _channel_width(caption: Caption) -> float:
    return (0.8 if caption.small else 1.0) * (26 + 4.5 * log2(max(1, caption.shape[0])))


def merge(unit: Unit, shaded: bool) -> Piece:
    """A plus or a times in a circle, or a bar for a concatenation; what follows is below."""
    wide = max(12.0, widest(unit.tail) + 2)
    x, y = wide / 2, _BAR / 2
    shapes: list[Shape] = []
    if shaded:
        shapes.append(Rect(x - 8, y - 8, 16, 16, "fused", 4))
    shapes.append(Wire(((0, y), (wide, y)), arrow=False))
    if unit.kind == "concat":
        shapes.append(Rect(x - 2, 0, 4, _BAR, "bar", 1, unit.path))
        top = _BAR + 7
    else:
        shapes += sign(unit.kind, x, y)
        top = y + 13
    shapes += [Text(x, top + index * LINE, text) for index, text in enumerate(unit.tail)]
    high = max(_BAR, top + (len(unit.tail) - 1) * LINE + 2) if unit.tail else _BAR
    return Piece(wide, high, y, tuple(shapes), (x, -y if unit.kind == "concat" else -5.0))


def sign(kind: str, x: float, y: float) -> list[Shape]:
    """A plus or a times in a circle."""
    if kind == "add":
        ends = [((x - 3.2, y), (x + 3.2, y)), ((x, y - 3.2), (x, y + 3.2))]
    else:
        r = 2.4
        ends = [((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r))]
    return [Disc(x, y, 5.0, "join"), *(Wire(points, arrow=False) for points in ends)]


def join_width(unit: Unit) -> float:
    """The width that `rails` needs beside its rails."""
    if unit.kind == "concat":
        return _LEAD + 12 + _bar_tail(unit)
    return _LEAD + 16 + max(12.0, widest(unit.tail) + 2)


def _bar_tail(unit: Unit) -> float:
    return widest(unit.tail) + 3 if unit.tail else 0.0


def rails(branches: Sequence[Piece], unit: Unit, shaded: bool, split: bool = True) -> Piece:
    """Branches as rails into a join.

    Args:
        split: whether they come from a common line.
    """
    right = _LEAD + max(branch.width for branch in branches) + 8.0
    shapes: list[Shape] = []
    starts: list[float] = []
    ends: list[float] = []
    y = 0.0
    for branch in branches:
        starts.append(y + branch.axis)
        ends.append(starts[-1] + branch.fall)
        end = Wire(((_LEAD + branch.width, ends[-1]), (right, ends[-1])), arrow=False)
        shapes += [*branch.at(_LEAD, y), end]
        y += branch.height + _RAIL_GAP
    axis, leaves = (starts[0] + starts[-1]) / 2, (ends[0] + ends[-1]) / 2
    if split:
        shapes += [
            Wire(((_LEAD, starts[0]), (_LEAD, starts[-1])), arrow=False),
            Wire(((0, axis), (_LEAD, axis)), arrow=False),
        ]
    join = joint(unit, ends, leaves, shaded)
    shapes += join.at(right, leaves - join.axis)
    high = max(y - _RAIL_GAP, leaves - join.axis + join.height)
    port = right + join.port[0], leaves - axis + join.port[1]
    return Piece(right + join.width, high, axis, tuple(shapes), port, leaves - axis)


def joint(unit: Unit, ends: Sequence[float], axis: float, shaded: bool) -> Piece:
    """A join of lines that end at these heights; its own line leaves at the height `axis`."""
    top, bottom = min(*ends, axis), max(*ends, axis)
    if unit.kind == "concat":
        return _bar(unit, axis - top, bottom - axis)
    return _sum(unit, axis - top, bottom - axis, shaded)


def _bar(unit: Unit, above: float, below: float) -> Piece:
    """A bar over all lines, with the line that leaves it."""
    wide, middle, high = 4 + _bar_tail(unit), above + 6, above + below + 12
    shapes: list[Shape] = [
        Rect(0, 0, 4, high, "bar", 1, unit.path),
        Wire(((4, middle), (wide, middle)), arrow=False),
    ]
    shapes += [Text(6, middle + 8 + i * LINE, text, "start") for i, text in enumerate(unit.tail)]
    whole = max(high, middle + 8 + len(unit.tail) * LINE) if unit.tail else high
    return Piece(wide, whole, middle, tuple(shapes), (2, -middle))


def _sum(unit: Unit, above: float, below: float, shaded: bool) -> Piece:
    """A line over all lines, and a sign in a circle."""
    join = merge(unit, shaded)
    middle = max(above, join.axis)
    shapes: tuple[Shape, ...] = (
        Wire(((0, middle - above), (0, middle + below)), arrow=False),
        Wire(((0, middle), (8, middle))),
        *join.at(8, middle - join.axis),
    )
    whole = middle + max(below, join.height - join.axis)
    port = 8 + join.port[0], join.port[1]
    return Piece(8 + join.width, whole, middle, shapes, port)


def frame(inner: Piece, label: str) -> Piece:
    """A dashed frame around what is repeated."""
    wide, high, axis = inner.width + 16, inner.height + 20, 14 + inner.axis
    leaves = axis + inner.fall
    shapes: tuple[Shape, ...] = (
        Rect(0, 0, wide, high, "frame", 4),
        Text(6, 9, label, "start", bold=True),
        *inner.at(8, 14),
        Wire(((0, axis), (8, axis)), arrow=False),
        Wire(((8 + inner.width, leaves), (wide, leaves)), arrow=False),
    )
    return Piece(wide, high, axis, shapes, fall=inner.fall)
