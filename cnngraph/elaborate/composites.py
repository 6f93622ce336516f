"""How each composite is walked: what its parts see, their names, and how their results are joined.

Each function takes the place inside the composite and the composite's path (None if it has no level
of its own), and returns the composite's value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cnngraph.elaborate.joins import parallel
from cnngraph.elaborate.place import Call, Place, Value
from cnngraph.elaborate.repeats import dense, repeat
from cnngraph.elaborate.residuals import residual
from cnngraph.elaborate.walker import Walker
from cnngraph.spec.document import (
    Aux,
    Composite,
    Dense,
    From,
    Parallel,
    Repeat,
    Residual,
    Sequential,
    When,
)


def sequential(
    walk: Walker, call: Call, arguments: Sequential, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body."""
    return walk.body(arguments.body, place, value)


def from_value(
    walk: Walker, call: Call, arguments: From, place: Place, path: str | None, value: Value
) -> Value:
    """Goes back to an earlier value."""
    return walk.start(replace(call, origin=arguments.value), place, value)


def when(
    walk: Walker, call: Call, arguments: When, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body of a `when` whose test is true."""
    return walk.body(arguments.body, place, value)


def side_head(
    walk: Walker, call: Call, arguments: Aux, place: Place, path: str | None, value: Value
) -> Value:
    """Walks the body as a side head."""
    fail = walk.diagnostics.fail
    if place.aux:
        message = f"a side head cannot contain another (`{place.aux}`)"
        fail(place, "E107", message, call.position)
    assert path is not None
    if path == "logits":
        where = call.name.position if call.name else call.position
        fail(place, "E116", "`logits` is the name of the main result in training", where)
    result = walk.body(arguments.body, place._replace(aux=path), value)
    if result.path is not None:
        if result == value:
            fail(place, "E107", f"the side head `{path}` has no nodes", call.position)
        walk.graph.aux[path] = result.path
    return result


Walk = Callable[[Walker, Call, Any, Place, str | None, Value], Value]

WALKS: dict[type[Composite], Walk] = {
    Sequential: sequential,
    Parallel: parallel,
    Residual: residual,
    Dense: dense,
    Repeat: repeat,
    When: when,
    Aux: side_head,
}
"""Composite -> the function that walks it."""
