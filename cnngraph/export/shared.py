"""Levels that run more than once with the same weights."""

from __future__ import annotations

from dataclasses import dataclass

from cnngraph.graph import Graph, Node
from cnngraph.lowering.levels import Levels


@dataclass(frozen=True)
class SharedCall:
    """Another call of a level: nodes that repeat the level's, with its modules.

    Attributes:
        path: the path that holds the nodes.
        module: the path of the level.
        inputs: the values that the nodes read, in the order of the level's.
        outputs: their results, in the order of the level's.
    """

    path: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def contains(self, path: str) -> bool:
        """Whether a path is one of the call's nodes, or of the levels in it."""
        return _is_in(path, self.path)


def shared_calls(graph: Graph, levels: Levels) -> list[SharedCall]:
    """The calls of levels that ran before; nodes that share modules in another way are in none."""
    found: list[SharedCall] = []
    for path in sorted(graph.scopes, key=len):
        if path not in levels and not any(call.contains(path) for call in found):
            call = _call(graph, levels, path)
            if call is not None:
                found.append(call)
    return found


def _call(graph: Graph, levels: Levels, path: str) -> SharedCall | None:
    copies = [node for node in graph.nodes if _is_in(node.path, path)]
    shared = next((node for node in copies if node.shared), None)
    if shared is None:
        return None
    module = shared.shared.removesuffix(shared.path.removeprefix(path))
    level = levels.get(module)
    originals = [node for node in graph.nodes if _is_in(node.path, module)]
    if level is None or len(copies) != len(originals):
        return None
    other = {node.path: node for node in copies}
    values: dict[str, str] = {}
    for node in originals:
        copy = other.get(path + node.path.removeprefix(module))
        if copy is None or not _repeats(copy, node):
            return None
        values[node.path] = copy.path
        values.update(zip(node.inputs, copy.inputs, strict=True))
    results = {values[of] for of in level.outputs}
    if any(_is_read_outside(graph, node, path) and node.path not in results for node in copies):
        return None
    inputs, outputs = (tuple(values[of] for of in side) for side in (level.inputs, level.outputs))
    return SharedCall(path, module, inputs, outputs)


def _is_read_outside(graph: Graph, node: Node, path: str) -> bool:
    users = graph.users.get(node.path, ())
    return node.path in graph.outputs or any(not _is_in(user.path, path) for user in users)


def _repeats(copy: Node, node: Node) -> bool:
    return copy.op == node.op and copy.shared == (node.module if node.op.has_module else "")


def _is_in(path: str, target: str) -> bool:
    return path == target or path.startswith(f"{target}.")
