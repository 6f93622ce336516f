"""Nodes of a spec -> plain YAML data: names that are needed, shorter forms of composites."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from cnngraph.importer.holes import Expression, First, Linear
from cnngraph.importer.nodes import CHOICE, COPIES, NO_LEVEL, OUTER, SpecNode
from cnngraph.ops import OPS


def tidy(nodes: list[SpecNode], *, whole: bool = False) -> None:
    """Rewrites nodes as a person would. `whole` is for the body of a block.

    A named level takes over the composite that is its whole body.
    """
    for index, node in enumerate(nodes):
        while node.kind == "sequential" and len(node.parts["body"]) == 1:
            (inner,) = node.parts["body"]
            if inner.name != NO_LEVEL and not (inner.name == COPIES and inner.kind in _LOOPS):
                break
            inner.name = node.name
            nodes[index] = node = inner
        if node.kind in _LOOPS and node.name == COPIES and not (whole and len(nodes) == 1):
            node.name = ""
            (body,) = node.parts["body"]
            body.name = body.name or "${i}"
        for part in node.parts.values():
            if node.kind == "parallel" and not part:
                part.append(SpecNode("identity"))  # which counts among the nodes of its level
            tidy(part)


_LOOPS = ("repeat", "dense")
_MAIN = {"from": "value", "share": "of", "concat": "with", "add": "with", "multiply": "with"}
"""The arguments of composites that may be given without their names."""


def name_outer(nodes: Sequence[SpecNode], outer: str = "") -> None:
    """Writes the names that start with that of the level around them."""
    for node in nodes:
        node.name = node.name.replace(OUTER, outer)
        inner = outer if node.name in ("", NO_LEVEL) else node.name
        for part in node.parts.values():
            name_outer(part, inner)


def name_nodes(nodes: Sequence[SpecNode]) -> None:
    """Drops the names that the position gives, and names what would take the name of another."""
    level: list[_Place] = []
    _collect(nodes, level)
    if all(place.name in ("", str(index)) for index, place in enumerate(level)):
        for node in (place.node for place in level):
            node.name = node.name if node.kind == "repeat" or "$" in node.name else ""
    taken = {place.name for place in level}
    for index, place in enumerate(level):
        node = place.node
        if not node.weighted and not node.parts and place.name in (str(index), node.kind):
            node.name = ""
        elif not place.name and not node.name and str(index) in taken:
            node.name = _free_name("act" if node.kind == CHOICE else node.kind, place, taken)
            taken.add(node.name)


@dataclass(frozen=True)
class _Place:
    """A node in a level, with its name there, and the counter of the repeat that copies it."""

    name: str
    node: SpecNode
    counter: str = ""


def _free_name(kind: str, place: _Place, taken: set[str]) -> str:
    if place.counter:
        stem = kind
        while any(name.startswith(stem) for name in taken):
            stem += "_"
        return f"{stem}${{{place.counter}}}"
    return next(name for n in count(1) if (name := f"{kind}{n}") not in taken)


def _collect(nodes: Sequence[SpecNode], level: list[_Place]) -> None:
    """The nodes of one level, in order, with all copies of repeats without a name."""
    for node in nodes:
        if node.name == NO_LEVEL or node.kind == "when":
            for part in node.parts.values():
                _collect(part, level)
        elif node.kind == "repeat" and not node.name:
            copies: list[_Place] = []
            _collect(node.parts["body"], copies)
            times = node.args.get("times") or len(node.args["over"])
            counter = node.args.get("index", "i")
            for index in range(times if isinstance(times, int) else 1):
                level += [
                    _Place(_name_of_copy(place.name, index), place.node, counter)
                    for place in copies
                ]
        elif node.kind != "from":  # which has no name
            level.append(_Place(node.name, node))
            if node.kind == "parallel" and not all(key.isdigit() for key in node.parts):
                for part in node.parts.values():
                    name_nodes(part)
            else:
                name_nodes([inner for part in node.parts.values() for inner in part])


def _name_of_copy(name: str, index: int) -> str:
    """The name of a copy: `layer${i + 1}` with the counter filled in."""
    found = re.fullmatch(r"(.*)\$\{((\d+) \* )?\w+( \+ (\d+))?\}", name)
    if found is None:
        return name
    return f"{found[1]}{index * int(found[3] or 1) + int(found[5] or 0)}"


def data_of(nodes: Sequence[SpecNode], *, whole: bool = False) -> Any:
    """The nodes as YAML data. With `whole`, the body of a block, which may share its level."""
    if whole and len(nodes) == 1 and nodes[0].parts and nodes[0].name in (NO_LEVEL, COPIES):
        (node,) = nodes
        return _node(replace(node, name=""))
    return [_node(node) for node in nodes]


def _node(node: SpecNode) -> Any:
    args: dict[str, Any] = {}
    if node.kind == CHOICE:
        node = replace(node, args={**node.args}, kind=value_of(node.args["kind"]))
        del node.args["kind"]
    if node.name == NO_LEVEL:
        args["name"] = None
    elif node.name:
        args["name"] = int(node.name) if node.name.isdigit() else node.name
    order = ["from", *(_fields(node.kind) if node.kind in OPS else node.args)]
    for name in sorted(node.args, key=order.index):
        args[name] = value_of(node.args[name])
    if node.kind == "parallel":
        return _parallel(node, args)
    for key, part in node.parts.items():
        body = data_of(part)
        args[key] = body[0] if len(body) == 1 and _shares_level(node, key, part) else body
    main = OPS[node.kind].main if node.kind in OPS else _MAIN.get(node.kind)
    if not args:
        return node.kind
    if main is not None and list(args) == [main]:
        return {node.kind: args[main]}
    return {node.kind: args}


def _fields(kind: str) -> list[str]:
    """The arguments of an op, as they are written."""
    return [field.alias or name for name, field in OPS[kind].model_fields.items()]


def _shares_level(node: SpecNode, key: str, part: Sequence[SpecNode]) -> bool:
    """Whether a body of one node is written without a list."""
    if "residual" in node.kind:
        return bool(part[0].name) or part[0].kind == "when"
    return node.kind in (*_LOOPS, "when")


def _parallel(node: SpecNode, args: dict[str, Any]) -> Any:
    """Branches as a mapping if each is a level of its own, else as a list."""
    branches = list(node.parts.values())
    if all(len(part) == 1 and _is_level(part[0]) for part in branches):
        for (inner,) in branches:
            name, inner.name = inner.name, ""
            body = data_of(inner.parts["body"]) if inner.kind == "sequential" else _node(inner)
            args[name] = body
    else:
        args["branches"] = [_branch(part) for part in branches]
    return {"parallel": args}


def _branch(part: Sequence[SpecNode]) -> Any:
    body = data_of(part)
    return body[0] if len(body) == 1 else body


def _is_level(node: SpecNode) -> bool:
    named = node.name not in ("", NO_LEVEL) and not {*"$."} & {*node.name}
    return named and node.name not in ("name", "merge", "branches")


def value_of(value: Any) -> Any:
    """A value as YAML data."""
    match value:
        case Expression(text):
            return f"${{{text}}}"
        case Linear():
            return f"${{{_inner(value)}}}"
        case First(bool() as first, bool(), index):
            return f"${{{index} {'==' if first else '>'} 0}}"
        case First(first, rest, index):
            if isinstance(first, First) and first.first == rest:
                test = f"{first.index} > 0 and {index} == 0"
                return f"${{{_inner(first.rest)} if {test} else {_inner(rest)}}}"
            return f"${{{_inner(first)} if {index} == 0 else {_inner(rest)}}}"
        case list():
            return [value_of(item) for item in value]
        case dict():
            return {key: value_of(item) for key, item in value.items()}
        case _:
            return value


def _inner(value: Any) -> str:
    """A value inside of an expression."""
    match value:
        case Expression(text):
            return text
        case Linear(scale, count, offset, index):
            position = f"({index} + {_inner(offset)})" if offset else index
            return f"{scale:g} * {position}" + (f" / {count}" if count > 1 else "")
        case First(first, rest, index):
            return f"({_inner(first)} if {index} == 0 else {_inner(rest)})"
        case None:
            return "none"
        case bool():
            return str(value).lower()
        case _:
            return repr(value)
