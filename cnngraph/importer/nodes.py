"""The nodes of a spec under construction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cnngraph.shape import TensorShape

NO_LEVEL = "~"
"""The name of a composite that adds no level."""
COPIES = "*"
"""The name of a `repeat` or `dense` that may take over the level around it."""
OUTER = "^"
"""Stands in the name of a node for the name of the level around it, with which it starts."""
CHOICE = "?"
"""The kind of a node whose kind is a value, its argument `kind`."""


@dataclass
class SpecNode:
    """A node of a spec: an op, a composite or the call of a block.

    Attributes:
        kind: its op, composite or block.
        args: its arguments; those with the op's default values are left out.
        parts: the nodes of its `body`, `shortcut` or branches, by name.
        name: its name; empty if it has none, `NO_LEVEL` for `~`.
        input: the shape of the value that it reads.
        weighted: whether it is an op with parameters.
        path: for a level, the path of its module.
        result: for a level, the shape of its result.
        absent: whether it only keeps a place for the node that other copies have there.
    """

    kind: str
    args: dict[str, Any] = field(default_factory=dict[str, Any])
    parts: dict[str, list[SpecNode]] = field(default_factory=dict[str, "list[SpecNode]"])
    name: str = ""
    input: TensorShape = field(default_factory=lambda: TensorShape((1,)))
    weighted: bool = False
    path: str = ""
    result: TensorShape | None = None
    absent: bool = False

    def walk(self) -> Iterator[SpecNode]:
        """This node and all nodes in it."""
        yield self
        for part in self.parts.values():
            for node in part:
                yield from node.walk()

    @property
    def ops(self) -> int:
        """The number of ops in it."""
        return sum(not node.parts for node in self.walk())
