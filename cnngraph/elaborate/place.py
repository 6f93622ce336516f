"""What the walk passes along: the current value, the place in the spec, and the node as written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from cnngraph.errors import Position
from cnngraph.graph import Copy
from cnngraph.shape import TensorShape
from cnngraph.spec.spec import Block, Library
from cnngraph.spec.yaml import Located

MAX_NODES = 40_000
"""The walk visits at most this many nodes and repeated bodies."""
MAX_SOURCES = 20
"""A diagnostic explains at most this many shapes."""


class Value(NamedTuple):
    """The current value of the walk: its node's path and shape, both None after a mistake."""

    path: str | None
    shape: TensorShape | None
    aux: str = ""


INVALID = Value(None, None)


class Given(str):
    """A text given to a block. A value that it names is one that the caller sees.

    Attributes:
        level: the path of the level in which the call is written.
    """

    level: str

    @staticmethod
    def at(value: Any, level: str) -> Any:
        """An argument of a call in this level: its texts, unless passed on, become `Given`."""
        if type(value) is str:
            given = Given(value)
            given.level = level
            return given
        if isinstance(value, tuple):
            items = cast(tuple[Any, ...], value)
            return tuple(Given.at(item, level) for item in items)
        return value

    @staticmethod
    def plain(value: Any) -> Any:
        """The same argument with ordinary texts."""
        if type(value) is Given:
            return str(value)
        if isinstance(value, tuple):
            return tuple(map(Given.plain, cast(tuple[Any, ...], value)))
        return value


@dataclass
class Level:
    """A level of names: the path its nodes share, and how many it has so far."""

    path: str
    count: int = 0

    def take(self) -> str:
        """Counts one more node and returns its index, which names it unless it has a `name`."""
        self.count += 1
        return str(self.count - 1)

    def join(self, name: str) -> str:
        """The path of the node called `name` in this level."""
        return f"{self.path}.{name}" if self.path else name


class Place(NamedTuple):
    """Everything that depends on where in the spec the walk is.

    Attributes:
        variables: what expressions can see, apart from the shape variables.
        calls: the enclosing block calls, outermost first, with the positions of the calls.
        copies, loops: the enclosing repeats, outermost first, and their counters as text.
        aux: the path of the enclosing side head, or "".
        counted: the level whose indices count the copies of a repeat, and so are stable names.
        unused: True inside a block that is never called, whose surroundings are unknown.
    """

    level: Level
    library: Library
    variables: dict[str, Any]
    calls: tuple[tuple[Block, Position], ...] = ()
    copies: tuple[Copy, ...] = ()
    loops: tuple[str, ...] = ()
    aux: str = ""
    counted: Level | None = None
    unused: bool = False


@dataclass(frozen=True)
class Call:
    """One node as written: `{kind: arguments}`, with `name` separated from the other arguments.

    Attributes:
        bare: the argument given without its name, as in `linear: 10`.
        origin: the `from` of the node, the name of the value that it reads.
        init: how the weights of an op are initialised, where the node says so.
    """

    kind: str
    position: Position
    arguments: dict[str, Located]
    keys: dict[str, Position]
    bare: Located | None
    name: Located | None
    origin: Located | None = None
    init: Located | None = None

    @property
    def flat(self) -> bool:
        """Whether it says `name: ~`, so that its nodes belong to the enclosing level."""
        return self.name is not None and self.name.value is None
