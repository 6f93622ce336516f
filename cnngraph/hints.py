"""What a wrong value was likely meant to be: `None`, `(3, 3)`, `$width`, `Same`, `16.0`."""

from __future__ import annotations

import re
from typing import Any

from cnngraph.errors import Notes, did_you_mean
from cnngraph.expressions import is_expression
from cnngraph.yaml_source import Located

_NAMED = re.compile(r"\$\(?\{?(\w+)\}?\)?|\{+\s*(\w[^{}]*?)\s*\}+")
_TUPLE = re.compile(r"\(\s*([-\w.]+(?:\s*,\s*[-\w.]+)*)\s*,?\s*\)?")
_LONGEST = 100
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")


def hint(value: Any) -> Notes:
    """A `help` note for a text or mapping in the spelling of another language, or none."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        empty = inner is None or (isinstance(inner, Located) and inner.value is None)
        return (("help", f'an expression is `${{...}}`: write "${{{key}}}"'),) if empty else ()
    if not isinstance(value, str) or len(value) > _LONGEST or is_expression(value):
        return ()
    if value in ("None", "none", "nil"):
        return (("help", "none is written `~`"),)
    if named := _NAMED.fullmatch(value.strip()):
        name = named[1] or named[2]
        return (("help", f'an expression is `${{...}}`: write "${{{name}}}"'),)
    if listed := _TUPLE.fullmatch(value.strip()):
        return (("help", f"a list is written in brackets: [{_both(listed[1])}]"),)
    return ()


def _both(items: str) -> str:
    """The items; with the first alone, which is what YAML leaves of `{kernel_size: (3, 3)}`, two of it."""
    return items if "," in items else f"{items}, {items}"


def value_hint(given: Any, located: Located, expectation: str) -> Notes:
    """A `help` note for a value that is not what was expected: `given`, as it is written at `located`."""
    if notes := _whole_number(given, located, expectation):
        return notes
    if located.value != given and isinstance(located.value, str):
        return ()  # the value of an expression: the spelling is not at fault
    if isinstance(given, str):
        words = re.findall(r"[`']([a-z][\w-]*)[`']", expectation)
        same = next((word for word in words if _plain(word) == _plain(given)), None)
        if same or words:
            return (("help", f"did you mean `{same}`?"),) if same else (did_you_mean(given, words) or hint(given))
        if _NUMBER.fullmatch(given) and "number" in expectation:
            return (("help", f"write {given}, without quotes"),)
        if given.lower() in ("yes", "on", "no", "off") and "true" in expectation:
            return (("help", f"write {'true' if given.lower() in ('yes', 'on') else 'false'}"),)
    return hint(given)


def _whole_number(given: Any, located: Located, expectation: str) -> Notes:
    if "whole number" not in expectation:
        return ()
    written = located.value
    if is_expression(written):
        items = given if isinstance(given, tuple) else (given,)
        divided = "/" in written.replace("//", "") and any(isinstance(item, float) for item in items)
        return (("help", "`//` divides whole numbers into a whole number"),) if divided else ()
    if isinstance(written, list):
        pairs = zip(given, written, strict=True) if isinstance(given, tuple) and len(given) == len(written) else ()
        return next(filter(None, (_whole_number(item, inner, expectation) for item, inner in pairs)), ())
    if isinstance(written, float) and written.is_integer():
        return (("help", f"write {int(written)}"),)
    return ()


def _plain(word: str) -> str:
    return re.sub(r"[_\-\s]", "", word).lower()
