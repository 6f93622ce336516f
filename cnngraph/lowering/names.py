"""Refuses names that the classes of a network use in this version of torch."""

from __future__ import annotations

from inspect import get_annotations

from cnngraph.elaborate.naming import TAKEN_BY_TORCH, taken_problem
from cnngraph.errors import fail
from cnngraph.graph import Graph


def public_names(*classes: type) -> frozenset[str]:
    """The names that modules of these classes use without a leading underscore."""
    names = {name for cls in classes for name in dir(cls)}
    names.update(name for cls in classes for base in cls.__mro__ for name in get_annotations(base))
    return frozenset(name for name in names if not name.startswith("_"))


def require_free_names(graph: Graph, *classes: type) -> None:
    """Raises `SpecError` if a node or level is called as an attribute of these classes.

    A check, which does not import torch, knows the names in `TAKEN_BY_TORCH`.
    """
    taken = public_names(*classes) - TAKEN_BY_TORCH
    for place in (*graph.nodes, *graph.scopes.values()):
        if wrong := taken.intersection(place.path.split(".")):
            problem = taken_problem(min(wrong))
            raise fail("E116", problem, place.origin, path=place.path)
