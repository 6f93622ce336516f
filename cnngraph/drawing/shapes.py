"""What a drawing is made of, in points, before it is written as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from cnngraph.drawing.text import SIZE, width


@dataclass(frozen=True)
class Rect:
    """A rectangle; `style` is a class of the style sheet, `title` a tooltip.

    `path` is that of the node or block that it stands for.
    """

    x: float
    y: float
    width: float
    height: float
    style: str
    radius: float = 0.0
    title: str = ""
    path: str = ""


@dataclass(frozen=True)
class Text:
    """A line of text; `x` is its left end or middle (`anchor`), `y` its baseline."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    bold: bool = False
    size: float = SIZE
    style: str = "text"

    @property
    def box(self) -> tuple[float, float, float, float]:
        """`(left, top, right, bottom)`, for the widest of the usual fonts."""
        wide = width(self.text, bold=self.bold, size=self.size)
        left = self.x - wide / 2 if self.anchor == "middle" else self.x
        return left, self.y - 0.76 * self.size, left + wide, self.y + 0.24 * self.size


@dataclass(frozen=True)
class Wire:
    """A line through points, with round corners, and an arrow at its end."""

    points: tuple[tuple[float, float], ...]
    arrow: bool = True


@dataclass(frozen=True)
class Disc:
    """A circle."""

    x: float
    y: float
    radius: float
    style: str


Shape = Rect | Text | Wire | Disc


@dataclass(frozen=True)
class Piece:
    """A part of a drawing; the main line enters on its left at `axis`.

    `port` is where a line from above ends: its distance from the left, and below the axis. `fall`
    is how far below the axis the main line leaves on the right.
    """

    width: float
    height: float
    axis: float
    shapes: tuple[Shape, ...] = field(repr=False)
    port: tuple[float, float] = (0.0, 0.0)
    fall: float = 0.0

    def at(self, x: float, y: float) -> list[Shape]:
        """The shapes with the upper left corner at this place."""
        return move(self.shapes, x, y)


def move(shapes: Iterable[Shape], dx: float, dy: float) -> list[Shape]:
    """The same shapes elsewhere."""
    moved: list[Shape] = []
    for shape in shapes:
        if isinstance(shape, Wire):
            points = tuple((x + dx, y + dy) for x, y in shape.points)
            moved.append(replace(shape, points=points))
        else:
            moved.append(replace(shape, x=shape.x + dx, y=shape.y + dy))
    return moved


def stacked(pieces: Sequence[Piece], gap: float) -> Piece:
    """Pieces below one another."""
    shapes: list[Shape] = []
    y = 0.0
    for piece in pieces:
        shapes += piece.at(0, y)
        y += piece.height + gap
    return Piece(max(piece.width for piece in pieces), y - gap, pieces[0].axis, tuple(shapes))


def beside(pieces: Iterable[Piece], gap: float) -> Piece:
    """Pieces side by side, their tops at one height."""
    shapes: list[Shape] = []
    x = high = 0.0
    for piece in pieces:
        shapes += piece.at(x, 0)
        x += piece.width + gap
        high = max(high, piece.height)
    return Piece(x - gap, high, high / 2, tuple(shapes))


def packed(pieces: Iterable[Piece], limit: float, gap: float) -> Piece:
    """Pieces one after the other, each as high up as there is space below the others."""
    placed: list[tuple[float, float, Piece]] = []
    for piece in pieces:
        starts = [0.0, *(x + other.width + gap for x, _, other in placed)]
        fits = [x for x in starts if x + piece.width <= limit] or [0.0]
        y, x = min((_free_below(placed, x, piece.width, gap), x) for x in fits)
        placed.append((x, y, piece))
    wide = max(x + piece.width for x, _, piece in placed)
    high = max(y + piece.height for _, y, piece in placed)
    shapes = (shape for x, y, piece in placed for shape in piece.at(x, y))
    return Piece(wide, high, high / 2, tuple(shapes))


def _free_below(
    placed: Iterable[tuple[float, float, Piece]], left: float, wide: float, gap: float
) -> float:
    """The upper end of the free space between `left` and `left + wide`."""
    above = [
        y + piece.height + gap
        for x, y, piece in placed
        if x < left + wide + gap and left < x + piece.width + gap
    ]
    return max(above, default=0.0)
