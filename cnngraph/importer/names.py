"""The names by which nodes of a spec read earlier values."""

from __future__ import annotations

from collections import Counter

from cnngraph.importer.nodes import NO_LEVEL, SpecNode
from cnngraph.importer.steps import INPUT


class ValueNames:
    """Finds the name of a value, and names nodes whose values others read."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[list[SpecNode], SpecNode, str]] = {}
        self._count: Counter[tuple[str, str]] = Counter()

    def made(self, value: str, nodes: list[SpecNode], path: str) -> None:
        """Notes that the last of `nodes`, in the level at `path`, computes a value."""
        self._made[value] = nodes, nodes[-1], path

    def of(self, value: str, reader: str) -> str:
        """The name of a value for a node in the level at `reader`.

        The node that computes the value gets a name if it has none.
        """
        if value == INPUT:
            return INPUT
        nodes, node, path = self._made[value]
        if node.name == NO_LEVEL:
            named = SpecNode("identity", input=node.input)
            nodes.insert(nodes.index(node) + 1, named)
            node = named
            self._made[value] = nodes, node, path
        if not node.name:
            key = path, node.kind
            self._count[key] += 1
            node.name = f"{node.kind}_{self._count[key]}"
        node.weighted = True
        around = path.split(".") if path else []
        shared = 0
        for own, other in zip(around, reader.split("."), strict=False):
            if own != other:
                break
            shared += 1
        return ".".join([*around[shared:], node.name])
