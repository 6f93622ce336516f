"""YAML text -> plain values with their positions.

Values are built from PyYAML's events without recursion, so that size, depth and alias expansion are
bounded before anything is constructed. Scalars follow the core schema of YAML 1.2: `1e-3` is a
number, `no` and `on` are text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

import yaml

from cnngraph.errors import MAX_MISTAKES, Diagnostic, Position, Source, SpecError, fail
from cnngraph.spec.yaml_errors import explain, explain_character

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000

_INT = re.compile(r"[-+]?(0x[0-9a-fA-F]+|0o[0-7]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | float | None] = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
    **dict.fromkeys([".inf", "+.inf"], float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}
_NODES = ("graph", "body", "shortcut")
"""Keys whose value is a node or a list of nodes."""
_MAX_DIGITS = 18
_MAX_CACHED = 1 << 16
"""Characters of the longest text whose values are kept for the next time."""


_NO_KEYS: dict[str, Position] = {}


@dataclass(slots=True)
class Located:
    """A YAML value with its position. Lists contain `Located`, mappings `Located` by key.

    Attributes:
        keys: positions of a mapping's keys.
        size: how many values it contains, itself included, with aliases expanded.
    """

    value: dict[str, Located] | list[Located] | str | int | float | None
    position: Position
    keys: dict[str, Position] = field(default_factory=lambda: _NO_KEYS)
    size: int = 1

    @property
    def entries(self) -> dict[str, Located]:
        """The entries of a mapping; none for other values."""
        return self.value if isinstance(self.value, dict) else {}

    @property
    def items(self) -> list[Located]:
        """The items of a list; none for other values."""
        return self.value if isinstance(self.value, list) else []

    def plain(self) -> Any:
        """The value without positions; sequences become tuples."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return tuple(item.plain() for item in self.value)
        return self.value

    def same(self, other: Located) -> bool:
        """Whether both are written alike. Stops at the first difference."""
        one, two = self.value, other.value
        if isinstance(one, dict) and isinstance(two, dict):
            return one.keys() == two.keys() and all(one[key].same(two[key]) for key in one)
        if isinstance(one, list) and isinstance(two, list):
            return len(one) == len(two) and all(map(Located.same, one, two))
        return type(one) is type(two) and one == two

    def at(self, location: tuple[int | str, ...]) -> Position:
        """The position of the value that `location` leads to, as far as it can be followed."""
        return self.follow(location).position

    def follow(self, location: tuple[int | str, ...]) -> Located:
        """The value that `location` leads to, as far as it can be followed."""
        here = self
        for step in location:
            if isinstance(here.value, dict) and step in here.value:
                here = here.value[step]
            elif isinstance(here.value, list) and isinstance(step, int) and step < len(here.value):
                here = here.value[step]
            else:
                break
        return here


def read_source(path: Path, name: str, reach: Path | None = None) -> Source:
    """Reads a spec file, called `name` in messages.

    The file is opened once, and read up to the limit. A pipe or a device is not read.

    Args:
        reach: the folder that the file must be in when links are followed.

    Raises:
        SpecError: the file cannot be read.
    """
    try:
        real = os.path.realpath(path)
        if reach is not None and not Path(real).is_relative_to(reach):
            raise fail(
                "E001", f"{name} is out of reach: it is a link out of the folder above the spec"
            )
        descriptor = os.open(real, _OPEN_FLAGS)
        try:
            status = os.fstat(descriptor)
            if not S_ISREG(status.st_mode):
                kind = "a folder, not a file" if S_ISDIR(status.st_mode) else "not a regular file"
                raise fail("E001", f"cannot read {name}: it is {kind}")
            _check_size(name, status.st_size)
            with open(descriptor, "rb", closefd=False) as file:
                return decode(file.read(MAX_BYTES + 1), name)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise fail("E001", f"cannot read {name}: it does not exist") from None
    except OSError as error:
        raise fail("E001", f"cannot read {name}: {error.strerror or error}") from None
    except ValueError:  # a path with NUL, or one that cannot be encoded
        raise fail("E001", f"cannot read {name}: this cannot be the name of a file") from None


def decode(data: bytes, name: str) -> Source:
    """The text in `data`. Raises `SpecError` if it is too large, or not UTF-8."""
    _check_size(name, len(data))
    try:
        return Source(name, data.decode("utf-8"))
    except UnicodeDecodeError:
        raise fail("E001", f"cannot read {name}: it is not UTF-8 text") from None


_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        message = f"{name} has {size:,} bytes; a spec has at most {MAX_BYTES:,}"
        notes = (("help", "express repeated parts with `repeat`, `dense` or a block"),)
        raise fail("E004", message, notes=notes)


def parse_yaml(source: Source) -> Located:
    """Parses one YAML document. Raises `SpecError` with all duplicate keys, or one syntax error."""
    _check_size(source.name, len(source.text))
    return _parse_cached(source) if len(source.text) <= _MAX_CACHED else _Builder(source).build()


@lru_cache(maxsize=32)
def _parse_cached(source: Source) -> Located:
    return _Builder(source).build()


class _Builder:
    """Turns parse events into `Located` values with an explicit stack."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.diagnostics: list[Diagnostic] = []
        self.anchors: dict[str, Located] = {}
        self.open: list[_Open] = []
        self.root: Located | None = None

    def build(self) -> Located:
        for event in self._events():
            if isinstance(event, yaml.ScalarEvent):
                self._add(Located(self._scalar(event), self._position(event)), event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._alias(event), None)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._start(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = self.open.pop()
                self._add(done.located(), done.anchor)
            elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                raise fail("E002", "a spec must be a single YAML document", self._position(event))
        if self.diagnostics:
            raise SpecError(self.diagnostics)
        if self.root is None:
            raise fail("E002", f"{self.source.name} is empty", Position(self.source, 1, 1))
        return self.root

    def _events(self) -> Iterator[Any]:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(self.source.text, Loader=loader)  # pyright: ignore
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            if (deep := _too_deep(self.source, mark)) is not None:
                raise _nested_too_deep(deep) from None
            if isinstance(error, yaml.MarkedYAMLError):
                raise SpecError([explain(error, self.source)]) from None
            raise SpecError([explain_character(self.source)]) from None

    def _position(self, event: Any) -> Position:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Position(self.source, start.line + 1, start.column + 1, max(1, width))

    def _start(self, event: Any) -> None:
        self._refuse_tag(event)
        position = self._position(event)
        if len(self.open) >= MAX_DEPTH:
            raise _nested_too_deep(position)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if self.open and self.open[-1].awaits_key:
            braces = mapping and self.open[-1].position.line == position.line
            help = (("help", 'write an expression in quotes: "${...}"'),) if braces else ()
            raise fail("E002", "a key must be plain text", position, notes=help)
        self.open.append(_Open(mapping, position, event.anchor))

    def _alias(self, event: Any) -> Located:
        if event.anchor not in self.anchors:
            message = f"the alias `*{event.anchor}` has no anchor before it"
            raise fail("E002", message, self._position(event))
        return self.anchors[event.anchor]

    def _scalar(self, event: Any) -> bool | int | float | str | None:
        self._refuse_tag(event)
        text = event.value
        if not event.implicit[0] or (self.open and self.open[-1].awaits_key):
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INT.fullmatch(text):
            if len(text) > _MAX_DIGITS:
                raise fail("E103", "this number is too large", self._position(event))
            digits = text.replace("_", "")
            based = digits.lstrip("+-").lower().startswith(("0x", "0o"))
            return int(digits, 0 if based else 10)
        return float(text) if _FLOAT.fullmatch(text) else text

    def _refuse_tag(self, event: Any) -> None:
        if event.tag and event.tag != "!":
            message = f"YAML tags such as `{event.tag}` are not allowed"
            raise fail("E002", message, self._position(event))

    def _add(self, item: Located, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = item
        if not self.open:
            self.root = item
            return
        parent = self.open[-1]
        if parent.awaits_key:
            self._add_key(parent, item)
        elif parent.key is not None:
            parent.mapping.setdefault(parent.key, item)
            parent.key = None
        else:
            parent.items.append(item)
        parent.size += item.size
        if parent.size > MAX_VALUES:
            message = f"the document has more than {MAX_VALUES:,} values with aliases expanded"
            raise fail("E004", message, item.position)

    def _add_key(self, parent: _Open, item: Located) -> None:
        key = item.value
        if not isinstance(key, str):
            raise fail("E002", "a key must be plain text", item.position)
        if key == "<<":
            message = "merge keys (`<<`) are not supported"
            notes = (("help", "write all keys, or make a block with params"),)
            self.diagnostics.append(Diagnostic("E002", message, item.position, notes=notes))
        elif key in parent.keys:
            outer = self.open[-2].key if len(self.open) > 1 else None
            is_node = outer in _NODES
            self.diagnostics.append(_appears_twice(key, parent.keys[key], item.position, is_node))
        if len(self.diagnostics) >= MAX_MISTAKES:
            raise SpecError(self.diagnostics)
        parent.key = key
        parent.keys.setdefault(key, item.position)


class _Open:
    """A mapping or sequence whose end has not been reached."""

    def __init__(self, is_mapping: bool, position: Position, anchor: str | None) -> None:
        self.is_mapping = is_mapping
        self.position = position
        self.anchor = anchor
        self.items: list[Located] = []
        self.mapping: dict[str, Located] = {}
        self.keys: dict[str, Position] = {}
        self.key: str | None = None
        self.size = 1

    @property
    def awaits_key(self) -> bool:
        return self.is_mapping and self.key is None

    def located(self) -> Located:
        value = self.mapping if self.is_mapping else self.items
        return Located(value, self.position, self.keys, self.size)


def _appears_twice(key: str, first: Position, second: Position, is_node: bool) -> Diagnostic:
    lines = f"lines {first.line} and {second.line}"
    where = f"line {first.line}" if first.line == second.line else lines
    help = "remove one of them, or give it another name"
    if is_node:
        help = f"write the nodes as a list, each with a dash of its own: `- {key}: ...`"
    message = f"the key `{key}` appears twice, at {where}"
    notes = (("help", help),)
    return Diagnostic("E003", message, second, label="second time here", notes=notes)


def _nested_too_deep(position: Position) -> SpecError:
    return fail("E004", f"values are nested more than {MAX_DEPTH} levels deep", position)


def _too_deep(source: Source, mark: yaml.Mark | None) -> Position | None:
    """Where brackets before `mark` are nested too deep, or None.

    The parser looks ahead, so that its own limit may come before the events that `_start` counts.
    """
    depth = 0
    for line, text in enumerate(source.text.split("\n"), start=1):
        for match in re.finditer(r"[\[{\]}]", text):
            if mark is not None and (line - 1, match.start()) >= (mark.line, mark.column):
                return None
            depth += 1 if match[0] in "[{" else -1
            if depth > MAX_DEPTH:
                return Position(source, line, match.start() + 1)
    return None
