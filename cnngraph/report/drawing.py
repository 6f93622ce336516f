"""A small drawing of a network: a slab for each map, as high as the map and as thick as its channels."""

from __future__ import annotations

from html import escape
from math import log2

from cnngraph.graph import Graph
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.stages import kind_of
from cnngraph.shape import TensorShape

_HEIGHT = 64
_MOST_COPIES = 8
"""Copies of a stage that are drawn; there may be hundreds."""

_COLOURS = {"weights": "#4c78a8", "none": "#9aa5b1", "flat": "#e0a030", "aux": "#b279a2"}


def drawing(graph: Graph) -> str:
    """The network as SVG, from the input on the left to the result on the right.

    Heights follow the root of the map's size, thickness the logarithm of the channels. Blue stages hold weights, grey
    ones change the shape without any, yellow ones give flat values; side heads are violet and lowered. Each says what it
    is when pointed at.
    """
    parts = [_slab(2, graph.input, graph.input, "none", "input")]
    x = 2 + _thickness(graph.input) + 4
    last = graph.input
    for stage in stages(graph):
        if stage.shape == last and not stage.cost.params:
            continue  # an activation, a dropout: nothing to see
        last = stage.shape if not stage.aux else last
        title = f"{stage.path}: {kind_of(stage)}, {stage.shape}"
        for _ in range(min(stage.copies, _MOST_COPIES)):
            parts.append(_slab(x, stage.shape, graph.input, _kind(stage), title))
            x += _thickness(stage.shape) + 1
        if stage.copies > _MOST_COPIES:
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


def _slab(x: float, shape: TensorShape, input: TensorShape, kind: str, title: str) -> str:
    height = _height(shape, input)
    y = _HEIGHT - height - 1 if kind == "aux" else (_HEIGHT - height) / 2
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{_thickness(shape):g}" height="{height:g}" rx="1" fill="{_COLOURS[kind]}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _height(shape: TensorShape, input: TensorShape) -> float:
    if len(shape) != 3 or len(input) != 3:
        return round(6 + 2 * log2(shape.elements), 1)
    share = max(shape.spatial) / max(input.spatial)
    return round(min(1.0, share**0.5) * (_HEIGHT - 8) + 4, 1)


def _thickness(shape: TensorShape) -> float:
    return round(1.5 + 0.8 * log2(shape.channels), 1) if len(shape) == 3 else 2
