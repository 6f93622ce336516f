"""Suggestions for text and mappings in the syntax of another language."""

from __future__ import annotations

import re
from typing import Any, cast

from cnngraph.errors import Notes
from cnngraph.spec.expressions import is_expression
from cnngraph.spec.yaml import Located

MAX_LENGTH = 100
"""Longer texts get no suggestion."""

_EXPRESSION = re.compile(r"\$\(?\{?(\w+)\}?\)?|\{+\s*(\w[^{}]*?)\s*\}+")
_TUPLE = re.compile(r"\(\s*([-\w.]+(?:\s*,\s*[-\w.]+)*)\s*,?\s*\)?")


def suggest_syntax(value: Any) -> Notes:
    """A `help` note for a text or mapping in the syntax of another language, or none."""
    if isinstance(value, dict):
        entries = cast(dict[str, Any], value)
        if len(entries) != 1:
            return ()
        ((key, inner),) = entries.items()
        empty = inner is None or (isinstance(inner, Located) and inner.value is None)
        return quoted_expression(key) if empty else ()
    if not isinstance(value, str) or len(value) > MAX_LENGTH or is_expression(value):
        return ()
    if value in ("None", "none", "nil"):
        return (("help", "write none as `~`"),)
    if found := _EXPRESSION.fullmatch(value.strip()):
        return quoted_expression(found[1] or found[2])
    if found := _TUPLE.fullmatch(value.strip()):
        # YAML splits `{kernel_size: (3, 3)}` at the comma, which leaves `(3`
        items = found[1] if "," in found[1] else f"{found[1]}, {found[1]}"
        return (("help", f"write a list in brackets: [{items}]"),)
    return ()


def quoted_expression(text: str) -> Notes:
    """A `help` note that shows `text` as an expression."""
    return (("help", f'expressions are written `${{...}}`: "${{{text}}}"'),)


def folded(word: str) -> str:
    """A word in lower case, without underscores, hyphens and spaces."""
    return re.sub(r"[_\-\s]", "", word).lower()
