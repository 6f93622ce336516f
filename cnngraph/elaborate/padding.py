"""Finds the padding that is missing where maps of different sizes are joined."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from cnngraph.elaborate.place import Value
from cnngraph.errors import listing
from cnngraph.graph import Node
from cnngraph.ops import Op
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.pool import AvgPool2d, MaxPool2d
from cnngraph.shape import ShapeError, TensorShape

_MOST_LINES = 5


def same_size_padding(op: Op) -> int | None:
    """The padding with which a window of stride 1 keeps the size, or None if `op` has it."""
    if not isinstance(op, Conv2d | MaxPool2d | AvgPool2d) or op.padding == "same":
        return None
    dilation = (1, 1) if isinstance(op, AvgPool2d) else op.dilation
    spans = {apart * (size - 1) for apart, size in zip(dilation, op.kernel_size, strict=True)}
    span = spans.pop()
    padding = span // 2
    missing = not spans and span % 2 == 0 and op.padding != (padding, padding)
    return padding if missing else None


def padded(
    nodes: Iterable[Node], start: Value, ends: Iterable[Value]
) -> tuple[list[TensorShape | None], str]:
    """The shapes of the values `ends`, computed from `start` with padding that keeps the size.

    Returns:
        The shapes, None where one cannot be computed; and which padding to write, which is empty
        if there is none to add.
    """
    by_path = {node.path: node for node in nodes}
    ends = list(ends)
    between: set[str] = set()
    waiting = [str(end.path) for end in ends]
    while waiting:
        path = waiting.pop()
        if path != start.path and path in by_path and path not in between:
            between.add(path)
            waiting += by_path[path].inputs
    shapes: dict[str, TensorShape | None] = {str(start.path): start.shape}
    lines: dict[tuple[int, str], list[str]] = defaultdict(list)
    for path, node in by_path.items():
        if path not in between:
            continue
        op = node.op
        if (padding := same_size_padding(op)) is not None:
            op = op.model_copy(update={"padding": (padding, padding)})
            lines[padding, op.kind].append(str(node.origin.line))
        shapes[path] = _infer(op, [shapes.get(item) for item in node.inputs])
    parts = [
        f"`padding: {padding}` in the {kind} at {_at(list(dict.fromkeys(places)))}"
        for (padding, kind), places in lines.items()
    ]
    return [shapes.get(str(end.path)) for end in ends], listing(parts)


def _infer(op: Op, shapes: list[TensorShape | None]) -> TensorShape | None:
    known = [shape for shape in shapes if shape is not None]
    try:
        return op.infer(*known) if len(known) == len(shapes) else None
    except ShapeError:
        return None


def _at(lines: list[str]) -> str:
    shown = lines[:_MOST_LINES]
    more = len(lines) - len(shown)
    shown += [f"{more} more"] * bool(more)
    return f"line{'s' * (len(lines) > 1)} {listing(shown)}"
