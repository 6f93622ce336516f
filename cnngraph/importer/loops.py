"""Levels that repeat a block get arguments of one form, so that they can be repeated in turn."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cnngraph.importer.holes import ABSENT, First, Linear
from cnngraph.importer.nodes import SpecNode

Form = First | Linear


def unify_loops(nodes: Sequence[SpecNode]) -> list[tuple[SpecNode, list[SpecNode]]]:
    """Writes a level of one call as a `repeat`, if its siblings repeat calls of the same block.

    Returns the levels that were changed, and their bodies before.
    """
    levels = [node for node in nodes if node.kind == "sequential" and len(node.parts["body"]) == 1]
    loops: dict[str, SpecNode] = {}
    forms: dict[str, dict[str, Form]] = defaultdict(dict)
    for level in levels:
        (loop,) = level.parts["body"]
        if loop.kind == "repeat" and "over" not in loop.args and len(loop.parts["body"]) == 1:
            (call,) = loop.parts["body"]
            loops[call.kind] = loop
            own = {name: value for name, value in call.args.items() if isinstance(value, Form)}
            forms[call.kind] |= own
    changed: list[tuple[SpecNode, list[SpecNode]]] = []
    for level in levels:
        body = level.parts["body"]
        unified = _unified(body[0], loops, forms)
        if unified is not None:
            changed.append((level, body))
            level.parts["body"] = [unified]
    return changed


def _unified(
    node: SpecNode, loops: dict[str, SpecNode], forms: dict[str, dict[str, Form]]
) -> SpecNode | None:
    """A call, or a loop of calls, as a loop whose arguments have these forms."""
    call = node.parts["body"][0] if node.kind == "repeat" else node
    loop = loops.get(call.kind)
    if loop is None or call.parts or "over" in node.args:
        return None
    times = node.args["times"] if node.kind == "repeat" else 1
    if times > 2 or not forms[call.kind]:
        return None
    own = forms[call.kind]
    args = {name: _formed(value, own.get(name), times) for name, value in call.args.items()}
    name = loop.parts["body"][0].name
    if times == 1 and call.name != (name or "${i}").replace("${i}", "0"):
        return None
    call = replace(call, args=args, name=name)
    return replace(loop, args={**loop.args, "times": times}, parts={"body": [call]})


def _formed(value: Any, form: Form | None, times: int) -> Any:
    """A value of one or two copies in the form that others have."""
    match form:
        case Linear() if value is ABSENT:
            return form
        case Linear() if isinstance(value, float):  # of two copies, the first has no such value
            offset = value * form.count / form.scale - (times - 1)
            return replace(form, offset=round(offset)) if _is_whole(offset) else value
        case First() if times == 1:
            return First(value, ABSENT, form.index)
        case _:
            return value


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6
