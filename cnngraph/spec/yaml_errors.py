"""Mistakes of YAML in the words of someone who writes a spec, rather than in those of the parser."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from cnngraph.errors import Diagnostic, Position, Source

_LONGEST = 1000
_EXPRESSION = re.compile(r"(?<![\"'\w])\$\{")
_GLUED = [
    (re.compile(r"^\s*(?:- )*(-)[A-Za-z\[{\"']"), "no space after the dash", "- relu"),
    (re.compile(r"^\s*(?:- )*\w+(:)[^\s:/]"), "no space after the colon", "conv2d: {...}"),
    (re.compile(r"[{,]\s*\w+(:)[\w$\"'\[{]"), "no space after the colon", "stride: 2"),
    (re.compile(r"^\s*(?:- )*\w+( ?)\{"), "no colon and space before the brace", "conv2d: {...}"),
]
"""What is missing where two parts of a line are glued together, and how it is written."""


def explain(error: yaml.MarkedYAMLError, source: Source) -> Diagnostic:
    """What the parser could not read."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _mistake(f"this is not YAML: {error.problem or error.context}", None)
    here = _position(source, mark)
    found = _tab(here) or _unquoted(here) or _glued(source, error) or _unclosed(source, error, here)
    if found is not None:
        return found
    if error.problem and error.problem.startswith("mapping values are not allowed"):
        help = "a key stands on a line of its own, or in `{...}`; a text that holds a colon needs quotes"
        return _mistake("this is not YAML: a second colon, or a key that is indented too far", here, help)
    if error.context == "while parsing a block mapping":
        return _mistake(
            "this is not YAML: neither a key of the mapping before it, nor its end", here, _BRACKET_OR_INDENT
        )
    if error.problem and error.problem.startswith("could not find expected ':'"):
        start = _position(source, error.context_mark) if error.context_mark else here
        return _mistake("this is not YAML: a word that is neither a key nor an item of a list", start, _KEY_OR_ITEM)
    if error.problem == "found character that cannot start any token":
        return _mistake("this is not YAML: no value begins with this character", here, "put the text in quotes")
    message = " ".join(part for part in (error.context, error.problem) if part)
    return _mistake(f"this is not YAML: {message}", here)


_BRACKET_OR_INDENT = "indent it as the lines it belongs to; and look for a bracket too many"
_KEY_OR_ITEM = "write `key: value`, or `- item`"


def _mistake(message: str, position: Position | None, help: str = "", note: str = "") -> Diagnostic:
    notes = (*((("note", note),) if note else ()), *((("help", help),) if help else ()))
    return Diagnostic("E002", message, position, notes=notes)


def _position(source: Source, mark: yaml.Mark) -> Position:
    return Position(source, mark.line + 1, mark.column + 1)


def _line(source: Source, number: int) -> str:
    """A line by its number, from 1; an empty one where there is none. Of a very long one, its beginning."""
    lines = source.lines
    return lines[number - 1][:_LONGEST] if 1 <= number <= len(lines) else ""


def _tab(here: Position) -> Diagnostic | None:
    line = _line(here.source, here.line)
    rest = line[here.column - 1 : here.column]
    before = line[: len(line) - len(line.lstrip())]
    if rest != "\t" and "\t" not in before:
        return None
    column = here.column if rest == "\t" else before.index("\t") + 1
    position = Position(here.source, here.line, column)
    return _mistake("this is not YAML: a tab; indent with spaces", position, "most editors can turn tabs into spaces")


def _unquoted(here: Position) -> Diagnostic | None:
    """`{width: ${w}}`: the parser stops at the brace of the expression."""
    line = _line(here.source, here.line)
    found = next((match for match in _EXPRESSION.finditer(line) if match.start() + 2 == here.column), None)
    if found is None:
        return None
    end = line.find("}", found.end()) + 1 or len(line)
    text = line[found.start() : end]
    position = Position(here.source, here.line, found.start() + 1, len(text))
    return _mistake("inside `{...}` and `[...]` an expression needs quotes", position, f'quote it: "{text}"')


def _glued(source: Source, error: yaml.MarkedYAMLError) -> Diagnostic | None:
    """A missing space on the line the parser stopped at, or where what it was reading began, or just before."""
    if error.problem and not error.problem.startswith(("mapping values", "could not find", "did not find expected")):
        return None
    for number in _suspects(error):
        line = _line(source, number)
        for pattern, missing, example in _GLUED:
            if match := pattern.search(line):
                position = Position(source, number, match.start(1) + 1)
                return _mistake(f"this is not YAML: {missing}", position, f"write it as in `{example}`")
    return None


def _suspects(error: yaml.MarkedYAMLError) -> Iterator[int]:
    marks = [error.problem_mark, error.context_mark if "block" not in (error.context or "") else None]
    for mark in filter(None, marks):
        yield mark.line + 1
    if error.problem_mark and (error.problem or "").startswith("mapping values"):
        yield error.problem_mark.line


def _unclosed(source: Source, error: yaml.MarkedYAMLError, here: Position) -> Diagnostic | None:
    opened = error.context_mark
    if opened is None or error.context not in (
        "while parsing a flow mapping", "while parsing a flow sequence", "while scanning a quoted scalar",
    ):  # fmt: skip
        return None
    start = _position(source, opened)
    sign = _line(source, start.line)[start.column - 1 : start.column] or "bracket"
    close = {"{": "}", "[": "]"}.get(sign, sign)
    if here.line == start.line:
        note = f"the `{sign}` was opened at column {start.column}"
        message = f"this is not YAML: a `,` or `{close}` is expected here"
        return _mistake(message, here, note=note)
    note = f"reading it ended at line {min(here.line, len(source.lines))}"
    return _mistake(f"this `{sign}` is never closed", start, f"put a `{close}` where it ends", note)
