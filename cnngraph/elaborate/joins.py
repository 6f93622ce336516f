"""Branches that are merged, and values that are joined with earlier ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cnngraph.elaborate.padding import padded
from cnngraph.elaborate.place import INVALID, MAX_SOURCES, Call, Level, Place, Value
from cnngraph.elaborate.walker import Walker
from cnngraph.errors import Diagnostic, Notes, Position, is_list, show
from cnngraph.graph import Scope
from cnngraph.ops import Op
from cnngraph.ops.merge import MERGES
from cnngraph.shape import ShapeError, TensorShape
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import CURRENT, JoinWith, Parallel, When
from cnngraph.spec.yaml import Located


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
    return merge(walk, target, op, results, value, place, call)


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


def merge(
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
                return (*origins(walk, shown), ("help", f"write {padding}"))
            way_out = walk.graph.help_for(op, [str(value.path) for value in values])
            return (*origins(walk, shown), ("help", way_out or help))

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


def origins(walk: Walker, results: Sequence[tuple[str, Value]]) -> Notes:
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
