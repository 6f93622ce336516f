"""Writes shapes as SVG: text as text, a tooltip for each box."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import hypot

from cnngraph.drawing.shapes import Disc, Rect, Shape, Text, Wire
from cnngraph.drawing.style import patterns, style_sheet, tone_of
from cnngraph.drawing.text import SIZE

POINTS = 72 / 25.4
"""Points in a millimetre."""


def to_svg(shapes: Sequence[Shape], width: float, height: float, title: str, dark: bool) -> str:
    """The shapes on a sheet of `width` x `height` points."""
    used = {
        shape.style.removeprefix("hatch-")
        for shape in shapes
        if isinstance(shape, Rect) and shape.style.startswith("hatch-")
    }
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width / POINTS:.2f}mm" '
        f'height="{height / POINTS:.2f}mm" viewBox="0 0 {_number(width)} {_number(height)}" '
        f'class="drawing {tone_of(dark)}" role="img">'
    )
    body = "\n".join(line for shape in shapes if (line := _written(shape, tone_of(dark))))
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            "<!-- Made by `cnngraph draw` -->",
            f"<style>\n{style_sheet(dark)}\n</style>",
            f"<defs>{patterns(used, dark)}</defs>",
            f'<rect class="paper" width="{_number(width)}" height="{_number(height)}"/>',
            body,
            "</svg>\n",
        ]
    )


def _written(shape: Shape, tone: str) -> str:
    match shape:
        case Rect():
            return _rect(shape, tone)
        case Text():
            return _text(shape)
        case Disc():
            place = f'cx="{_number(shape.x)}" cy="{_number(shape.y)}"'
            return f'<circle class="{shape.style}" {place} r="{_number(shape.radius)}"/>'
        case Wire():
            return _wire(shape)


def _rect(rect: Rect, tone: str) -> str:
    place = (
        f'x="{_number(rect.x)}" y="{_number(rect.y)}" '
        f'width="{_number(rect.width)}" height="{_number(rect.height)}"'
    )
    radius = f' rx="{_number(rect.radius)}"' if rect.radius else ""
    if rect.style.startswith("hatch-"):
        return f'<rect {place} fill="url(#{tone}-{rect.style})"/>'
    link = f' data-path="{escape(rect.path)}"' if rect.path else ""
    start = f'<rect class="{rect.style}" {place}{radius}{link}'
    return f"{start}><title>{escape(rect.title)}</title></rect>" if rect.title else f"{start}/>"


def _text(text: Text) -> str:
    classes = [text.style] * (text.style != "text") + ["bold"] * text.bold
    marks = f' class="{" ".join(classes)}"' if classes else ""
    marks += ' text-anchor="middle"' if text.anchor == "middle" else ""
    marks += f' style="font-size:{text.size:g}px"' if text.size != SIZE else ""
    return f'<text x="{_number(text.x)}" y="{_number(text.y)}"{marks}>{escape(text.text)}</text>'


def _wire(wire: Wire) -> str:
    points = wire.points
    parts = [f"M{_pair(points[0])}"]
    for before, here, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(here, before), _towards(here, after)
        parts.append(f"L{_pair(start)}Q{_pair(here)} {_pair(end)}")
    parts.append(f"L{_pair(points[-1])}")
    line = f'<path class="wire" d="{"".join(parts)}"/>'
    return line + _tip(points[-2], points[-1]) if wire.arrow else line


def _towards(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """The point where a round corner at `start` begins, on the way to `end`."""
    length = hypot(end[0] - start[0], end[1] - start[1])
    share = min(4.0, length / 2) / length if length else 0.0
    return start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1])


def _tip(before: tuple[float, float], end: tuple[float, float]) -> str:
    length = hypot(end[0] - before[0], end[1] - before[1]) or 1.0
    ux, uy = (end[0] - before[0]) / length, (end[1] - before[1]) / length
    x, y = end[0] - 4 * ux, end[1] - 4 * uy
    a, b = (x - 1.8 * uy, y + 1.8 * ux), (x + 1.8 * uy, y - 1.8 * ux)
    return f'<path class="tip" d="M{_pair(end)}L{_pair(a)}L{_pair(b)}Z"/>'


def _pair(point: tuple[float, float]) -> str:
    return f"{_number(point[0])} {_number(point[1])}"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
