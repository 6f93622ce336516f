"""Bodies that are walked several times: `repeat` and `dense`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from cnngraph.elaborate.joins import merge
from cnngraph.elaborate.place import INVALID, MAX_NODES, Call, Place, Value
from cnngraph.elaborate.walker import Walker
from cnngraph.errors import Position, is_list, show
from cnngraph.graph import Copy
from cnngraph.ops.merge import MERGES
from cnngraph.spec.document import Dense, Repeat
from cnngraph.spec.expressions import RESERVED
from cnngraph.spec.yaml import Located


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
        value = merge(walk, target, MERGES["concat"], results, value, inside, call)
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
