"""Wrong usage of the command line, in this project's words.

What typer and click say varies with their versions, and is not shown.
"""

from __future__ import annotations

import re
from typing import Any, cast

import typer

from cnngraph.errors import closest, listing

UsageError = cast(type[Exception], typer.BadParameter.__mro__[1])
"""The base of typer's errors for wrong usage, which typer does not export."""

_WORDS = [
    (r"requires an argument", "needs a value"),
    (r"does not take a value", "takes no value"),
    (r"(integer|int_)", "must be a whole number"),
    (r"(valid number|float)", "must be a number"),
    (r"(?:>=|greater than or equal to) *(\d+(?:[.]\d+)?)", r"must be at least \1"),
    (r"(?:<=|less than or equal to) *(\d+(?:[.]\d+)?)", r"must be at most \1"),
]
"""What other versions say of a value (a pattern) -> what is said here."""


def in_own_words(error: Any, group: Any) -> Exception:
    """The same error with another message. `group` are the commands."""
    return UsageError(_message(error, group), error.ctx)


def _message(error: Any, group: Any) -> str:
    kind, text = type(error).__name__, str(error.message)
    if kind == "NoSuchOption":
        near = closest(error.option_name, error.possibilities or ())
        hint = f"; did you mean {near}?" if near else ""
        return f"there is no option {error.option_name}{hint}"
    if kind == "MissingParameter":
        return f"{_name(error)} is missing"
    if isinstance(error, typer.BadParameter):
        own = error.param is None  # raised by a command
        return f"{_hint(error)}{text}" if own else f"{_name(error)} {_of_value(text)}"
    if kind == "BadOptionUsage":
        return f"{error.option_name} {_of_value(text)}"
    if found := re.search(r"No such command ['\"](.*?)['\"]", text):
        near = closest(found[1], group.commands)
        hint = f"; did you mean `{near}`?" if near else ""
        return f"there is no command `{found[1]}`{hint}"
    if found := re.search(r"unexpected extra arguments? *\(?s?\)? *\((.*)\)", text):
        return f"`{found[1]}` is more than the command takes"
    return text


def _of_value(text: str) -> str:
    if "is not one of" in text:
        value, *choices = re.findall(r"'([^']*)'", text)
        return f"must be {listing(choices, 'or')}, not `{value}`"
    for pattern, words in _WORDS:
        if found := re.search(pattern, text):
            return found.expand(words)
    return "does not accept this value"


def _name(error: Any) -> str:
    """`--format`, or the name of an argument as the usage shows it."""
    if error.param is None:
        return str(error.param_hint or "an argument")
    options = [*error.param.opts]
    is_option = options[0].startswith("-")
    return max(options, key=len) if is_option else str(error.param.metavar or options[0].upper())


def _hint(error: Any) -> str:
    return f"{str(error.param_hint).strip(chr(39))}: " if error.param_hint else ""
