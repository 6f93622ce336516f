"""The parts of a chain as pieces: a box, a join, rails into a join, a frame around copies."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2

from cnngraph.drawing.captions import WIDEST, Caption
from cnngraph.drawing.rows import GAP
from cnngraph.drawing.shapes import Disc, Piece, Rect, Shape, Text, Wire
from cnngraph.drawing.text import LINE, widest, wrap
from cnngraph.drawing.units import Unit

_STRIP = 5.0
_PAD = 4.0
_BAR = 26.0
_RAIL_GAP = 7.0


def box(caption: Caption, shaded: bool) -> Piece:
    """A box: a strip in the colour and hatch of its class, and its texts."""
    name = wrap(caption.name, WIDEST, bold=True) if caption.name else []
    lines = [part for line in caption.lines for part in wrap(line, WIDEST)]
    last = wrap(caption.output, WIDEST) if caption.output else []
    text = max(widest(name, bold=True), widest(lines), widest(last))
    wide = round(max(text + 2 * _PAD, _channel_width(caption.shape)), 1)
    high = _STRIP + 2 * _PAD - 1 + LINE * len([*name, *lines, *last])
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
    y = _STRIP + _PAD + 0.76 * LINE - 1.5
    for line, bold, style in [
        *((line, True, "text") for line in name),
        *((line, False, "text") for line in lines),
        *((line, False, "quiet") for line in last),
    ]:
        shapes.append(Text(wide / 2, y, line, bold=bold, style=style))
        y += LINE
    return Piece(wide, high, high / 2, tuple(shapes), (14, -high / 2))


def _channel_width(shape: Sequence[int]) -> float:
    return 26 + 4.5 * log2(max(1, shape[0]))


def merge(unit: Unit, shaded: bool) -> Piece:
    """A plus or a times in a circle, or a bar for a concatenation; what follows is below."""
    texts = merge_texts(unit)
    wide = max(12.0, widest(texts) + 2)
    x, y = wide / 2, _BAR / 2
    shapes: list[Shape] = []
    if shaded:
        shapes.append(Rect(x - 8, y - 8, 16, 16, "fused", 4))
    shapes.append(Wire(((0, y), (wide, y)), arrow=False))
    if unit.kind == "concat":
        shapes.append(Rect(x - 2, 0, 4, _BAR, "bar", 1, unit.path))
        top = _BAR + 7
    else:
        shapes += [Disc(x, y, 5.0, "join"), *_sign(unit.kind, x, y)]
        top = y + 13
    shapes += [Text(x, top + index * LINE, text) for index, text in enumerate(texts)]
    high = max(_BAR, top + (len(texts) - 1) * LINE + 2)
    return Piece(wide, high, y, tuple(shapes), (x, -y if unit.kind == "concat" else -5.0))


def merge_texts(unit: Unit) -> list[str]:
    """The lines at a join: `concat`, and what follows it."""
    return ["concat", *unit.tail] if unit.kind == "concat" else [*unit.tail]


def _sign(kind: str, x: float, y: float) -> list[Wire]:
    """A plus, or a times."""
    if kind == "add":
        ends = [((x - 3.2, y), (x + 3.2, y)), ((x, y - 3.2), (x, y + 3.2))]
    else:
        r = 2.4
        ends = [((x - r, y - r), (x + r, y + r)), ((x - r, y + r), (x + r, y - r))]
    return [Wire(points, arrow=False) for points in ends]


def join_width(unit: Unit) -> float:
    """The width that `rails` needs beside its rails."""
    texts = merge_texts(unit)
    if unit.kind == "concat":
        return GAP + 12 + widest(texts) + 3
    return GAP + 16 + max(12.0, widest(texts) + 2)


def rails(branches: Sequence[Piece], unit: Unit, shaded: bool) -> Piece:
    """Branches as rails, from a common line into a join."""
    inner = max(branch.width for branch in branches)
    left, right = 4.0, GAP + inner + 8.0
    shapes: list[Shape] = []
    axes: list[float] = []
    y = 0.0
    for branch in branches:
        axis = y + branch.axis
        axes.append(axis)
        shapes += [
            Wire(((left, axis), (GAP, axis)), arrow=False),
            *branch.at(GAP, y),
            Wire(((GAP + branch.width, axis), (right, axis)), arrow=False),
        ]
        y += branch.height + _RAIL_GAP
    axis = (axes[0] + axes[-1]) / 2
    shapes += [
        Wire(((left, axes[0]), (left, axes[-1])), arrow=False),
        Wire(((0, axis), (left, axis)), arrow=False),
    ]
    end = _bar(unit, axes) if unit.kind == "concat" else _sum(unit, axes, shaded)
    shapes += end.at(right, axis - end.axis)
    high = max(y - _RAIL_GAP, axis - end.axis + end.height)
    port = right + end.port[0], end.port[1]
    return Piece(right + end.width, high, axis, tuple(shapes), port)


def _bar(unit: Unit, axes: Sequence[float]) -> Piece:
    """A bar over all rails, with the line that leaves it."""
    texts = merge_texts(unit)
    wide, high = 4 + widest(texts) + 3, axes[-1] - axes[0] + 12
    middle = high / 2
    shapes: list[Shape] = [
        Rect(0, 0, 4, high, "bar", 1, unit.path),
        Wire(((4, middle), (wide, middle)), arrow=False),
    ]
    shapes += [Text(6, middle + 8 + i * LINE, text, "start") for i, text in enumerate(texts)]
    whole = max(high, middle + 8 + len(texts) * LINE)
    return Piece(wide, whole, middle, tuple(shapes), (2, -middle))


def _sum(unit: Unit, axes: Sequence[float], shaded: bool) -> Piece:
    """A line over all rails, and a sign in a circle."""
    high = axes[-1] - axes[0]
    sign = merge(unit, shaded)
    middle = max(high / 2, sign.axis)
    shapes: tuple[Shape, ...] = (
        Wire(((0, middle - high / 2), (0, middle + high / 2)), arrow=False),
        Wire(((0, middle), (8, middle))),
        *sign.at(8, middle - sign.axis),
    )
    whole = max(2 * middle, middle - sign.axis + sign.height)
    port = 8 + sign.port[0], sign.port[1]
    return Piece(8 + sign.width, whole, middle, shapes, port)


def frame(inner: Piece, label: str) -> Piece:
    """A dashed frame around what is repeated."""
    wide, high, axis = inner.width + 16, inner.height + 20, 14 + inner.axis
    shapes: tuple[Shape, ...] = (
        Rect(0, 0, wide, high, "frame", 4),
        Text(6, 9, label, "start", bold=True),
        *inner.at(8, 14),
        Wire(((0, axis), (8, axis)), arrow=False),
        Wire(((8 + inner.width, axis), (wide, axis)), arrow=False),
    )
    return Piece(wide, high, axis, shapes)
