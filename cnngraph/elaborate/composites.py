"""How each composite is walked: what its parts see, their names, and how their results are joined.

Each function takes the place inside the composite and the composite's path (None if it has no level
of its own), and returns the composite's value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NoReturn, Protocol

from cnngraph.elaborate.builder import GraphBuilder
from cnngraph.elaborate.calls import Calls, is_kind
from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import Evaluator
from cnngraph.elaborate.padding import padded
from cnngraph.elaborate.paths import Paths
from cnngraph.elaborate.place import INVALID, MAX_NODES, MAX_SOURCES, Call, Level, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, is_list, show
from cnngraph.graph import Copy, Scope
from cnngraph.ops import Op
from cnngraph.ops.conv import CONVOLUTIONS, Conv1d, Conv2d, Conv3d
from cnngraph.ops.merge import MERGES
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.scale import Scale
from cnngraph.shape import ShapeError, TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import (
    CURRENT,
    Aux,
    Composite,
    Dense,
    From,
    JoinWith,
    Parallel,
    Repeat,
    Residual,
    Sequential,
    When,
)
from cnngraph.spec.expressions import RESERVED, is_expression
from cnngraph.spec.yaml import Located


class Walker(Protocol):
    """The walk, as composites see it: its parts, and how it walks nodes."""

    diagnostics: Diagnostics
    evaluator: Evaluator
    paths: Paths
    calls: Calls
    graph: GraphBuilder

    def body(self, located: Located, place: Place, value: Value, own: str | None = None) -> Value:
        """Walks nodes one after another, or a single node, which takes the path `own`."""
        ...

    def start(self, call: Call, place: Place, value: Value) -> Value:
        """The value that a node reads: the one named by its `from`, otherwise the current one."""
        ...

    def count(self, place: Place, position: Position) -> None:
        """Counts a step of the walk. Raises `InvalidError` if it is over its limit."""
        ...


def sequential(
    walk: Walker, call: Call, arguments: Sequential, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body."""
    return walk.body(arguments.body, place, value)


def parallel(
    walk: Walker, call: Call, arguments: Parallel, place: Place, path: str | None, value: Value
) -> Value:
    """Walks each branch from the same value, and merges the results, if there are several."""
    branches: Located = arguments.branches
    named = branches.entries or {f"branch {i}": item for i, item in enumerate(branches.items)}
    present = {key: item for key, item in named.items() if not _is_absent(walk, item, place, value)}
    if not present:
        message = "`parallel` needs at least one branch"
        if named:
            message += ", but no `test` of its branches is true"
        walk.diagnostics.fail(place, "E103", message, call.position)
    results: dict[str, Value] = {}
    for key, item in present.items():
        if branches.entries:
            results[key] = _branch(walk, key, item, branches.keys[key], place, value)
        else:
            results[key] = walk.body(item, place, value)
    if any(result.shape is None for result in results.values()):
        return INVALID
    if len(results) == 1:
        return next(iter(results.values()))
    op = MERGES[arguments.merge]
    target = path or walk.paths.anonymous(place.level, op.kind)
    return _merge(walk, target, op, results, value, place, call)


def _is_absent(walk: Walker, located: Located, place: Place, value: Value) -> bool:
    """Whether a branch consists of nodes `when` alone, of which every test is false."""
    items = located.items if isinstance(located.value, list) else [located]
    return bool(items) and all(_is_absent_node(walk, item, place, value) for item in items)


def _is_absent_node(walk: Walker, located: Located, place: Place, value: Value) -> bool:
    if isinstance(located.value, list):
        return _is_absent(walk, located, place, value)
    if When.kind not in located.entries or len(located.entries) > 1:
        return False
    try:
        call = walk.calls.read(located, place, value)
        start = walk.start(call, place, value)
        return not walk.calls.arguments(call, When, place, start).test
    except InvalidError:
        return False  # a mistake, which is reported


def _merge(
    walk: Walker,
    path: str,
    op: Op,
    results: dict[str, Value],
    start: Value,
    place: Place,
    call: Call,
) -> Value:
    """Joins the results of branches, by the branches' names, into one node at `path`.

    `start` is the value that the branches begin with.
    """
    values = list(results.values())
    try:
        op.infer(*(value.shape for value in values if value.shape is not None))
    except ShapeError as error:
        shown = list(results.items())[:MAX_SOURCES]
        help = error.help

        def notes() -> Notes:
            shapes, padding = padded(walk.graph.nodes.values(), start, values)
            if _joins(op, shapes):
                return (*_origins(walk, shown), ("help", f"write {padding}"))
            way_out = walk.graph.help_for(op, [str(value.path) for value in values])
            return (*_origins(walk, shown), ("help", way_out or help))

        label = ", ".join(f"{name} gives {result.shape}" for name, result in shown)
        what = f"cannot join the branches of this {call.kind}: their shapes do not match"
        diagnostic = Diagnostic(error.code, what, call.position, label)
        walk.diagnostics.report(diagnostic, place, path, notes)
        return INVALID
    return walk.graph.add(path, op, values, place, call.position)


def _joins(op: Op, shapes: Sequence[TensorShape | None]) -> bool:
    """Whether `op` can be applied to values of these shapes, all of which are known."""
    known = [shape for shape in shapes if shape is not None]
    try:
        return len(known) == len(shapes) and bool(op.infer(*known))
    except ShapeError:
        return False


def _origins(walk: Walker, results: Sequence[tuple[str, Value]]) -> Notes:
    return tuple(
        ("from", f"{name}: {walk.graph.origin.of(str(result.path))}") for name, result in results
    )


def _branch(
    walk: Walker, key: str, item: Located, position: Position, place: Place, value: Value
) -> Value:
    """A named branch: its key is a level; a single node is called by the key itself."""
    name = walk.paths.checked_name(key, place.level.take(), place, position)
    path = place.level.join(name)
    walk.paths.claim(path, place, position)
    walk.graph.begin(path, value)
    inside = place._replace(level=Level(path))
    result = walk.body(item, inside, value, None if isinstance(item.value, list) else path)
    walk.paths.values[path] = result
    if result.path not in (None, path) and result.shape is not None:
        scope = Scope(path, "branch", str(result.path), result.shape, position)
        walk.graph.scopes.setdefault(path, scope)
    return result


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
            *_origins(walk, [("body", body), ("shortcut", shortcut)]),
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
        fail(place, "E201", message, position, notes=(*_origins(walk, [("body", body)]), help))
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


def dense(
    walk: Walker, call: Call, arguments: Dense, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body `layers` times, each time concatenating its result to its input."""
    for index, inside in _copies(walk, call, arguments, arguments.layers, place, path):
        result = walk.body(arguments.body, inside, value)
        if result.shape is None:
            return INVALID
        last = index == arguments.layers - 1
        target = path if path and last else walk.paths.anonymous(place.level, "concat")
        results = {"input": value, "body": result}
        value = _merge(walk, target, MERGES["concat"], results, value, inside, call)
    return value


def repeat(
    walk: Walker, call: Call, arguments: Repeat, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body once for each item."""
    items = _items(walk, call, arguments, place, value)
    for index, inside in _copies(walk, call, arguments, len(items), place, path):
        if arguments.item is not None:
            _bind(walk, arguments.item, items[index], inside, call)
        value = walk.body(arguments.body, inside, value)
    return value


def from_value(
    walk: Walker, call: Call, arguments: From, place: Place, path: str | None, value: Value
) -> Value:
    """Goes back to an earlier value."""
    return walk.start(replace(call, origin=arguments.value), place, value)


def when(
    walk: Walker, call: Call, arguments: When, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body of a `when` whose test is true."""
    return walk.body(arguments.body, place, value)


def _copies(
    walk: Walker,
    call: Call,
    arguments: Repeat | Dense,
    times: int,
    place: Place,
    path: str | None,
) -> Iterator[tuple[int, Place]]:
    """The index and the place of each copy of a repeated body, its counter bound."""
    fail = walk.diagnostics.fail
    if times > MAX_NODES:
        message = f"{times:,} copies are too many: a network has at most {MAX_NODES:,} nodes"
        fail(place, "E110", message, call.position)
    parts = (arguments.item or ()) if isinstance(arguments, Repeat) else ()
    for name in (arguments.index, *parts):
        if name in RESERVED:
            message = f"a loop variable cannot be called `{name}`: the name is reserved"
            fail(place, "E116", message, call.position)
    names = [*parts, *([arguments.index] if "index" in call.arguments else [])]
    for name in names:
        if names.count(name) > 1:
            message = f"two variables of this {call.kind} are called `{name}`"
            fail(place, "E116", message, call.keys["as"])
    where = path or f"{place.level.path}@{call.position.line}"
    body: Located = arguments.body
    single = not isinstance(body.value, list) or len(body.items) == 1
    for index in range(times):
        walk.count(place, call.position)
        yield (
            index,
            place._replace(
                variables={**place.variables, arguments.index: index},
                copies=(*place.copies, Copy(where, index, times)),
                loops=(*place.loops, f"{arguments.index}={index}"),
                counted=place.level if single and path else None,
            ),
        )


def _items(
    walk: Walker, call: Call, arguments: Repeat, place: Place, value: Value
) -> Sequence[Any]:
    def fail(code: str, message: str, position: Position) -> NoReturn:
        walk.diagnostics.fail(place, code, message, position)

    given = [name for name in ("times", "over") if name in call.arguments]
    if len(given) == 2:
        fail("E204", "`repeat` takes either `times` or `over`, not both", call.keys["times"])
    if not given:
        fail("E102", "`repeat` needs either `times` or `over`", call.position)
    if arguments.times is not None:
        if arguments.item is not None:
            message = "`as` needs `over`; with `times`, `index` names the counter"
            fail("E103", message, call.keys["as"])
        return range(arguments.times)
    if arguments.over is None:
        fail("E103", "`times` must be a whole number", call.position)
    items = walk.evaluator.resolve(arguments.over, place, value.shape)
    if not is_list(items):
        fail("E103", f"`over` must be a list, not {show(items)}", arguments.over.position)
    if arguments.item is None:
        fail("E102", "`repeat` over a list needs `as`, the name of the item", call.position)
    return items


def _bind(walk: Walker, names: tuple[str, ...], item: Any, place: Place, call: Call) -> None:
    if len(names) == 1:
        place.variables[names[0]] = item
        return
    if not is_list(item) or len(item) != len(names):
        message = f"`as` has {len(names)} names, but the item is {show(item)}"
        walk.diagnostics.fail(place, "E103", message, call.keys["as"])
    place.variables.update(zip(names, item, strict=True))


def side_head(
    walk: Walker, call: Call, arguments: Aux, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body as a side head."""
    fail = walk.diagnostics.fail
    if place.aux:
        message = f"a side head cannot contain another (`{place.aux}`)"
        fail(place, "E107", message, call.position)
    assert path is not None
    if path == "logits":
        where = call.name.position if call.name else call.position
        fail(place, "E116", "`logits` is the name of the main result in training", where)
    result = walk.body(arguments.body, place._replace(aux=path), value)
    if result.path is not None:
        if result == value:
            fail(place, "E107", f"the side head `{path}` has no nodes", call.position)
        walk.graph.aux[path] = result.path
    return result


def join(
    walk: Walker, call: Call, arguments: JoinWith, place: Place, path: str | None, value: Value
) -> Value:
    """Joins the current value with earlier ones, in the order written."""
    assert path is not None
    located: Located = arguments.values
    names = _names(walk, located, place, value)
    values = [
        value if name == CURRENT else walk.paths.lookup(name, place, located.at((index,)), path)
        for index, name in enumerate(names)
    ]
    if CURRENT not in names:
        values = [value, *values]
    if value.path is not None and [item.path for item in values].count(value.path) > 1:
        message = f"this {call.kind} joins the current value, `{value.path}`, with itself"
        help = f"`{call.kind}` joins the current value anyway: do not name it too"
        if CURRENT in names:
            help = f"`{CURRENT}` is the current value: do not name it too"
        warning = Diagnostic("W403", message, located.position, notes=(("help", help),))
        walk.diagnostics.report(warning, place, path)
    return walk.graph.add(path, MERGES[call.kind], values, place, call.position)


def _names(walk: Walker, located: Located, place: Place, value: Value) -> tuple[str, ...]:
    """The names of values in an argument. Raises `InvalidError`."""
    given = walk.evaluator.resolve(located, place, value.shape)
    names: tuple[Any, ...] = given if is_list(given) else (given,)
    walk.evaluator.spend(len(names), place, located.position)
    if not names or not all(isinstance(name, str) for name in names):
        rule = "the name of an earlier node, or a list of names"
        message = f"`with` must be {rule}, not {show(given)}"
        walk.diagnostics.fail(place, "E103", message, located.position)
    return names


def references(
    walk: Walker, call: Call, op: Op, place: Place, path: str, value: Value
) -> Iterator[Value]:
    """The earlier values that an op's arguments name, such as `like: stem`."""
    for field in op.references:
        if getattr(op, field) is not None:
            located = call.arguments[field]
            name = walk.evaluator.resolve(located, place, value.shape)
            yield walk.paths.lookup(name, place, located.position, path)


Walk = Callable[[Walker, Call, Any, Place, str | None, Value], Value]

WALKS: dict[type[Composite], Walk] = {
    Sequential: sequential,
    Parallel: parallel,
    Residual: residual,
    Dense: dense,
    Repeat: repeat,
    When: when,
    Aux: side_head,
}
"""Composite -> the function that walks it."""
