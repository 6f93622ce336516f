"""Names beside the bubbles of a plot, where they cover as little as possible."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin, sqrt
from typing import Any, NamedTuple

_SIZE = 7.0
_DIRECTIONS = (0, 4, 2, 6, 1, 7, 3, 5)
"""Eighths of a turn, the right first."""
_DISTANCES = (3.0, 10.0, 20.0, 32.0)
"""From a bubble's edge, in points; from the second on, a line leads to the label."""


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: _Box) -> float:
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)


def place_labels(
    axes: Any,
    x: Sequence[float],
    y: Sequence[float],
    areas: Sequence[float],
    names: Sequence[str],
) -> None:
    """Writes the name of each bubble beside it. The figure must be complete otherwise.

    Args:
        axes: with the bubbles drawn, and the limits of its axes.
        x, y: the centres, in data.
        areas: of the bubbles, in square points.
    """
    figure = axes.get_figure(root=True)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    centres = [
        tuple(point / scale) for point in axes.transData.transform([*zip(x, y, strict=True)])
    ]
    radii = [sqrt(area / pi) for area in areas]
    taken = [
        _Box(cx - 0.7 * r, cy - 0.7 * r, cx + 0.7 * r, cy + 0.7 * r)
        for (cx, cy), r in zip(centres, radii, strict=True)
    ]
    frame = axes.get_window_extent()
    inside = _Box(frame.x0 / scale, frame.y0 / scale, frame.x1 / scale, frame.y1 / scale)
    bubbles = sorted(zip(centres, radii, zip(x, y, strict=True), names, strict=True))
    for (cx, cy), radius, point, name in bubbles:
        width, height = 0.6 * _SIZE * len(name), 1.25 * _SIZE
        best, distance = min(
            (
                (_candidate(cx, cy, radius + gap, direction, width, height), gap)
                for gap in _DISTANCES
                for direction in _DIRECTIONS
            ),
            key=lambda found: _cost(found[0], taken, inside) + 0.5 * found[1],
        )
        taken.append(best)
        line = {"arrowstyle": "-", "linewidth": 0.5, "color": "#666666"}
        note = axes.annotate(
            name,
            point,
            xytext=(best.left - cx, best.bottom - cy),
            textcoords="offset points",
            fontsize=_SIZE,
            arrowprops=line if distance > _DISTANCES[0] else None,
        )
        note.set_in_layout(False)


def _candidate(
    cx: float, cy: float, distance: float, direction: int, width: float, height: float
) -> _Box:
    angle = direction * pi / 4
    dx, dy = cos(angle), sin(angle)
    middle = cx + dx * (distance + width / 2), cy + dy * (distance + height / 2)
    return _Box(
        middle[0] - width / 2, middle[1] - height / 2,
        middle[0] + width / 2, middle[1] + height / 2,
    )  # fmt: skip


def _cost(box: _Box, taken: Sequence[_Box], inside: _Box) -> float:
    """The area in square points that the label covers, and, ten times, what is cut off."""
    area = (box.right - box.left) * (box.top - box.bottom)
    return sum(map(box.overlap, taken)) + 10 * (area - box.overlap(inside))
