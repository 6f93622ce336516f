"""Loops in emitted Python: children that are made and called in the same way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cnngraph.export.constructs import Affine, Construct


@dataclass
class Loop:
    """Children of one kind, called one after another by the same statements.

    Attributes:
        name: what their names have in common; empty if these are numbers.
        start: the first number.
        count: their number.
        construct: the call that makes the child with index `i`, from 0.
    """

    name: str
    start: int
    count: Any
    construct: Construct


def find_loop(
    children: Mapping[str, Construct], lines: list[str], attributes: Mapping[str, str]
) -> tuple[Loop, list[str]] | None:
    """The loop that a level is, and its `forward`.

    Args:
        children: the call that makes each child, by name.
        lines: the statements of `forward`.
        attributes: the expression for each child.
    """
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in children]
    found = [(part[1], int(part[2])) for part in parts if part]
    if len(found) < max(2, len(children)) or len({stem for stem, _ in found}) > 1:
        return None
    stem, start = found[0]
    if [number for _, number in found] != list(range(start, start + len(found))):
        return None
    steps = _steps([attributes[name] for name in children], lines)
    calls = [*children.values()]
    if len(set(steps)) > 1 or len({call.structure for call in calls}) > 1:
        return None
    construct = by_index(calls)
    if construct is None:
        return None
    is_list = not stem and start == 0
    loop = f"    for layer in self{'' if is_list else '.children()'}:"
    body = [f"    {line}" for line in steps[0]]
    return Loop(stem, start, len(calls), construct), [lines[0], loop, *body, "    return x"]


def _steps(attributes: Sequence[str], lines: list[str]) -> list[tuple[str, ...]]:
    """The statements for each child, with the child called `layer`."""
    body = [*lines[1:-1], f"    x = {lines[-1].strip().removeprefix('return ')}"]
    size, rest = divmod(len(body), len(attributes))
    if rest:
        return [(), ("",)]
    return [
        tuple(
            line.replace(f"{attribute}(", "layer(")
            for line in body[index * size : (index + 1) * size]
        )
        for index, attribute in enumerate(attributes)
    ]


def by_index(calls: Sequence[Construct]) -> Construct | None:
    """One call for copies whose arguments are equal, or grow by the same step."""
    args: dict[str, Any] = {}
    for name in calls[0].args:
        values: list[Any] = [call.args.get(name) for call in calls]
        if all(value == values[0] for value in values):
            args[name] = values[0]
            continue
        if not all(type(value) is int for value in values):
            return None
        step: int = values[1] - values[0]
        if values != [values[0] + step * index for index in range(len(values))]:
            return None
        args[name] = Affine(values[0], step)
    items: list[Construct] = []
    for group in zip(*(call.items for call in calls), strict=True):
        item = by_index(group)
        if item is None:
            return None
        items.append(item)
    return replace(calls[0], args=args, items=tuple(items))
