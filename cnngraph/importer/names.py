"""The names by which nodes of a spec read earlier values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, MutableMapping, Sequence

from cnngraph.importer.nodes import NO_LEVEL, SpecNode


class ValueNames:
    """Finds the name of a value, and names nodes whose values others read."""

    def __init__(self, inputs: Collection[str], children: MutableMapping[str, set[str]]) -> None:
        self._inputs = inputs
        self._children = children
        self._made: dict[str, tuple[list[SpecNode], SpecNode, str]] = {}
        self._count: Counter[tuple[str, str]] = Counter()

    def made(self, value: str, nodes: list[SpecNode], path: str) -> None:
        """Notes that the last of `nodes`, in the level at `path`, computes a value."""
        self._made[value] = nodes, nodes[-1], path

    def of(self, value: str, reader: str) -> str:
        """The name of a value for a node in the level at `reader`.

        The node that computes the value gets a name if it has none.
        """
        if value in self._inputs:
            return value
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
            self._children.setdefault(path, set()).add(node.name)
        node.weighted = True
        return self.relative(f"{path}.{node.name}".lstrip("."), reader)

    def relative(self, path: str, reader: str) -> str:
        """A path without the levels that it shares with the level at `reader`.

        More of it is left where a name in a level in between would be found first.
        """
        names, around = path.split("."), reader.split(".") if reader else []
        shared = 0
        while shared < min(len(names) - 1, len(around)) and names[shared] == around[shared]:
            shared += 1
        while shared and self._is_hidden(names[shared], around, shared):
            shared -= 1
        return ".".join(names[shared:])

    def _is_hidden(self, name: str, around: Sequence[str], shared: int) -> bool:
        """Whether a level of the reader below the shared ones has a child of this name."""
        deeper = (".".join(around[:length]) for length in range(shared + 1, len(around) + 1))
        return any(name in self._children.get(level, ()) for level in deeper)
