"""Suggestions for a value that an argument does not accept."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any

from cnngraph.errors import Notes, did_you_mean, is_list
from cnngraph.spec.expressions import RESERVED, ExpressionError, is_expression, names_in
from cnngraph.spec.suggestions.syntax import MAX_LENGTH, folded, quoted_expression, suggest_syntax
from cnngraph.spec.yaml import Located

_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
_REPEATED = re.compile(r"([0-9]+)\s*[x×]\s*([0-9]+)")
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}

_WORDS = {
    "cat": "concat",
    "concatenate": "concat",
    "linear": "bilinear",
    "mul": "multiply",
    "plus": "add",
    "prod": "multiply",
    "product": "multiply",
    "reflection": "reflect",
    "sum": "add",
}
"""Values of other libraries -> the word here, where it is one of the choices."""


def suggest_value(
    value: Any, located: Located, expectation: str, variables: Container[str] = ()
) -> Notes:
    """A `help` note for a wrong value, or none.

    Args:
        value: the value, its expressions evaluated.
        located: the same as written.
        expectation: the message that says what it must be.
        variables: the names that an expression could read in this place.
    """
    if notes := _suggest_whole_number(value, located, expectation):
        return notes
    if located.value != value and isinstance(located.value, str):
        return ()  # the result of an expression, whose spelling is correct
    if isinstance(value, str):
        words = re.findall(r"[`']([a-z][\w-]*)[`']", expectation)
        if found := _suggest_word(value, words):
            return found
        if "number" in expectation and (found := _suggest_number(value, variables)):
            return found
        if "true" in expectation and value.lower() in _BOOLEANS:
            return (("help", f"write {_BOOLEANS[value.lower()]}"),)
    return suggest_syntax(value)


def _suggest_word(value: str, words: list[str]) -> Notes:
    """The word among `words` that `value` stands for, or none."""
    same = next((word for word in words if folded(word) == folded(value)), None)
    other = _WORDS.get(folded(value))
    if close := same or (other if other in words else None):
        return (("help", f"did you mean `{close}`?"),)
    return did_you_mean(value, words)


def _suggest_number(value: str, variables: Container[str]) -> Notes:
    """How to write a number that is given as text, or none."""
    if _NUMBER.fullmatch(value):
        return (("help", f"write {value} without quotes"),)
    if found := _REPEATED.fullmatch(value):
        return (("help", f"write a list in brackets: [{found[1]}, {found[2]}]"),)
    rounded = re.sub(r"\bint\(", "round(", value)
    return quoted_expression(rounded) if _is_unquoted(rounded, variables) else ()


def _is_unquoted(text: str, variables: Container[str]) -> bool:
    """Whether a text is an expression without `${}`: it computes, or reads a variable."""
    if len(text) > MAX_LENGTH or is_expression(text) or "{" in text:
        return False
    try:
        names = names_in(f"${{{text}}}")
    except ExpressionError:
        return False
    return bool(names) and all(name in variables or name in RESERVED for name in names)


def _suggest_whole_number(value: Any, located: Located, expectation: str) -> Notes:
    if "whole number" not in expectation:
        return ()
    written = located.value
    if is_expression(written):
        items: tuple[Any, ...] = value if is_list(value) else (value,)
        if any(type(item) is float for item in items):
            divided = "/" in written.replace("//", "")
            way = "use `//` to divide into" if divided else "`round(...)` makes"
            return (("help", f"{way} a whole number"),)
        return ()
    if isinstance(written, list) and is_list(value) and len(value) == len(written):
        pairs = zip(value, written, strict=True)
        found = (_suggest_whole_number(item, inner, expectation) for item, inner in pairs)
        return next(filter(None, found), ())
    if isinstance(written, float) and written.is_integer():
        return (("help", f"write {int(written)}"),)
    return ()
