"""Residuals: the sum of a body and its shortcut, which may be a projection."""

from __future__ import annotations

from functools import lru_cache

from cnngraph.elaborate.calls import is_kind
from cnngraph.elaborate.joins import origins
from cnngraph.elaborate.padding import padded
from cnngraph.elaborate.place import INVALID, Call, Level, Place, Value
from cnngraph.elaborate.walker import Walker
from cnngraph.errors import Diagnostic, Position, show
from cnngraph.graph import Scope
from cnngraph.ops.conv import CONVOLUTIONS, Conv1d, Conv2d, Conv3d
from cnngraph.ops.merge import MERGES
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.scale import Scale
from cnngraph.shape import TensorShape
from cnngraph.spec.document import Residual
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.yaml import Located


def residual(
    walk: Walker, call: Call, arguments: Residual, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body and the shortcut from the same value, and adds their results."""
    body = walk.body(arguments.body, place, value)
    shortcut = _shortcut(walk, arguments.shortcut, place, value, body)
    if body.shape is None or shortcut.shape is None:
        return INVALID
    if body.shape != shortcut.shape:
        _residual_mismatch(walk, call, place, path, value, body, shortcut)
        return INVALID
    if arguments.scale != 1.0:
        scale = Scale(factor=arguments.scale)
        name = walk.paths.anonymous(place.level, "scale")
        body = walk.graph.add(name, scale, [body], place, call.position)
    name = path or walk.paths.anonymous(place.level, "add")
    return walk.graph.add(name, MERGES["add"], [body, shortcut], place, call.position)


def _residual_mismatch(
    walk: Walker,
    call: Call,
    place: Place,
    path: str | None,
    value: Value,
    body: Value,
    shortcut: Value,
) -> None:
    label = f"body gives {body.shape}, shortcut gives {shortcut.shape}"
    message = "cannot add the body and the shortcut of this residual: their shapes differ"
    walk.diagnostics.report(
        Diagnostic("E201", message, call.position, label),
        place,
        path,
        lambda: (
            *origins(walk, [("body", body), ("shortcut", shortcut)]),
            ("help", _residual_help(walk, value, body, shortcut)),
        ),
    )


def _residual_help(walk: Walker, value: Value, body: Value, shortcut: Value) -> str:
    """What makes the body of a residual and its shortcut equal in shape."""
    (mended,), padding = padded(walk.graph.nodes.values(), value, [body])
    if padding and mended == shortcut.shape:
        return f"write {padding}"
    if shortcut == value and value.shape and 1 < len(value.shape) == len(body.shape or ()):
        keep = f"its body stride 1 and {value.shape.channels} channels"
        project = f"give the residual `shortcut: project`, or {keep}"
        if _projection(value.shape, body.shape) is not None:
            return project
        if padding and _projection(value.shape, mended) is not None:
            return f"write {padding}; then {project}"
    return "make body and shortcut end with the same channels, height and width"


def _shortcut(
    walk: Walker, located: Located | None, place: Place, value: Value, body: Value
) -> Value:
    if located is not None and is_expression(located.value):
        shortcut = walk.evaluator.resolve(located, place, value.shape)
        located = Located(shortcut, located.position)
    if located is None or located.value in (None, "identity"):
        return value
    if located.value == "project":
        return _project(walk, located.position, place, value, body)
    kind = located.value
    if isinstance(kind, bool):
        message = f"`shortcut` must be `identity`, `project` or nodes, not {show(kind)}"
        help = "`identity` is the default; `project` adds a 1x1 convolution and a batch norm"
        help = help if kind else "write `sequential` for nodes without a shortcut"
        fail = walk.diagnostics.fail
        fail(place, "E103", message, located.position, notes=(("help", help),))
    if isinstance(kind, str) and not is_kind(kind, place):
        walk.calls.unknown_kind(kind, place, located.position, "identity", "project")
    return walk.body(located, place, value)


def _project(walk: Walker, position: Position, place: Place, value: Value, body: Value) -> Value:
    """The usual projection if the shapes differ: a strided 1x1 convolution and a batch norm."""
    fail = walk.diagnostics.fail
    if value.shape is None or body.shape is None or value.shape == body.shape:
        return value if body.shape is not None else INVALID
    if not value.shape.spatial or len(value.shape) != len(body.shape):
        fail(
            place,
            "E203",
            "`shortcut: project` needs maps, such as channels x height x width",
            position,
        )
    conv = _projection(value.shape, body.shape)
    if conv is None:
        message = f"no strided 1x1 convolution maps {value.shape} to {body.shape}"
        help = ("help", "write the nodes of the shortcut: `shortcut: [...]`")
        fail(place, "E201", message, position, notes=(*origins(walk, [("body", body)]), help))
    place.level.take()
    level = Level(place.level.join("downsample"))
    walk.paths.claim(level.path, place, position)
    walk.graph.begin(level.path, value)
    result = walk.graph.add(level.join("0"), conv, [value], place, position)
    result = walk.graph.add(level.join("1"), _BATCH_NORM, [result], place, position)
    walk.paths.values[level.path] = result
    scope = Scope(level.path, "project", str(result.path), body.shape, position)
    walk.graph.scopes[level.path] = scope
    return result


_BATCH_NORM = BatchNorm()


@lru_cache(maxsize=1024)
def _projection(before: TensorShape, after: TensorShape | None) -> Conv1d | Conv2d | Conv3d | None:
    """The strided 1x1 convolution from one shape of a map to another, or None."""
    if after is None:
        return None
    sizes = zip(before.spatial, after.spatial, strict=True)
    stride = tuple(-(-size // less) for size, less in sizes)
    conv = CONVOLUTIONS[len(stride)](
        out_channels=after.channels, kernel_size=(1,) * len(stride), stride=stride, bias=False
    )
    return conv if conv.infer(before) == after else None
