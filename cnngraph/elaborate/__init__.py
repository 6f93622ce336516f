"""Spec -> Graph in one walk: blocks, loops, expressions and shapes are resolved together.

They have to be: an expression may read the shape at its place, and shapes follow from what expressions say. A mistake
leaves an unknown value behind, which silences everything that depends on it, so that one run reports every mistake once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnngraph.elaborate.walk import Walk
from cnngraph.errors import Diagnostic, has_errors
from cnngraph.graph import Graph
from cnngraph.spec.loader import Spec

__all__ = ["elaborate"]


def elaborate(spec: Spec, params: Mapping[str, Any] | None = None) -> tuple[Graph | None, list[Diagnostic]]:
    """The network a spec describes, with `params` in the place of its defaults.

    Returns the graph (None where the spec does not hold) and every diagnostic, warnings included.
    """
    walk = Walk(spec)
    graph = walk.run(params or {})
    if graph is None and not has_errors(walk.diagnostics):
        raise AssertionError(f"the walk over `{spec.name}` lost a value, and reported no error")
    return (None if has_errors(walk.diagnostics) else graph), walk.diagnostics
