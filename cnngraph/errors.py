"""Positions in source files, diagnostics, and how they are shown."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from heapq import nsmallest
from itertools import islice
from typing import Any, NamedTuple, TypeGuard

CODES = {
    "E001": "unreadable-file",
    "E002": "bad-yaml",
    "E003": "duplicate-key",
    "E004": "too-large",
    "E101": "unknown-key",
    "E102": "missing-argument",
    "E103": "wrong-value",
    "E104": "unknown-op",
    "E105": "bad-expression",
    "E106": "recursive-block",
    "E107": "not-a-node",
    "E108": "duplicate-path",
    "E109": "unknown-value",
    "E110": "over-limit",
    "E111": "bad-import",
    "E112": "bad-extends",
    "E113": "unknown-param",
    "E114": "duplicate-block",
    "E115": "bad-plugin",
    "E116": "bad-name",
    "E117": "code-not-allowed",
    "E118": "bad-module",
    "E201": "shape-mismatch",
    "E202": "input-too-small",
    "E203": "wrong-rank",
    "E204": "contradicting-arguments",
    "E301": "expectation-failed",
    "W401": "fragile-name",
    "W402": "single-value-norm",
    "W403": "joined-twice",
    "W404": "input-order",
    "W405": "unused-value",
    "W406": "shared-by-name",
}
"""Every diagnostic: stable code -> stable name. `E` is an error, `W` a warning."""

MAX_MISTAKES = 100
"""At most this many errors are reported; more are seldom read, and not worth waiting for."""

Notes = tuple[tuple[str, str], ...]
"""The lines below a diagnostic: pairs of a kind (`from`, `called`, `note`, `help`) and a text."""


class CnngraphError(Exception):
    """Base of the errors that this package raises on purpose; the text is for the user."""


@dataclass(frozen=True)
class Source:
    """The text of a spec file, and the name that messages show for it."""

    name: str
    text: str = field(repr=False)

    @cached_property
    def lines(self) -> list[str]:
        """The lines without their line breaks."""
        return self.text.splitlines()


class Position(NamedTuple):
    """A place in a source. Line and column count from 1; `width` is in characters."""

    source: Source
    line: int
    column: int
    width: int = 1

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"

    def shifted(self, offset: int, width: int = 1) -> Position:
        """A position `offset` characters further right."""
        return Position(self.source, self.line, self.column + offset, width)


@dataclass(frozen=True)
class Diagnostic:
    """One error or warning.

    Attributes:
        code: a key of `CODES`.
        position: where in the file; None if no file is at fault.
        label: a text next to the caret.
        path: where in the network.
        notes: the lines below it, such as a suggestion.
    """

    code: str
    message: str
    position: Position | None = None
    label: str = ""
    path: str = ""
    notes: Notes = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", _cut(self.message))
        if any(len(text) > _LONGEST_MESSAGE for _, text in self.notes):
            object.__setattr__(
                self, "notes", tuple((kind, _cut(text)) for kind, text in self.notes)
            )

    @property
    def severity(self) -> str:
        """`error` or `warning`."""
        return "error" if self.code.startswith("E") else "warning"

    def __str__(self) -> str:
        gutter = len(str(self.position.line)) if self.position else 1
        pad = " " * gutter
        lines = [f"{self.severity}[{self.code} {CODES[self.code]}]: {self.message}"]
        if self.position:
            lines += [f"{pad} --> {self.position}", *_excerpt(self.position, self.label, pad)]
        if self.path:
            lines.append(f"{pad} = in: {self.path}")
        lines += [f"{pad} = {kind}: {text}" for kind, text in self.notes]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for `--format json`."""
        where = self.position
        return {
            "code": self.code,
            "name": CODES[self.code],
            "severity": self.severity,
            "message": self.message,
            "file": where.source.name if where else None,
            "line": where.line if where else None,
            "column": where.column if where else None,
            "width": where.width if where else None,
            "label": self.label,
            "path": self.path,
            "notes": [{"kind": kind, "text": text} for kind, text in self.notes],
        }


def _cut(text: str) -> str:
    """A text that quotes the spec, cut after `_LONGEST_MESSAGE` characters."""
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}..."


_LONGEST_EXCERPT = 120
_LONGEST_MESSAGE = 1000


def _excerpt(position: Position, label: str, pad: str) -> list[str]:
    lines = position.source.lines
    if position.line > len(lines):
        return []
    text = lines[position.line - 1].replace("\t", " ")
    column = position.column
    if len(text) > _LONGEST_EXCERPT:
        start = max(0, column - 1 - _LONGEST_EXCERPT // 2)
        text = text[start : start + _LONGEST_EXCERPT]
        column -= start
    width = max(1, min(position.width, len(text) - column + 1))
    caret = " " * (column - 1) + "^" * width
    return [f"{pad} |", f"{position.line} | {text}", f"{pad} | {caret} {label}".rstrip()]


class SpecError(CnngraphError):
    """An invalid spec; `diagnostics` lists every mistake in it."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(render(self.diagnostics))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.diagnostics,)

    def _render_traceback_(self) -> list[str]:
        """What IPython and notebooks show in place of a traceback."""
        return str(self).splitlines()


def fail(code: str, message: str, position: Position | None = None, **details: Any) -> SpecError:
    """A `SpecError` with a single diagnostic; the caller raises it."""
    return SpecError([Diagnostic(code, message, position, **details)])


def render(diagnostics: Iterable[Diagnostic]) -> str:
    """All diagnostics as text for a terminal."""
    return "\n\n".join(map(str, diagnostics))


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any of the diagnostics is an error."""
    return any(d.severity == "error" for d in diagnostics)


def first_line(error: BaseException) -> str:
    """What an exception of another library says, in one line; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def listing(words: Sequence[str], conjunction: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return f" {conjunction} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


_MOST_CANDIDATES = 2000
_MOST_COMPARED = 50
_LONGEST_WORD = 64


def did_you_mean(word: str, candidates: Iterable[str]) -> Notes:
    """A `help` note with the candidate that is most similar to `word`, or none if none is close."""
    close = closest(word, candidates)
    return (("help", f"did you mean `{close}`?"),) if close else ()


def closest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that is spelt most like `word`, or None if none is close.

    Of many candidates, only the first are considered, and of these only those that share the most
    letters are compared.
    """
    if len(word) > _LONGEST_WORD:
        return None
    letters = set(word)

    def distance(item: str) -> tuple[int, int]:
        return len(letters.symmetric_difference(item)), abs(len(item) - len(word))

    # A similarity of 0.7 needs lengths within 7 to 13.
    length = len(word)
    likely = (
        item
        for item in islice(candidates, _MOST_CANDIDATES)
        if 7 * length <= 13 * len(item) and 7 * len(item) <= 13 * length
    )
    near = nsmallest(_MOST_COMPARED, likely, key=distance)
    close = difflib.get_close_matches(word, near, n=3, cutoff=0.7)
    if not close and len(word) > 2:  # one wrong character in a short name is below 0.7
        near = [item for item in near if len(item) == len(word)]
        close = difflib.get_close_matches(word, near, n=1, cutoff=(len(word) - 1) / len(word))
    if not close:
        return None
    maps = re.sub(r"[13]d$", "2d", close[0])  # as near as conv1d and conv3d, and more common
    return maps if maps in close else close[0]


def is_list(value: Any) -> TypeGuard[tuple[Any, ...]]:
    """Whether a plain value is a list of the language, which is a tuple in Python."""
    return isinstance(value, tuple)


def show(value: Any) -> str:
    """A value in the syntax of the language, cut after 60 characters."""
    text = ""
    for part in _written(value):
        text += part
        if len(text) > _LONGEST_SHOWN:
            return f"{text[: _LONGEST_SHOWN - 3]}..."
    return text


_LONGEST_SHOWN = 60


def _written(value: Any) -> Iterator[str]:
    if is_list(value):
        yield "["
        for index, item in enumerate(value):
            yield ", " if index else ""
            yield from _written(item)
        yield "]"
    elif value is None or isinstance(value, bool):
        yield {None: "none", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        yield json.dumps(value[: _LONGEST_SHOWN + 1], ensure_ascii=False)
    else:
        yield repr(value)
