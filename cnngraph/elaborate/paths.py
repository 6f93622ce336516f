"""The paths of nodes: which are taken, which value a name refers to, and which are fragile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from cnngraph.elaborate.diagnostics import Diagnostics
from cnngraph.elaborate.evaluator import Evaluator
from cnngraph.elaborate.naming import free_name, name_problem
from cnngraph.elaborate.place import INVALID, Call, Given, Level, Place, Value
from cnngraph.errors import Diagnostic, Notes, Position, closest
from cnngraph.spec.arguments import InvalidError
from cnngraph.spec.yaml import Located

MAX_PATH = 500
_MOST_SUGGESTED = 3
_MOST_CONSIDERED = 2000
"""At most so many of the latest values are considered for a suggestion."""


class Paths:
    """Gives nodes their paths, and finds values by name.

    Attributes:
        taken: each path in use -> where its node is written.
        values: the value at each path; `INVALID` until the node is finished, and after a mistake.
        inputs: the names of the network's inputs.
        containers: the paths of the levels that names with dots open.
    """

    def __init__(
        self, diagnostics: Diagnostics, evaluator: Evaluator, graph: Located | None
    ) -> None:
        """`graph` is the network as written, for suggestions."""
        self._graph = graph
        self._written: dict[int, dict[str, Position]] = {}
        self._diagnostics = diagnostics
        self._evaluator = evaluator
        self.taken: dict[str, Position] = {}
        self.values: dict[str, Value] = {}
        self.containers: set[str] = set()
        self.inputs: set[str] = set()
        self._valid: set[str] = set()
        self._misnamed: set[str] = set()
        self._numbered: dict[str, Call] = {}
        self._unnamed: Counter[tuple[str, str]] = Counter()

    def assign(self, call: Call, place: Place, value: Value, own: str | None) -> str:
        """Claims a path for a node and returns it: `own` for a node without a name, if given."""
        if call.name is None and own is not None:
            return own
        index = place.level.take()
        if call.name is None:
            path = place.level.join(index)
            self.claim(path, place, call.position, unnamed=True)
            if place.level is not place.counted:
                self._numbered[path] = call
            return path
        name = self._evaluator.resolve(call.name, place, value.shape)
        level = place.level
        if isinstance(name, int | str) and not isinstance(name, bool):
            name = str(name)
            if "." in name:
                *outer, name = name.split(".")
                self._evaluator.spend(len(outer), place, call.position)
                for part in outer:
                    level = self._opened(level, part, index, place, call.name.position)
        path = level.join(self.checked_name(name, index, place, call.name.position))
        self.claim(path, place, call.name.position)
        return path

    def _opened(
        self, level: Level, name: str, index: str, place: Place, position: Position
    ) -> Level:
        """A level that a name with dots opens or continues: `convs` of `convs.0`."""
        path = level.join(self.checked_name(name, index, place, position))
        if path in self.taken and path not in self.containers:
            message = f"`{path}` is a node, so no other node can be in it"
            help = "only a level that names with dots open can be continued"
            self._diagnostics.fail(place, "E108", message, position, notes=(("help", help),))
        self.containers.add(path)
        self.taken.setdefault(path, position)
        return Level(path)

    def claim(self, path: str, place: Place, position: Position, unnamed: bool = False) -> None:
        """Marks a path as taken. Raises `InvalidError` if it is taken already, or too long."""
        if len(path) > MAX_PATH:
            message = f"a path has at most {MAX_PATH} characters; this one has {len(path):,}"
            self._diagnostics.fail(place, "E110", message, position)
        if path in self.taken:
            self._duplicate(path, place, position, unnamed)
        self.taken[path] = position
        self.values[path] = INVALID

    def checked_name(self, name: Any, index: str, place: Place, position: Position) -> str:
        """`name`, or after reporting that it is no valid name, `index`."""
        if isinstance(name, str) and name in self._valid:
            return name
        problem = name_problem(name)
        if problem is None:
            self._valid.add(name)
            return name
        notes: Notes = ()
        if isinstance(name, str):
            self._misnamed.add(name)
            free = free_name(name)
            notes = (("help", f"`{free}` is valid"),) if free else ()
        self._diagnostics.report(Diagnostic("E116", problem, position, notes=notes), place)
        if self._diagnostics.stopped:
            raise InvalidError
        return index

    def _duplicate(self, path: str, place: Place, position: Position, unnamed: bool) -> NoReturn:
        line = self.taken[path].line
        notes = [("note", f"the other node is at line {line}")]
        if unnamed or path in self._numbered:
            notes.append(("note", "a node without a `name` is called by its index"))
            notes.append(("help", "give the node without a `name` one"))
        if place.copies:
            notes.append(("help", "inside a repeat, put the counter in the name: `name: conv${i}`"))
        elif not unnamed and self.values.get(path, INVALID).path and path not in self.inputs:
            name = path.rpartition(".")[2]
            notes.append(("help", f"to use the weights of `{path}` again, write `share: {name}`"))
        message = f"two nodes are called `{path}`"
        self._diagnostics.fail(place, "E108", message, position, notes=tuple(notes))

    def anonymous(self, level: Level, kind: str) -> str:
        """A path for an implicit node, such as the sum of a residual; no spec can refer to it."""
        self._unnamed[level.path, kind] += 1
        count = self._unnamed[level.path, kind]
        return level.join(f"({kind}{count if count > 1 else ''})")

    def invalidate(self, call: Call, place: Place) -> None:
        """Notes the name of a node with a mistake, so that joins with it are not reported too."""
        name = call.name.value if call.name is not None else None
        if isinstance(name, str):
            self.values.setdefault(place.level.join(name), INVALID)

    def lookup(self, name: str, place: Place, position: Position, own: str | None = None) -> Value:
        """An earlier value by name, searched in the node's own level first, then outwards.

        A name given to a block is searched from the level of the call. The node itself (`own`) and
        the nodes that enclose it are unfinished, so they are skipped. Raises `InvalidError` after
        reporting that there is no such value.
        """
        return self.values[self.locate(name, place, position, own)]

    def locate(self, name: str, place: Place, position: Position, own: str | None = None) -> str:
        """The path of an earlier value, as `lookup` finds it."""
        fail = partial(self._diagnostics.fail, place, "E109")
        unfinished = False
        prefix = name.level if isinstance(name, Given) else place.level.path
        levels = (1 + prefix.count(".")) * (1 + name.count("."))
        self._evaluator.spend(levels // 2, place, position)
        while True:
            candidate = f"{prefix}.{name}" if prefix else name
            if candidate == own or _encloses(candidate, place.level.path):
                unfinished = True
            elif candidate in self.values:
                value = self.values[candidate]
                if value.aux not in ("", place.aux):
                    head = f"the side head `{value.aux}`, which exists in training only"
                    fail(f"`{name}` belongs to {head}", position)
                return candidate
            elif self._is_hidden(candidate, prefix, place):
                raise InvalidError
            if not prefix:
                break
            prefix = prefix.rpartition(".")[0]
        if place.unused or not self._misnamed.isdisjoint(name.split(".")):
            raise InvalidError
        if unfinished:
            help = "use an earlier node: a node cannot read its own result or that of one around it"
            fail(f"`{name}` is not finished here", position, notes=(("help", help),))
        message = f"no earlier node is called `{name}`"
        fail(message, position, notes=partial(self._similar, name, place, position))

    def _is_hidden(self, path: str, level: str, place: Place) -> bool:
        """Whether the value at `path` may be missing because of a mistake around it in `level`."""
        while (path := path.rpartition(".")[0]) != level:
            if not _encloses(path, place.level.path) and path in self.values:
                return self.values[path].shape is None
        return False

    def _similar(self, name: str, place: Place, position: Position) -> Notes:
        """Suggests earlier values for an unknown name, the latest first."""
        if isinstance(name, Given):
            return (("help", "a name given to a block is one that its caller can use"),)
        later = self._written_names(place).get(name)
        if later and (later.line, later.column) > (position.line, position.column):
            note = f"the node `{name}` at line {later.line} is computed after this one"
            return (("note", note), ("help", "move it up, or this node down"))
        earlier = [
            path
            for path, value in islice(reversed(self.values.items()), _MOST_CONSIDERED)
            if not path.rpartition(".")[2].isdigit()
            and value.aux in ("", place.aux)
            and not _encloses(path, place.level.path)
        ]
        found = [path for path in earlier if path.endswith(f".{name}")]
        if not found and (close := closest(name, earlier)):
            found = [close]
        if not found and (close := closest(name, (path.rpartition(".")[2] for path in earlier))):
            found = [path for path in earlier if path.rpartition(".")[2] == close]
        if found:
            near = (f"`{_as_seen(path, place.level.path)}`" for path in found[:_MOST_SUGGESTED])
            return (("help", f"did you mean {' or '.join(near)}?"),)
        return (("help", "give the intended node a `name`; it must come before this node"),)

    def _written_names(self, place: Place) -> dict[str, Position]:
        """The names of nodes in the text of the enclosing block, or of the network."""
        body = place.calls[-1][0].body if place.calls else self._graph
        if id(body) not in self._written:
            names = self._written[id(body)] = {}
            waiting = [body] if body is not None else []
            while waiting:
                located = waiting.pop()
                waiting += [*located.items, *located.entries.values()]
                if (name := located.entries.get("name")) and isinstance(name.value, str):
                    names.setdefault(name.value, name.position)
        return self._written[id(body)]

    def warn_of_numbers(self, weighted: Iterable[str]) -> None:
        """Warns of weights whose keys would change if a node were inserted before them.

        These are nodes named by their index in a level that has names as well; a level of indices
        only is how `nn.Sequential` is written. `weighted` are the paths of nodes with weights.
        """
        unnamed: list[str] = []
        mixed: set[str] = set()
        seen: set[str] = set()
        for path in weighted:
            while path and path not in seen:
                seen.add(path)
                level, _, name = path.rpartition(".")
                if path in self._numbered:
                    unnamed.append(path)
                elif not name.isdigit():
                    mixed.add(level)
                path = level
        by_line: dict[str, str] = {}
        for path in unnamed:
            if path.rpartition(".")[0] in mixed:
                by_line.setdefault(str(self._numbered[path].position), path)
        for path in by_line.values():
            call = self._numbered[path]
            message = f"the keys of the weights of `{path}` would change if a node were inserted"
            notes = (("help", f"give the {call.kind} a `name`"),)
            warning = Diagnostic("W401", message, call.position, path=path, notes=notes)
            self._diagnostics.report(warning)


def _encloses(path: str, level: str) -> bool:
    """Whether the node at `path` contains the nodes of a level, and so is unfinished there."""
    return level == path or level.startswith(f"{path}.")


def _as_seen(path: str, level: str) -> str:
    """The name by which a node of `level` finds `path`: its last part if its level is around."""
    parent, _, name = path.rpartition(".")
    return name if not parent or _encloses(parent, level) else path
