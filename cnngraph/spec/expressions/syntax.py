"""Text -> the syntax trees of its expressions."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeGuard

from cnngraph.errors import Notes

MAX_LENGTH = 500


class ExpressionError(Exception):
    """A wrong expression; `offset` counts characters from the start of its string."""

    def __init__(self, message: str, offset: int = 0, notes: Callable[[], Notes] = tuple) -> None:
        super().__init__(message)
        self.offset = offset
        self.notes = notes


def is_expression(text: Any) -> TypeGuard[str]:
    """Whether a value is text that contains `${`."""
    return isinstance(text, str) and "${" in text


Piece = tuple[int, ast.expr | None, str]
"""Where a part of a string begins, and its expression, or else its text."""


def _split(text: str) -> list[Piece]:
    pieces: list[Piece] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start > at:
            pieces.append((at, None, text[at:start]))
        end = _closing_brace(text, start + 2)
        pieces.append((start + 2, _parse(text[start + 2 : end], start + 2), ""))
        at = end + 1
    if at < len(text):
        pieces.append((at, None, text[at:]))
    return pieces


_split_cached = lru_cache(maxsize=4096)(_split)


def split(text: str) -> list[Piece]:
    """The parts of a text with `${...}`. Raises `ExpressionError` if one is no expression."""
    return _split_cached(text) if len(text) <= MAX_LENGTH else _split(text)


def _closing_brace(text: str, start: int) -> int:
    quote = ""
    for index in range(start, len(text)):
        character = text[index]
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "}":
            return index
    raise ExpressionError("`${` is never closed by `}`", start - 2)


_TOKEN = re.compile(r"""'[^']*'|"[^"]*"|(?<!\w)(?P<number>[0-9][\w.]*)""")
_NUMBER = re.compile(r"0[bBoOxX][0-9a-fA-F_]+|[0-9_]*\.?[0-9_]*([eE][0-9_]*)?[jJ]?")


def _warns(source: str) -> bool:
    """Whether Python warns of this text: of an unknown escape, or a number glued to a word.

    The warning cannot be hidden, because the filters of warnings belong to all threads.
    """
    if "\\" in source:
        return True
    numbers = (match["number"] for match in _TOKEN.finditer(source))
    return any(number and not _NUMBER.fullmatch(number) for number in numbers)


def _parse(source: str, offset: int) -> ast.expr:
    if len(source) > MAX_LENGTH:
        raise ExpressionError(f"an expression has at most {MAX_LENGTH} characters", offset)
    stripped = source.strip()
    if not stripped:
        raise ExpressionError("the expression is empty", offset)
    if _warns(stripped):
        raise ExpressionError("this is not a valid expression", offset)
    try:
        return ast.parse(stripped, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ExpressionError("this is not a valid expression", offset) from None


@lru_cache(maxsize=4096)
def names_in(text: str) -> frozenset[str]:
    """The names that the expressions in a valid text can read."""
    trees = [tree for _, tree, _ in _split_cached(text) if tree is not None]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return frozenset(node.id for node in nodes if isinstance(node, ast.Name))
