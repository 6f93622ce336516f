"""The source of the package's own modules that emitted Python needs, and of what these call."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from cnngraph.export.python_text import wrapped

Definition = type | FunctionType


def definitions(classes: Iterable[type]) -> list[Definition]:
    """The classes and functions of the package that classes need, each after those it needs."""
    found: dict[Definition, None] = {}
    for each in classes:
        _collect(each, found)
    return list(found)


def _collect(each: Definition, found: dict[Definition, None]) -> None:
    if each in found or not each.__module__.startswith("cnngraph."):
        return
    known = vars(sys.modules[each.__module__])
    for node in ast.walk(ast.parse(inspect.getsource(each))):
        needed: Any = known.get(node.id) if isinstance(node, ast.Name) else None
        if needed is not each and isinstance(needed, type | FunctionType):
            _collect(needed, found)
    found[each] = None


def source_of(definition: Definition) -> str:
    """The text of a definition, with lines that fit into emitted Python."""
    lines = inspect.getsource(definition).strip().splitlines()
    return "\n".join(wrapped(line) if line.endswith((":", ")")) else line for line in lines)
