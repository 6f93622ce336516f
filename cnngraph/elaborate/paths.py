"""The paths of nodes: who takes which, which value a name means, and which paths are fragile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from cnngraph.elaborate.naming import Level, free_name, name_problem
from cnngraph.elaborate.place import LOST, Call, Place, Value
from cnngraph.elaborate.resolving import Resolving
from cnngraph.errors import MAX_MISTAKES, Diagnostic, Notes, Position, closest
from cnngraph.spec.arguments import InvalidError

MAX_PATH = 500
_MOST_SUGGESTED = 3


class Paths(Resolving):
    """Gives nodes their paths, and finds values by them."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: dict[str, Position] = {}
        self.values: dict[str, Value] = {}
        self.misnamed: set[str] = set()
        self.numbered: dict[str, Call] = {}
        self.unnamed: Counter[tuple[str, str]] = Counter()

    def path(self, call: Call, place: Place, value: Value, own: str | None) -> str:
        """The path of a node, which it claims, unless it is called by `own`."""
        if call.name is None and own is not None:
            return own
        index = place.level.take()
        if call.name is None:
            name = index
        else:
            name = self.resolve(call.name, place, value.shape)
            name = self.checked_name(str(name) if type(name) is int else name, index, place, call.name.position)
        path = place.level.join(name)
        self.claim(path, place, call.name.position if call.name else call.position)
        if call.name is None and place.level is not place.counted:
            self.numbered[path] = call
        return path

    def claim(self, path: str, place: Place, position: Position) -> None:
        if len(path) > MAX_PATH:
            self.fail(place, "E110", f"a path has at most {MAX_PATH} characters, not {len(path):,}", position)
        if path in self.taken:
            self.duplicate(path, place, position)
        self.taken[path] = position
        self.values[path] = LOST

    def checked_name(self, name: Any, index: str, place: Place, position: Position) -> str:
        """A node's name; its `index` where it cannot have that name, which is reported."""
        problem = name_problem(name)
        if problem is None:
            return name
        notes: Notes = ()
        if isinstance(name, str):
            self.misnamed.add(name)
            free = free_name(name)
            notes = (("help", f"`{free}` is free"),) if free else ()
        self.report(Diagnostic("E116", problem, position, notes=notes), place)
        if self.stopped:
            raise InvalidError
        return index

    def duplicate(self, path: str, place: Place, position: Position) -> NoReturn:
        first = self.taken[path]
        notes = [("note", f"the other one is at line {first.line}")]
        if place.copies:
            notes.append(("help", "in a repeat a name needs the counter: `name: conv${i}`"))
        self.fail(place, "E108", f"two nodes are called `{path}`", position, notes=tuple(notes))

    def anonymous(self, level: Level, kind: str) -> str:
        """A path for a node that has no place among the names: no spec can spell it."""
        self.unnamed[level.path, kind] += 1
        count = self.unnamed[level.path, kind]
        return level.join(f"({kind}{count if count > 1 else ''})")

    def lose(self, call: Call, place: Place) -> None:
        """Notes the name of a node with a mistake: joins with it are not at fault."""
        name = call.name.value if call.name is not None else None
        if isinstance(name, str):
            self.values.setdefault(place.level.join(name), LOST)

    def lookup(self, name: str, place: Place, position: Position, own: str | None = None) -> Value:
        """An earlier value by its name: looked for beside this node, then outwards.

        What is still being made, `own` and what is around this node, is not there yet.
        """
        unfinished = ""
        prefix = place.level.path
        while True:
            candidate = f"{prefix}.{name}" if prefix else name
            if candidate == own or _holds(candidate, place.level.path):
                unfinished = unfinished or candidate
            elif candidate in self.values:
                value = self.values[candidate]
                if value.aux not in ("", place.aux):
                    message = f"`{name}` belongs to the side head `{value.aux}`, which exists in training only"
                    self.fail(place, "E109", message, position)
                return value
            elif self.is_lost(candidate, place):
                raise InvalidError
            if not prefix:
                break
            prefix = prefix.rpartition(".")[0]
        if place.unused or not self.misnamed.isdisjoint(name.split(".")):
            raise InvalidError
        if unfinished:
            help = "name a node before this one: a node cannot read its own result, nor that of what it stands in"
            self.fail(place, "E109", f"`{name}` is not finished here", position, notes=(("help", help),))
        message = f"no earlier node is called `{name}`"
        self.fail(place, "E109", message, position, notes=partial(self.similar, name, place))

    def is_lost(self, path: str, place: Place) -> bool:
        """Whether a mistake hides what would be at `path`."""
        while path := path.rpartition(".")[0]:
            if not _holds(path, place.level.path) and path in self.values:
                return self.values[path].shape is None
        return False

    def similar(self, name: str, place: Place) -> Notes:
        """Which of the values so far a name that is not known may mean; the last ones are the likeliest."""
        earlier = [
            path
            for path, value in reversed(self.values.items())
            if not path.rpartition(".")[2].isdigit()
            and value.aux in ("", place.aux)
            and not _holds(path, place.level.path)
        ]
        found = [path for path in earlier if path.endswith(f".{name}")]
        if not found and (close := closest(name, earlier)):
            found = [close]
        if not found and (close := closest(name, (path.rpartition(".")[2] for path in earlier))):
            found = [path for path in earlier if path.rpartition(".")[2] == close]
        if found:
            near = (_as_seen(path, place.level.path) for path in found[:_MOST_SUGGESTED])
            return (("help", f"did you mean {' or '.join(f'`{path}`' for path in near)}?"),)
        return (("help", "give the node you mean a `name`; only values before this node can be used"),)

    def warn_of_numbers(self, holders: Iterable[str]) -> None:
        """Numbered names shift when a node is inserted; harmless where a level has numbers only.

        `holders` are the paths of nodes with weights. A number that is written as a name is neither.
        """
        unnamed: list[str] = []
        mixed: set[str] = set()
        seen: set[str] = set()
        for path in holders:
            while path and path not in seen:
                seen.add(path)
                level, _, name = path.rpartition(".")
                if path in self.numbered:
                    unnamed.append(path)
                elif not name.isdigit():
                    mixed.add(level)
                path = level
        told: dict[str, str] = {}
        for path in unnamed:
            if path.rpartition(".")[0] in mixed:
                told.setdefault(str(self.numbered[path].position), path)
        for path in islice(told.values(), MAX_MISTAKES):
            call = self.numbered[path]
            message = f"the weights of `{path}` are kept under a number, which inserting a node would shift"
            notes = (("help", f"give the {call.kind} a `name`"),)
            self.report(Diagnostic("W401", message, call.position, path=path, notes=notes))
        if len(told) > MAX_MISTAKES:
            message = f"so are those of other nodes, at {len(told) - MAX_MISTAKES:,} more places"
            self.report(Diagnostic("W401", message))


def _holds(path: str, level: str) -> bool:
    """Whether what is at `path` holds the nodes of a level, and so is not finished there."""
    return level == path or level.startswith(f"{path}.")


def _as_seen(path: str, level: str) -> str:
    """The name by which a node of `level` finds what is at `path`: its last part, if its own level is around."""
    parent, _, name = path.rpartition(".")
    return name if not parent or _holds(parent, level) else path
