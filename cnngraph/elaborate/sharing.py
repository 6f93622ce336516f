"""Calls an earlier node, composite or block again: copies of its nodes that share its modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnngraph.elaborate.composites import Walker
from cnngraph.elaborate.place import INVALID, Call, Place, Value
from cnngraph.errors import show
from cnngraph.graph import Node
from cnngraph.spec.document import Share


def share(
    walk: Walker,
    call: Call,
    arguments: Share,
    place: Place,
    path: str,
    value: Value,
    starts: Mapping[str, str],
) -> Value:
    """Appends the nodes of an earlier part of the network once more, reading `value`.

    `starts` are the values that composites and blocks read, by path. Raises `InvalidError`.
    """
    position = arguments.of.position
    name = walk.evaluator.resolve(arguments.of, place, value.shape)
    if not isinstance(name, str):
        message = f"`share` takes the name of an earlier node, not {show(name)}"
        walk.diagnostics.fail(place, "E103", message, position)
    target = walk.paths.locate(name, place, position, path)
    known = walk.graph.nodes
    nodes = [node for node in known.values() if _is_in(node.path, target)]
    walk.evaluator.spend(len(nodes), place, position)
    start = starts.get(target) or (nodes[0].inputs[0] if len(nodes) == 1 else None)
    if start is None or not any(node.op.has_module for node in nodes):
        message = f"`{name}` has no weights to share"
        walk.diagnostics.fail(place, "E103", message, position)
    if any(_is_in(head, target) for head in walk.graph.aux):
        message = f"`{name}` contains a side head, which cannot be computed twice"
        walk.diagnostics.fail(place, "E107", message, position)
    values = {start: value}
    for node in nodes:
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
    for item, known_value in [*walk.paths.values.items()]:
        if item != target and _is_in(item, target) and known_value.path in values:
            walk.paths.values[path + item.removeprefix(target)] = values[known_value.path]
    for item, scope in [*walk.graph.scopes.items()]:
        if _is_in(item, target) and scope.output in values:
            result = values[scope.output]
            assert result.path is not None
            assert result.shape is not None
            copy = path + item.removeprefix(target)
            walk.graph.scopes[copy] = replace(
                scope, path=copy, output=result.path, shape=result.shape, origin=call.position
            )
    return values.get(str(walk.paths.values[target].path), INVALID)


def same_node(one: Call, other: Call) -> bool:
    """Whether two nodes are written alike, apart from the value that they read."""

    def written(call: Call) -> tuple[object, ...]:
        bare = call.bare.plain() if call.bare is not None else None
        return call.kind, {key: item.plain() for key, item in call.arguments.items()}, bare

    return written(one) == written(other)


def follows(walk: Walker, value: Value, path: str) -> bool:
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
