"""The walk, as composites see it."""

from __future__ import annotations

from typing import Protocol

from cnngraph.elaborate.builder import GraphBuilder
from cnngraph.elaborate.calls import Calls
from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import Evaluator
from cnngraph.elaborate.paths import Paths
from cnngraph.elaborate.place import Call, Place, Value
from cnngraph.errors import Position
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
