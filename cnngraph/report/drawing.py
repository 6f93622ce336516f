"""A small drawing of a network, with a box for each feature map."""

from __future__ import annotations

from html import escape
from math import log2

from cnngraph.graph import Graph
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.stages import kind_of
from cnngraph.shape import TensorShape

_HEIGHT = 64
_MAX_COPIES = 8
"""Copies of a stage that are drawn, of possibly hundreds."""

_COLOURS = {"weights": "#4c78a8", "none": "#9aa5b1", "flat": "#e0a030", "aux": "#b279a2"}


def drawing(graph: Graph) -> str:
    """The network as SVG, from the input on the left to the result on the right.

    A box's height follows the square root of the map's size, its width the logarithm of the
    channels. Boxes are blue for stages with weights, grey for others, yellow for flat values, and
    violet and lower for side heads. Each box has a tooltip.
    """
    parts = [_box(2, graph.input, graph.input, "none", "input")]
    x = 2 + _thickness(graph.input) + 4
    last = graph.input
    for stage in stages(graph):
        if stage.shape == last and not stage.cost.params:
            continue  # an activation or a dropout
        last = stage.shape if not stage.aux else last
        title = f"{stage.path}: {kind_of(stage)}, {stage.shape}"
        for _ in range(min(stage.copies, _MAX_COPIES)):
            parts.append(_box(x, stage.shape, graph.input, _kind(stage), title))
            x += _thickness(stage.shape) + 1
        if stage.copies > _MAX_COPIES:
            parts.append(f'<text x="{x:g}" y="{_HEIGHT - 2}">x{stage.copies}</text>')
            x += 7 * len(f"x{stage.copies}")
        x += 3
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{x:g}" height="{_HEIGHT}" role="img">'
    style = "<style>text{font:10px sans-serif;fill:#808890}</style>"
    return "\n".join([head, f"<title>{escape(graph.name)}</title>", style, *parts, "</svg>\n"])


def _kind(stage: Stage) -> str:
    if stage.aux:
        return "aux"
    if len(stage.shape) == 1:
        return "flat"
    return "weights" if stage.cost.params else "none"


def _box(x: float, shape: TensorShape, input: TensorShape, kind: str, title: str) -> str:
    height = _height(shape, input)
    y = _HEIGHT - height - 1 if kind == "aux" else (_HEIGHT - height) / 2
    size = f'width="{_thickness(shape):g}" height="{height:g}"'
    rect = f'<rect x="{x:g}" y="{y:g}" {size} rx="1" fill="{_COLOURS[kind]}">'
    return f"{rect}<title>{escape(title)}</title></rect>"


def _height(shape: TensorShape, input: TensorShape) -> float:
    if len(shape) != 3 or len(input) != 3:
        return round(6 + 2 * log2(shape.elements), 1)
    share = max(shape.spatial) / max(input.spatial)
    return round(min(1.0, share**0.5) * (_HEIGHT - 8) + 4, 1)


def _thickness(shape: TensorShape) -> float:
    return round(1.5 + 0.8 * log2(shape.channels), 1) if len(shape) == 3 else 2
