"""Spec -> Graph in one walk: blocks, loops, expressions and shapes are resolved together.

An expression may read the shape at its place, and shapes follow from what expressions give. A
mistake leaves an unknown value behind, which silences everything that depends on it, so that one
run reports every mistake once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnngraph.elaborate.expect import check_expectations
from cnngraph.elaborate.walk import Walk
from cnngraph.errors import Diagnostic, SpecError, has_errors
from cnngraph.graph import Graph
from cnngraph.spec.spec import Spec

__all__ = ["elaborate", "elaborate_or_raise", "not_a_network", "valid_part"]


def elaborate(
    spec: Spec, params: Mapping[str, Any] | None = None
) -> tuple[Graph | None, list[Diagnostic]]:
    """The network that a spec describes, with `params` in place of its defaults.

    Without `params`, the figures in the spec's `expect` are checked too.

    Returns:
        The graph, and every diagnostic, warnings included. The graph is None for a block library,
        and if the network itself is invalid; a wrong figure in `expect` is an error, but leaves
        the graph.
    """
    walk = Walk(spec)
    graph = walk.run(params or {})
    diagnostics = walk.diagnostics.finish()
    if graph is None:
        if not has_errors(diagnostics) and not spec.is_library:
            raise AssertionError(f"the walk over `{spec.name}` lost a value, but reported no error")
        return None, diagnostics
    if not params:
        diagnostics += check_expectations(spec, graph)
    return graph, diagnostics


def valid_part(spec: Spec, params: Mapping[str, Any] | None = None) -> Graph | None:
    """The part of an invalid spec's network that does not depend on a mistake, if there is any."""
    walk = Walk(spec)
    return walk.run(params or {}) or walk.valid_part()


def not_a_network(library: Spec) -> Diagnostic:
    """The diagnostic for a block library where a network is needed."""
    name = library.position.source.name
    message = f"{name} is a block library: it has no `input` and no `graph`"
    notes = (("help", "name a network that imports it"),)
    return Diagnostic("E102", message, library.position, notes=notes)


def elaborate_or_raise(spec: Spec, params: Mapping[str, Any] | None = None) -> Graph:
    """The network that a spec describes. Raises `SpecError` with every error in the spec."""
    if spec.is_library:
        raise SpecError([not_a_network(spec)])
    graph, diagnostics = elaborate(spec, params)
    errors = [item for item in diagnostics if item.severity == "error"]
    if graph is None or errors:
        raise SpecError(errors)
    return graph
