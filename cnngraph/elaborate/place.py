"""What is handed along the walk over a spec: the current value, the place it is at, and the node as written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnngraph.elaborate.naming import Level
from cnngraph.errors import Position
from cnngraph.graph import Copy
from cnngraph.shape import TensorShape
from cnngraph.spec.loader import Block, Library
from cnngraph.spec.yaml import Located

MAX_NODES = 50_000
"""How many nodes and repeated bodies the walk visits at most."""
MAX_SOURCES = 20
"""Of how many values at most a diagnostic says where they come from."""


@dataclass(frozen=True)
class Value:
    """What flows through the walk: the path of a node and its shape, both None after a mistake."""

    path: str | None
    shape: TensorShape | None
    aux: str = ""


LOST = Value(None, None)


@dataclass(frozen=True)
class Place:
    """Everything that depends on where in the spec the walk stands."""

    level: Level
    library: Library
    variables: dict[str, Any]
    calls: tuple[tuple[Block, Position], ...] = ()
    copies: tuple[Copy, ...] = ()
    loops: tuple[str, ...] = ()
    aux: str = ""
    counted: Level | None = None
    """The level whose indices count the copies of a repeat, and so are names that last."""
    unused: bool = False
    """Whether this is a block that nothing calls: what is around it cannot be known."""


@dataclass(frozen=True)
class Call:
    """One node as written: `{kind: arguments}`, its name taken out of the arguments."""

    kind: str
    position: Position
    arguments: dict[str, Located]
    keys: dict[str, Position]
    bare: Located | None
    name: Located | None

    @property
    def flat(self) -> bool:
        """Whether it says `name: ~`: no level of its own."""
        return self.name is not None and self.name.value is None
