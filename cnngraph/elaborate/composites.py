"""How each composite is walked: what its parts see, how they are named, and how their results are joined.

Each function takes the place inside the composite and its path (None where it has no level of its own), and returns the
value it is known by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnngraph.elaborate.naming import Level
from cnngraph.elaborate.place import LOST, MAX_NODES, MAX_SOURCES, Call, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, show
from cnngraph.graph import Copy, Scope
from cnngraph.ops import Op, find_op
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.merge import MERGES, Add, Concat
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.scale import Scale
from cnngraph.shape import ShapeError
from cnngraph.spec.document import COMPOSITES, Aux, Dense, Parallel, Repeat, Residual, Sequential, When
from cnngraph.spec.expressions import RESERVED, is_expression
from cnngraph.spec.yaml import Located

if TYPE_CHECKING:
    from cnngraph.elaborate.walk import Walk


def sequential(walk: Walk, call: Call, arguments: Sequential, place: Place, path: str | None, value: Value) -> Value:
    return walk.body(arguments.body, place, value)


def parallel(walk: Walk, call: Call, arguments: Parallel, place: Place, path: str | None, value: Value) -> Value:
    branches: Located = arguments.branches
    results, names = [], []
    if isinstance(branches.value, dict):
        for key, item in branches.value.items():
            results.append(_branch(walk, key, item, branches.keys[key], place, value))
            names.append(key)
    elif isinstance(branches.value, list):
        for index, item in enumerate(branches.value):
            results.append(walk.body(item, place, value))
            names.append(f"branch {index}")
    if not results:
        walk.fail(place, "E103", "`parallel` needs at least one branch", call.position)
    if any(result.shape is None for result in results):
        return LOST
    op = MERGES[arguments.merge]()
    target = path or walk.anonymous(place.level, op.kind)
    return _merge(walk, target, op, results, names, place, call)


def _merge(
    walk: Walk, path: str, op: Op, results: Sequence[Value], names: Sequence[str], place: Place, call: Call
) -> Value:
    shapes = [result.shape for result in results if result.shape is not None]
    try:
        op.infer(*shapes)
    except ShapeError as error:
        shown = list(zip(names, results, shapes, strict=True))[:MAX_SOURCES]
        label = ", ".join(f"{name} gives {shape}" for name, _, shape in shown)
        help = error.help

        def notes() -> Notes:
            return (
                *(("from", f"{name}: {walk.origin.of(str(result.path))}") for name, result, _ in shown),
                ("help", help),
            )

        what = f"the branches of this {call.kind} do not fit together"
        walk.report(Diagnostic(error.code, what, call.position, label), place, path, notes)
        return LOST
    return walk.add(path, op, results, place, call.position)


def _branch(walk: Walk, key: str, item: Located, position: Position, place: Place, value: Value) -> Value:
    """A branch in mapping form: its key is a level; a single node is called by the key itself."""
    path = place.level.join(walk.checked_name(key, place.level.take(), place, position))
    walk.claim(path, place, position)
    inside = replace(place, level=Level(path))
    result = walk.body(item, inside, value, None if isinstance(item.value, list) else path)
    walk.values[path] = result
    if result.path not in (None, path) and result.shape is not None:
        walk.scopes.setdefault(path, Scope(path, "branch", str(result.path), result.shape, position))
    return result


def residual(walk: Walk, call: Call, arguments: Residual, place: Place, path: str | None, value: Value) -> Value:
    body = walk.body(arguments.body, place, value)
    shortcut = _shortcut(walk, call, arguments.shortcut, place, value, body)
    if body.shape is None or shortcut.shape is None:
        return LOST
    if body.shape != shortcut.shape:
        _residual_mismatch(walk, call, arguments, place, path, value, body, shortcut)
        return LOST
    if arguments.scale != 1.0:
        scale = Scale(factor=arguments.scale)
        body = walk.add(walk.anonymous(place.level, "scale"), scale, [body], place, call.position)
    target = path or walk.anonymous(place.level, "add")
    return walk.add(target, Add(), [body, shortcut], place, call.position)


def _residual_mismatch(
    walk: Walk, call: Call, arguments: Residual, place: Place, path: str | None,
    value: Value, body: Value, shortcut: Value,
) -> None:  # fmt: skip
    keep = f"its body stride 1 and {value.shape.channels if value.shape else 0} channels"
    help = "make both sides end with the same channels and stride"
    if shortcut == value and value.shape and len(value.shape) == len(body.shape or ()) == 3:
        help = f"give the residual `shortcut: project`, or {keep}"

    def notes() -> Notes:
        sides = [("body", body), ("shortcut", shortcut)]
        return (*(("from", f"{name}: {walk.origin.of(str(side.path))}") for name, side in sides), ("help", help))

    label = f"body gives {body.shape}, shortcut gives {shortcut.shape}"
    message = "the two sides of this residual do not add up"
    walk.report(Diagnostic("E201", message, call.position, label), place, path, notes)


def _shortcut(walk: Walk, call: Call, located: Located | None, place: Place, value: Value, body: Value) -> Value:
    if located is not None and is_expression(located.value):
        located = Located(walk.resolve(located, place, value.shape), located.position)
    if located is None or located.value in (None, "identity"):
        return value
    if located.value == "project":
        return _project(walk, located.position, place, value, body)
    kind = located.value
    if isinstance(kind, str) and not (kind in COMPOSITES or kind in place.library.blocks or find_op(kind)):
        walk.unknown_kind(kind, place, located.position, "identity", "project")
    return walk.body(located, place, value)


def _project(walk: Walk, position: Position, place: Place, value: Value, body: Value) -> Value:
    """The usual projection, where the sides differ: a strided 1x1 convolution and a batch norm."""
    if value.shape is None or body.shape is None or value.shape == body.shape:
        return value if body.shape is not None else LOST
    if len(value.shape) != 3 or len(body.shape) != 3:
        walk.fail(place, "E203", "`shortcut: project` works on channels x height x width", position)
    stride = tuple(-(-before // after) for before, after in zip(value.shape.spatial, body.shape.spatial, strict=True))
    conv = Conv2d(out_channels=body.shape.channels, kernel_size=1, stride=stride, bias=False)  # pyright: ignore[reportArgumentType]
    if conv.infer(value.shape) != body.shape:
        message = f"no 1x1 convolution leads from {value.shape} to {body.shape}"
        origin = walk.origin.of(str(body.path))
        notes = (("from", f"body: {origin}"), ("help", "write the shortcut's nodes out: `shortcut: [...]`"))
        walk.fail(place, "E201", message, position, notes=notes)
    place.level.take()
    level = Level(place.level.join("downsample"))
    walk.claim(level.path, place, position)
    result = walk.add(level.join("0"), conv, [value], place, position)
    result = walk.add(level.join("1"), BatchNorm(), [result], place, position)
    walk.values[level.path] = result
    walk.scopes[level.path] = Scope(level.path, "project", str(result.path), body.shape, position)
    return result


def dense(walk: Walk, call: Call, arguments: Dense, place: Place, path: str | None, value: Value) -> Value:
    for index, inside in _copies(walk, call, arguments, arguments.layers, place, path):
        result = walk.body(arguments.body, inside, value)
        if result.shape is None:
            return LOST
        last = index == arguments.layers - 1
        target = path if path and last else walk.anonymous(place.level, "concat")
        value = _merge(walk, target, Concat(), [value, result], ["so far", "body"], inside, call)
    return value


def repeat(walk: Walk, call: Call, arguments: Repeat, place: Place, path: str | None, value: Value) -> Value:
    items = _items(walk, call, arguments, place, value)
    for index, inside in _copies(walk, call, arguments, len(items), place, path):
        if arguments.item is not None:
            _bind(walk, arguments.item, items[index], inside, call)
        value = walk.body(arguments.body, inside, value)
    return value


def when(walk: Walk, call: Call, arguments: When, place: Place, path: str | None, value: Value) -> Value:
    return walk.body(arguments.body, place, value) if arguments.test else value


def _copies(
    walk: Walk, call: Call, arguments: Repeat | Dense, times: int, place: Place, path: str | None
) -> Iterator[tuple[int, Place]]:
    """The place of each copy of a repeated body, its counter bound."""
    if times > MAX_NODES:
        message = f"{times:,} copies are too many: a network has at most {MAX_NODES:,} nodes"
        walk.fail(place, "E110", message, call.position)
    for name in (arguments.index, *(getattr(arguments, "item", None) or ())):
        if name in RESERVED:
            message = f"a loop variable cannot be called `{name}`: it has a meaning of its own"
            walk.fail(place, "E116", message, call.position)
    _refuse_shadows(walk, call, arguments, place)
    where = path or f"{place.level.path}@{call.position.line}"
    body = arguments.body.value
    single = not isinstance(body, list) or len(body) == 1
    for index in range(times):
        walk.step(place, call.position)
        yield (
            index,
            replace(
                place,
                variables={**place.variables, arguments.index: index},
                copies=(*place.copies, Copy(where, index, times)),
                loops=(*place.loops, f"{arguments.index}={index}"),
                counted=place.level if single and path else None,
            ),
        )


def _refuse_shadows(walk: Walk, call: Call, arguments: Repeat | Dense, place: Place) -> None:
    """Two loop variables of one name: the item would hide the counter."""
    names: list[str] = [*(getattr(arguments, "item", None) or ())]
    if "index" in call.arguments:
        names.append(arguments.index)
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            message = f"two variables of this {call.kind} are called `{name}`: one would hide the other"
            walk.fail(place, "E116", message, call.keys["as"])


def _items(walk: Walk, call: Call, arguments: Repeat, place: Place, value: Value) -> Sequence[Any]:
    given = [name for name in ("times", "over") if name in call.arguments]
    if len(given) == 2:
        message = "`times` and `over` are both given: `over` makes a copy for each item, and needs no `times`"
        walk.fail(place, "E204", message, call.keys["times"])
    if not given:
        walk.fail(place, "E102", "`repeat` needs either `times` or `over`", call.position)
    if arguments.times is not None:
        if arguments.item is not None:
            message = "`as` goes with `over`; with `times`, `index` names the counter"
            walk.fail(place, "E103", message, call.keys["as"])
        return range(arguments.times)
    if arguments.over is None:
        walk.fail(place, "E103", "`times` must be a whole number", call.position)
    items = walk.resolve(arguments.over, place, value.shape)
    if not isinstance(items, tuple):
        message = f"`over` must be a list, not {show(items)}"
        walk.fail(place, "E103", message, arguments.over.position)
    if arguments.item is None:
        message = "`repeat` over a list needs `as`, the name of the item"
        walk.fail(place, "E102", message, call.position)
    return items


def _bind(walk: Walk, names: tuple[str, ...], item: Any, place: Place, call: Call) -> None:
    if len(names) == 1:
        place.variables[names[0]] = item
        return
    if not isinstance(item, tuple) or len(item) != len(names):
        message = f"`as` names {len(names)} parts, but the item is {show(item)}"
        walk.fail(place, "E103", message, call.keys["as"])
    place.variables.update(zip(names, item, strict=True))


def side_head(walk: Walk, call: Call, arguments: Aux, place: Place, path: str | None, value: Value) -> Value:
    if place.aux:
        walk.fail(place, "E107", f"a side head cannot hold another (`{place.aux}`)", call.position)
    assert path is not None
    if path == "logits":
        where = call.name.position if call.name else call.position
        walk.fail(place, "E116", "`logits` is what training calls the network's main result", where)
    start = value
    if arguments.origin is not None:
        start = walk.lookup(arguments.origin, place, call.arguments["from"].position)
    result = walk.body(arguments.body, replace(place, aux=path), start)
    if result.path is not None:
        if result == start:
            walk.fail(place, "E107", f"the side head `{path}` computes nothing", call.position)
        walk.aux[path] = result.path
    return result


WALKS = {
    Sequential: sequential,
    Parallel: parallel,
    Residual: residual,
    Dense: dense,
    Repeat: repeat,
    When: when,
    Aux: side_head,
}
"""Composite -> the function that walks it. Joins with earlier values are no composites in this sense."""
