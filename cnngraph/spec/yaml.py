"""YAML text -> plain values that remember where they stand.

Built from PyYAML's event stream, without recursion, so that size, depth and alias expansion are bounded before anything
is constructed. Scalars follow YAML 1.2's core schema: `1e-3` is a number, `no` and `on` are strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cnngraph.errors import Diagnostic, Position, Source, SpecError, fail
from cnngraph.spec.yaml_errors import explain

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
_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Located:
    """A YAML value with its position; lists hold `Located`, mappings `Located` by key."""

    value: Any
    position: Position
    keys: dict[str, Position] = field(default_factory=dict)
    size: int = 1

    def plain(self) -> Any:
        """The value without positions; sequences become tuples."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return tuple(item.plain() for item in self.value)
        return self.value

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


def read_source(path: Path, name: str) -> Source:
    """Reads a spec file; a `SpecError` says what stands in the way."""
    try:
        if not path.is_file():
            exists = "is not an ordinary file" if path.exists() else "does not exist"
            problem = "is a folder, not a file" if path.is_dir() else exists
            raise fail("E001", f"cannot read {name}: it {problem}")
        _check_size(name, path.stat().st_size)
        return Source(name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise fail("E001", f"cannot read {name}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise fail("E001", f"cannot read {name}: {error.strerror or error}") from None


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        notes = (("help", "say repeated parts with `repeat`, `dense` or a block"),)
        raise fail("E004", f"{name} has {size:,} bytes; a spec has at most {MAX_BYTES:,}", notes=notes)


def parse_yaml(source: Source) -> Located:
    """Parses one YAML document; raises `SpecError` with every duplicate key, or the first syntax error."""
    _check_size(source.name, len(source.text))
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
            if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                raise fail("E002", "a spec is one YAML document", self._position(event))
            if isinstance(event, yaml.ScalarEvent):
                self._add(Located(self._scalar(event), self._position(event)), event.anchor)
            elif isinstance(event, yaml.AliasEvent):
                self._add(self._alias(event), None)
            elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                self._start(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                done = self.open.pop()
                self._add(done.located(), done.anchor)
        if self.diagnostics:
            raise SpecError(self.diagnostics)
        if self.root is None:
            raise fail("E002", f"{self.source.name} is empty", Position(self.source, 1, 1))
        return self.root

    def _events(self) -> Iterator[Any]:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            yield from yaml.parse(self.source.text, Loader=loader)
        except yaml.MarkedYAMLError as error:
            raise SpecError([explain(error, self.source)]) from None
        except yaml.YAMLError as error:
            message = str(error).splitlines()[0]
            raise fail("E002", f"{self.source.name} is not YAML: {message}") from None

    def _position(self, event: Any) -> Position:
        start, end = event.start_mark, event.end_mark
        width = end.column - start.column if end.line == start.line else 1
        return Position(self.source, start.line + 1, start.column + 1, max(1, width))

    def _start(self, event: Any) -> None:
        self._refuse_tag(event)
        position = self._position(event)
        if len(self.open) >= MAX_DEPTH:
            raise fail("E004", f"nested more than {MAX_DEPTH} levels deep", position)
        mapping = isinstance(event, yaml.MappingStartEvent)
        if self.open and self.open[-1].awaits_key:
            braces = mapping and self.open[-1].position.line == position.line
            help = (("help", 'for an expression, write "${...}", in quotes'),) if braces else ()
            raise fail("E002", "a key must be a plain word", position, notes=help)
        self.open.append(_Open(mapping, position, event.anchor))

    def _alias(self, event: Any) -> Located:
        if event.anchor not in self.anchors:
            raise fail(
                "E002",
                f"the alias `*{event.anchor}` names no anchor finished before it",
                self._position(event),
            )
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
        if _FLOAT.fullmatch(text):
            return float(text)
        return text

    def _refuse_tag(self, event: Any) -> None:
        if event.tag and event.tag != "!":
            raise fail(
                "E002", f"YAML tags such as `{event.tag}` are not part of a spec",
                self._position(event),
            )  # fmt: skip

    def _add(self, item: Located, anchor: str | None) -> None:
        if anchor:
            self.anchors[anchor] = item
        if not self.open:
            self.root = item
            return
        parent = self.open[-1]
        if parent.awaits_key:
            if not isinstance(item.value, str):
                raise fail("E002", "a key must be a plain word", item.position)
            if item.value == "<<":
                notes = (("help", "write the keys out, or make a block with params of what is shared"),)
                self.diagnostics.append(
                    Diagnostic("E002", "merge keys (`<<`) are not supported", item.position, notes=notes)
                )
            elif item.value in parent.keys:
                self._duplicate(item.value, parent.keys[item.value], item.position)
            parent.key = item.value
            parent.keys.setdefault(item.value, item.position)
        elif parent.key is not None:
            parent.mapping.setdefault(parent.key, item)
            parent.key = None
        else:
            parent.items.append(item)
        parent.size += item.size
        if parent.size > MAX_VALUES:
            raise fail(
                "E004",
                f"the document holds more than {MAX_VALUES:,} values once its aliases are expanded",
                item.position,
            )

    def _duplicate(self, key: str, first: Position, second: Position) -> None:
        self.diagnostics.append(
            Diagnostic(
                "E003",
                f"the key `{key}` is given twice",
                second,
                label="again here",
                notes=(("note", f"first given at line {first.line}"),),
            )
        )


class _Open:
    """A mapping or sequence whose end has not been seen yet."""

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
