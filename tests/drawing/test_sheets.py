"""Drawings are readable: no text overlaps another, is cut, or is crossed, and none is too wide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.drawing import Drawing
from cnngraph.drawing.shapes import Disc, Rect, Text, Wire
from cnngraph.drawing.svg import POINTS

Box = tuple[float, float, float, float]
"""`(left, top, right, bottom)` in points."""

NETWORKS = [path for path in sorted(SPECS.rglob("*.yaml")) if path.parent.name != "blocks"]
EXAMPLES = ["lenet", "googlenet_aux", "resnet50", "densenet121", "shufflenet_v2_x1_0"]

HEIGHTS = {
    "lenet": 77,
    "vgg16": 112,
    "googlenet": 170,
    "resnet50": 142,
    "resnet1001_cifar": 182,
    "densenet121": 190,
    "unet": 201,
    "inception_v4": 370,
    "hrnet_w18_small": 730,
}
"""The most that a drawing needs in millimetres, 180 mm wide."""

SKIPS = """
cnngraph: 1
name: skips
input: [3, 64, 64]
blocks:
  step:
    params: {width: ~}
    body:
      - conv2d: {out_channels: "${width}", kernel_size: 3, padding: 1}
      - batch_norm
      - relu
graph:
  - step: {name: enc1, width: 16}
  - max_pool2d: 2
  - step: {name: enc2, width: 32}
  - max_pool2d: 2
  - step: {name: enc3, width: 64}
  - max_pool2d: 2
  - step: {name: middle, width: 128}
  - conv_transpose2d: {name: up3, out_channels: 64, kernel_size: 2, stride: 2}
  - concat: enc3
  - step: {name: dec3, width: 64}
  - conv_transpose2d: {name: up2, out_channels: 32, kernel_size: 2, stride: 2}
  - concat: enc2
  - step: {name: dec2, width: 32}
  - conv_transpose2d: {name: up1, out_channels: 16, kernel_size: 2, stride: 2}
  - concat: enc1
  - step: {name: dec1, width: 16}
  - conv2d: {name: head, out_channels: 2, kernel_size: 1}
"""


def problems(drawing: Drawing) -> Iterator[str]:
    """What makes the drawing hard to read."""
    shapes, width, height = drawing.sheet
    if width > drawing.width * POINTS + 0.01:
        yield f"the sheet is {width / POINTS:.1f} mm wide"
    texts = sorted((shape.box, shape.text) for shape in shapes if isinstance(shape, Text))
    boxes = [
        (shape.x, shape.y, shape.x + shape.width, shape.y + shape.height)
        for shape in shapes
        if isinstance(shape, Rect) and shape.style.startswith("box") and shape.title
    ]
    for box, text in texts:
        if not _contains((0, 0, width, height), box):
            yield f"`{text}` is cut by the sheet"
        yield from (
            f"`{text}` does not fit into its box"
            for outer in boxes
            if _overlaps(outer, box) and not _contains(outer, box)
        )
    for index, (box, text) in enumerate(texts):
        yield from (
            f"`{text}` overlaps `{other}`"
            for second, other in texts[index + 1 :]
            if _overlaps(box, second)
        )
    for line in _lines(drawing):
        yield from (f"a line crosses `{text}`" for box, text in texts if _overlaps(box, line, 0.3))
        yield from (f"a line crosses a box at {box}" for box in boxes if _overlaps(box, line, 0.3))
    for index, box in enumerate(boxes):
        yield from (
            f"boxes overlap at {box}" for other in boxes[index + 1 :] if _overlaps(box, other)
        )


def _lines(drawing: Drawing) -> Iterator[Box]:
    wires = (shape for shape in drawing.sheet[0] if isinstance(shape, Wire))
    for wire in wires:
        yield from _segments(wire)


def _segments(wire: Wire) -> Iterator[Box]:
    for (x1, y1), (x2, y2) in pairwise(wire.points):
        yield min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _overlaps(a: Box, b: Box, slack: float = 0.01) -> bool:
    across = min(a[2], b[2]) - max(a[0], b[0])
    along = min(a[3], b[3]) - max(a[1], b[1])
    thin = b[2] - b[0] < slack or b[3] - b[1] < slack
    if thin:
        inside = a[0] + slack, a[1] + slack, a[2] - slack, a[3] - slack
        return b[0] < inside[2] and b[2] > inside[0] and b[1] < inside[3] and b[3] > inside[1]
    return across > slack and along > slack


def _contains(outer: Box, box: Box) -> bool:
    return all(a <= b for a, b in zip(outer[:2], box[:2], strict=True)) and all(
        a >= b for a, b in zip(outer[2:], box[2:], strict=True)
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_drawings_have_no_overlapping_or_cut_text(name: str) -> None:
    assert not list(problems(cnngraph.draw(SPECS / f"{name}.yaml")))


@pytest.mark.slow
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: str(path.relative_to(SPECS)))
def test_no_drawing_of_a_shipped_network_has_overlapping_or_cut_text(path: Path) -> None:
    graph = cnngraph.draw(path).graph
    for drawing in (Drawing(graph), Drawing(graph, depth=3), Drawing(graph, width=120)):
        assert not list(problems(drawing)), f"depth {drawing.depth}, {drawing.width} mm"


NODE = (
    r'(\w+)(?:\(\[|\[\[|\[/|\(\(|\{\{|\[|\(|>)"[^"`<>]*(?:<br/>[^"`<>]*)*"(?:[\])}\\]+)(:::(\w+))?'
)


def mermaid_problems(text: str) -> Iterator[str]:
    """Lines that are not nodes, edges or classes, and edges and classes of nothing."""
    first, second, *lines = text.splitlines()
    if not first.startswith("%% ") or second != "flowchart LR":
        yield f"`{first}`, `{second}`"
    nodes: dict[str, str | None] = {}
    edges: list[str] = []
    classes: set[str] = set()
    for line in map(str.strip, lines):
        if found := re.fullmatch(NODE, line):
            if found[1] in nodes:
                yield f"`{found[1]}` is a node twice"
            nodes[found[1]] = found[3]
        elif found := re.fullmatch(r"(\w+) --> (\w+)", line):
            edges += found.groups()
        elif found := re.fullmatch(r"classDef (\w+) [-\w:#,.]+", line):
            classes.add(found[1])
        else:
            yield f"`{line}`"
    yield from (f"no node `{end}`" for end in edges if end not in nodes)
    yield from (f"`{name}` has no edge" for name in nodes if name not in edges and len(nodes) > 1)
    yield from (f"no class `{name}`" for name in nodes.values() if name and name not in classes)


@pytest.mark.slow
@pytest.mark.parametrize("path", NETWORKS, ids=lambda path: str(path.relative_to(SPECS)))
def test_the_mermaid_of_a_shipped_network_is_valid(path: Path) -> None:
    graph = cnngraph.draw(path).graph
    for depth in (1, 3):
        assert not list(mermaid_problems(Drawing(graph, depth=depth).mermaid)), f"depth {depth}"


@pytest.mark.parametrize(("name", "height"), HEIGHTS.items())
def test_drawings_stay_compact(name: str, height: float) -> None:
    _, width, found = cnngraph.draw(SPECS / f"{name}.yaml").sheet
    assert (round(width / POINTS), found / POINTS) <= (180, height)


@pytest.mark.parametrize("name", ["vgg16", "unet"])
def test_the_line_through_the_rows_of_a_network_has_no_gaps(name: str) -> None:
    drawing = cnngraph.draw(SPECS / f"{name}.yaml")
    rects = [shape for shape in drawing.sheet[0] if isinstance(shape, Rect)]
    cards = [rect.y for rect in rects if rect.style == "card"]
    loose = [x for x, y in _loose_ends(drawing) if y < min(cards, default=1e9)]
    assert loose == [pytest.approx(8)], "the line of the input starts at the margin"


def _loose_ends(drawing: Drawing) -> Iterator[tuple[float, float]]:
    """Ends of lines that touch neither another line nor a box or a sign."""
    shapes = drawing.sheet[0]
    wires = [shape for shape in shapes if isinstance(shape, Wire)]
    touched = [
        (shape.x, shape.y, shape.x + shape.width, shape.y + shape.height)
        for shape in shapes
        if isinstance(shape, Rect) and shape.style.startswith(("box", "bar", "port"))
    ]
    for disc in (shape for shape in shapes if isinstance(shape, Disc)):
        r = disc.radius
        touched.append((disc.x - r, disc.y - r, disc.x + r, disc.y + r))
    for wire in wires:
        others = [line for other in wires if other is not wire for line in _segments(other)]
        for x, y in (wire.points[0], wire.points[-1]):
            if not any(_is_at(box, x, y) for box in (*touched, *others)):
                yield x, y


def _is_at(box: Box, x: float, y: float) -> bool:
    return box[0] - 0.5 <= x <= box[2] + 0.5 and box[1] - 0.5 <= y <= box[3] + 0.5


def test_skips_that_cross_rows_end_in_letters() -> None:
    drawing = cnngraph.draw(SKIPS)
    assert not list(problems(drawing))
    letters = [
        letter
        for shape in drawing.sheet[0]
        if isinstance(shape, Text) and shape.style == "port-text"
        for letter in shape.text.split()
    ]
    assert letters
    assert {letter: letters.count(letter) for letter in letters} == dict.fromkeys(letters, 2)


def test_long_names_are_shortened_to_fit() -> None:
    name = "a_very_long_name_without_any_end" * 4
    spec = f"cnngraph: 1\nname: {name}\ninput: [3, 8, 8]\ngraph: [{{relu: {{name: {'x' * 90}}}}}]\n"
    drawing = cnngraph.draw(spec, width=85)
    assert not list(problems(drawing))
    assert "…" in drawing.svg


def test_several_inputs_are_boxes_and_shared_weights_are_named() -> None:
    drawing = cnngraph.draw("""
cnngraph: 1
name: siamese
inputs: {left: [3, 32, 32], right: [3, 32, 32]}
graph:
  - from: left
  - conv2d: {name: a, out_channels: 8, kernel_size: 3}
  - share: {name: b, of: a, from: right}
  - concat: [a, b]
""")
    assert not list(problems(drawing))
    texts = [shape.text for shape in drawing.sheet[0] if isinstance(shape, Text)]
    assert {"left", "right", "weights of a"} <= set(texts)
    assert "input --> " not in drawing.mermaid
    left = min(shape.x for shape in drawing.sheet[0] if isinstance(shape, Rect) and shape.title)
    starts = {y for x, y in _loose_ends(drawing) if x < left}
    boxes = [shape for shape in drawing.sheet[0] if isinstance(shape, Rect) and shape.x == left]
    assert len(starts) == len({box.y for box in boxes}) == 2, "each input has a line of its own"
