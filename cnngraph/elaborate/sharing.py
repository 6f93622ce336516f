"""Calls an earlier node, composite or block again: copies of its nodes that share its modules."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, takewhile

from cnngraph.elaborate.place import INVALID, Call, Place, Value
from cnngraph.elaborate.walker import Walker
from cnngraph.errors import Position, show
from cnngraph.graph import Node, Scope
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.document import Share

_SKIPPED_A_STEP = 64
"""Nodes before a part that count as one step: they are skipped to find those of the part."""


def share(
    walk: Walker,
    call: Call,
    arguments: Share,
    place: Place,
    path: str,
    value: Value,
) -> Value:
    """Appends the nodes of an earlier part of the network once more, reading `value`.

    Raises `InvalidError`.
    """
    position = arguments.of.position
    name = walk.evaluator.resolve(arguments.of, place, value.shape)
    if not isinstance(name, str):
        message = f"`share` takes the name of an earlier node, not {show(name)}"
        walk.diagnostics.fail(place, "E103", message, position)
    target = walk.paths.locate(name, place, position, path)
    if walk.paths.values[target].path is None:
        raise InvalidError  # it has a mistake, which is reported
    nodes, scopes = _contents(walk, target, place, position)
    if not any(node.op.has_module for node in nodes):
        message = f"`{name}` has no weights to share"
        walk.diagnostics.fail(place, "E103", message, position)
    if any(node.aux and _is_in(node.aux, target) for node in nodes):
        message = f"`{name}` contains a side head, which cannot be computed twice"
        walk.diagnostics.fail(place, "E107", message, position)
    part = walk.graph.parts.get(target)
    values = {part.start if part else nodes[0].inputs[0]: value}
    for node in nodes:
        walk.count(place, position)
        copy = path + node.path.removeprefix(target)
        if copy != path:
            walk.paths.claim(copy, place, call.position)
        inputs = [values.get(item) or _value(walk, item) for item in node.inputs]
        if not _fits(walk, node, inputs):
            shapes = " and ".join(str(item.shape) for item in inputs)
            message = f"the weights of `{node.path}` do not fit an input of {shapes}"
            notes = tuple(("from", walk.graph.origin.of(str(item.path))) for item in inputs)
            walk.diagnostics.fail(place, "E201", message, call.position, notes=notes)
        shared = node.module if node.op.has_module else ""
        values[node.path] = walk.graph.add(copy, node.op, inputs, place, call.position, shared)
        if values[node.path].shape is None:
            return INVALID
        if node.path in walk.paths.values:
            walk.paths.values[copy] = values[node.path]
    for scope in scopes:
        result = values.get(scope.output)
        if result is None:
            continue
        assert result.path is not None
        assert result.shape is not None
        copy = path + scope.path.removeprefix(target)
        walk.paths.values[copy] = result
        walk.graph.scopes[copy] = replace(
            scope, path=copy, output=result.path, shape=result.shape, origin=call.position
        )
    return values.get(str(walk.paths.values[target].path), INVALID)


def _contents(
    walk: Walker, target: str, place: Place, position: Position
) -> tuple[list[Node], list[Scope]]:
    """The nodes and scopes at `target` and inside of it."""
    known = walk.graph.nodes
    part = walk.graph.parts.get(target)
    if part is None:
        return ([known[target]] if target in known else []), []
    walk.evaluator.spend(part.nodes // _SKIPPED_A_STEP, place, position)
    nodes = islice(known.values(), part.nodes, None)
    scopes = islice(walk.graph.scopes.values(), part.scopes, None)
    return (
        [*takewhile(lambda node: _is_in(node.path, target), nodes)],
        [*takewhile(lambda scope: _is_in(scope.path, target), scopes)],
    )


def same_node(one: Call, other: Call) -> bool:
    """Whether two nodes are written alike, apart from the value that they read."""
    return (
        one.kind == other.kind
        and one.arguments.keys() == other.arguments.keys()
        and all(item.same(other.arguments[key]) for key, item in one.arguments.items())
        and (one.bare.same(other.bare) if one.bare and other.bare else one.bare is other.bare)
    )


def follows(walk: Walker, value: Value, path: str, place: Place, position: Position) -> bool:
    """Whether a value is computed from a node at `path` or inside of it."""
    found, waiting = set[str](), [value.path]
    while waiting:
        item = waiting.pop()
        if item is None or item in found:
            continue
        if _is_in(item, path):
            return True
        found.add(item)
        if item in walk.graph.nodes:
            waiting.extend(walk.graph.nodes[item].inputs)
    walk.evaluator.spend(len(found) // 4, place, position)
    return False


def _is_in(path: str, target: str) -> bool:
    return path == target or path.startswith(f"{target}.")


def _value(walk: Walker, path: str) -> Value:
    node = walk.graph.nodes.get(path)
    return Value(path, node.shape if node else walk.graph.inputs[path])


def _fits(walk: Walker, node: Node, values: list[Value]) -> bool:
    """Whether a node has the same weights for other inputs."""
    before = [_value(walk, path) for path in node.inputs]
    old = [value.shape for value in before if value.shape is not None]
    new = [value.shape for value in values if value.shape is not None]
    try:
        return len(new) < len(values) or node.op.parameters(*old) == node.op.parameters(*new)
    except (IndexError, ValueError):
        return False
