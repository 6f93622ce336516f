"""Levels whose maps exchange values are drawn as a grid: a row for each resolution."""

from __future__ import annotations

import pytest
from test_sheets import problems

import cnngraph
from cnngraph.drawing import Drawing
from cnngraph.drawing.grid import Cell, place
from cnngraph.drawing.shapes import Piece, Rect, Text

EXCHANGE = """
cnngraph: 1
name: exchange
input: [3, 32, 32]
blocks:
  down:
    params: {width: ~}
    body: [{conv2d: {out_channels: "${width}", kernel_size: 3, stride: 2, padding: 1}}, relu]
  up:
    params: {width: ~}
    body: [{conv2d: {out_channels: "${width}", kernel_size: 1}}, {upsample: {scale_factor: 2}}]
graph:
  - conv2d: {name: high1, out_channels: 8, kernel_size: 3, padding: 1}
  - down: {name: low1, width: 16, from: high1}
  - conv2d: {name: high2, out_channels: 8, kernel_size: 3, padding: 1, from: high1}
  - conv2d: {name: low2, out_channels: 16, kernel_size: 3, padding: 1, from: low1}
  - up: {name: rise, width: 8, from: low2}
  - down: {name: fall, width: 16, from: high2}
  - add: {name: high3, from: high2, with: rise}
  - add: {name: low3, from: low2, with: fall}
  - down: {name: last, width: 16, from: high3}
  - concat: {from: last, with: low3}
"""


def boxes(drawing: Drawing) -> dict[str, Rect]:
    """The boxes of the network by path, without those on cards."""
    found: dict[str, Rect] = {}
    for shape in drawing.sheet[0]:
        if isinstance(shape, Rect) and shape.path:
            found.setdefault(shape.path, shape)
    return found


@pytest.mark.parametrize("width", [180, 120, 85])
def test_a_grid_has_no_overlaps_at_any_width(width: int) -> None:
    assert not list(problems(cnngraph.draw(EXCHANGE, width=width)))


def test_rows_are_resolutions_and_columns_follow_the_computation() -> None:
    drawing = cnngraph.draw(EXCHANGE)
    box = boxes(drawing)
    high, low = ("high1", "high2", "rise"), ("low1", "low2", "fall", "last")
    bottom = max(box[path].y + box[path].height for path in high)
    assert bottom < min(box[path].y for path in low)
    order = ["high1", "low1", "low2", "rise", "last"]
    assert [box[path].x for path in order] == sorted(box[path].x for path in order)
    texts = [shape.text for shape in drawing.sheet[0] if isinstance(shape, Text)]
    assert texts.index("32×32") < texts.index("16×16")


def test_a_wrapped_grid_goes_on_below() -> None:
    wide, narrow = boxes(cnngraph.draw(EXCHANGE)), boxes(cnngraph.draw(EXCHANGE, width=85))
    assert wide["high2"].y < wide["low1"].y
    assert narrow["last"].y > max(narrow[path].y for path in ("low1", "low2"))


def test_a_value_read_further_on_has_a_lane_in_the_columns_between() -> None:
    def draw(ports: object, height: float) -> Piece:
        return Piece(10, 10, 5, ())

    sizes = {"in": (64, "8×8"), "a": (64, "8×8"), "b": (16, "4×4"), "c": (16, "4×4")}
    cells = [
        Cell(("a",), ("in",), draw),
        Cell(("b",), ("a",), draw),
        Cell(("c",), ("b", "a"), draw),
    ]
    grid = place(cells, ["in"], ["c"], sizes.__getitem__)
    assert grid.labels == ["8×8", "4×4"]
    assert [cell.column for cell in cells] == [1, 2, 3]
    assert [cell.rows.start for cell in cells] == [0, 1, 1]
    lane = next(cell for cell in grid.columns[2] if cell.draw is None)
    assert lane.values == ("a",)
    assert cells[2].sources == [(cells[1], "b"), (lane, "a")]
    ports = [port for *_, port in grid.arrivals(cells[2])]
    assert ports == [-1, 0], "the line from the row above arrives above the straight one"


def test_a_unit_of_several_resolutions_reads_at_its_largest_map() -> None:
    body = Cell(("small", "large"), ("in",), lambda ports, height: Piece(10, 10, 5, ()))
    head = Cell(("out",), ("large",), lambda ports, height: Piece(10, 10, 5, ()))
    sizes = {"in": (256, "16×16"), "small": (16, "4×4"), "large": (64, "8×8"), "out": (64, "8×8")}
    grid = place([body, head], ["in"], ["small", "out"], sizes.__getitem__)
    assert grid.labels == ["8×8", "4×4"]
    assert body.rows == range(2)
    (arrival,) = grid.arrivals(body)
    assert arrival[2] == (0, 0)
