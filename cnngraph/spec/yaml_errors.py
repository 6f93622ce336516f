"""Explains YAML mistakes to the author of a spec. No text of the parser is shown.

What the parser reports varies with its version and says little about the cause, so the lines around
the position are searched for the usual mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from cnngraph.errors import Diagnostic, Position, Source

_LONGEST = 1000
_EXPRESSION = re.compile(r"(?<![\"'\w])\$\{")
_GLUED = [
    (re.compile(r"^\s*(?:- )*(-)[A-Za-z\[{\"']"), "a space after the dash", "- relu"),
    (re.compile(r"^\s*(?:- )*\w+(:)[^\s:/]"), "a space after the colon", "conv2d: {...}"),
    (re.compile(r"[{,]\s*\w+(:)[\w$\"'\[{]"), "a space after the colon", "stride: 2"),
    (
        re.compile(r"^\s*(?:- )*\w+( ?)\{"),
        "a colon and a space before the brace",
        "conv2d: {...}",
    ),
]
"""Two parts of a line without what separates them: a pattern, what is missing, and an example."""
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufeff\uff00-\ufffd\U00010000-\U0010ffff]"
)
"""Characters that YAML does not allow."""


def explain(error: yaml.MarkedYAMLError, source: Source) -> Diagnostic:
    """The diagnostic for a syntax error."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return _mistake("the syntax is invalid", None)
    here = _position(source, mark)
    found = _tab(here) or _unquoted(here) or _glued(source, error) or _unclosed(source, error, here)
    if found is not None:
        return found
    problem = error.problem or ""
    if problem.startswith("mapping values are not allowed"):
        help = "put a key on its own line or in `{...}`, and text that contains a colon in quotes"
        return _mistake("unexpected colon, or a key that is indented too far", here, help)
    if error.context == "while parsing a block mapping":
        help = "indent it like the lines it belongs to, and look for an extra bracket"
        return _mistake("expected a key or the end of the mapping before it", here, help)
    if problem.startswith("could not find expected ':'"):
        start = _position(source, error.context_mark) if error.context_mark else here
        word = re.fullmatch(r"\s*([\w-]{1,40})\s*", _line(source, start.line))
        help = f"write `- {word[1]}`, or `{word[1]}: ...`" if word else ""
        help = help or "write `key: value` or `- item`"
        return _mistake("expected a key or an item of a list", start, help)
    if problem.endswith("cannot start any token"):
        return _mistake("a value cannot begin with this character", here, "put text in quotes")
    return _mistake("the syntax is invalid", here)


def explain_character(source: Source) -> Diagnostic:
    """The diagnostic for a text that the parser refuses to read."""
    for number, line in enumerate(source.text.split("\n"), start=1):
        if match := _FORBIDDEN.search(line):
            position = Position(source, number, match.start() + 1)
            return _mistake(f"the character U+{ord(match[0]):04X} is not allowed", position)
    return _mistake(f"the syntax of {source.name} is invalid", None)


def _mistake(message: str, position: Position | None, help: str = "", note: str = "") -> Diagnostic:
    notes = tuple((kind, text) for kind, text in (("note", note), ("help", help)) if text)
    return Diagnostic("E002", f"invalid YAML: {message}", position, notes=notes)


def _position(source: Source, mark: yaml.Mark) -> Position:
    return Position(source, mark.line + 1, mark.column + 1)


def _line(source: Source, number: int) -> str:
    """The beginning of a line by its number, from 1; empty if there is no such line."""
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
    help = "most editors can convert tabs to spaces"
    return _mistake("a tab; indent with spaces", position, help)


def _unquoted(here: Position) -> Diagnostic | None:
    """`{width: ${w}}`: the parser stops at the brace of the expression."""
    line = _line(here.source, here.line)
    matches = _EXPRESSION.finditer(line)
    found = next((match for match in matches if match.start() + 2 == here.column), None)
    if found is None:
        return None
    end = line.find("}", found.end()) + 1 or len(line)
    text = line[found.start() : end]
    position = Position(here.source, here.line, found.start() + 1, len(text))
    message = "inside `{...}` and `[...]` an expression needs quotes"
    return _mistake(message, position, f'write "{text}"')


def _glued(source: Source, error: yaml.MarkedYAMLError) -> Diagnostic | None:
    """A missing space on the line of the problem or of its context, or just before."""
    explained = ("mapping values", "could not find", "did not find expected", "expected")
    if error.problem and not error.problem.startswith(explained):
        return None
    for number in _suspects(error):
        line = _line(source, number)
        for pattern, missing, example in _GLUED:
            if match := pattern.search(line):
                position = Position(source, number, match.start(1) + 1)
                return _mistake(f"missing {missing}", position, f"write `{example}`")
    return None


def _suspects(error: yaml.MarkedYAMLError) -> Iterator[int]:
    """Numbers of the lines where the mistake may be, the likeliest first."""
    block = "block" in (error.context or "")
    for mark in (error.problem_mark, None if block else error.context_mark):
        if mark is not None:
            yield mark.line + 1
    if error.problem_mark and (error.problem or "").startswith("mapping values"):
        yield error.problem_mark.line


def _unclosed(source: Source, error: yaml.MarkedYAMLError, here: Position) -> Diagnostic | None:
    opened = error.context_mark
    contexts = ("flow mapping", "flow sequence", "quoted scalar")
    if opened is None or not (error.context or "").endswith(contexts):
        return None
    start = _position(source, opened)
    sign = _line(source, start.line)[start.column - 1 : start.column] or "bracket"
    close = {"{": "}", "[": "]"}.get(sign, sign)
    if here.line == start.line:
        note = f"the `{sign}` is at column {start.column}"
        return _mistake(f"expected `,` or `{close}` here", here, note=note)
    note = f"the parser expected it before line {min(here.line, len(source.lines))} ended"
    return _mistake(f"this `{sign}` is never closed", start, f"add the `{close}`", note)
