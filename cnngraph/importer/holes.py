"""How values that differ between copies of one structure can be written as expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cnngraph.importer.nodes import SpecNode
from cnngraph.ops import OPS
from cnngraph.shape import TensorShape


@dataclass(frozen=True)
class Expression:
    """The text of an expression, without `${}`."""

    text: str


@dataclass(frozen=True)
class First:
    """A value for the first copy of a repeat, and another for the rest."""

    first: Any
    rest: Any
    index: str = "i"


_VARIES = TensorShape((0,))
"""The input of a node of a template whose copies have different numbers of channels."""

Explain = Callable[[str, SpecNode, Sequence[Any], Sequence[int]], Any]
"""Name of an argument, its node, its values, and the input's channels in each copy -> what to
write."""


def signature(nodes: Sequence[SpecNode], *, own_names: bool = True) -> Any:
    """A key that is equal for nodes of the same structure: kinds and names, without arguments.

    With `own_names` false, the names of the nodes themselves may differ.
    """
    return tuple(
        (
            node.kind,
            node.name if own_names else "",
            tuple((name, signature(part)) for name, part in node.parts.items()),
            node.args.get("merge"),
            _copies(node),
        )
        for node in nodes
    )


def _copies(node: SpecNode) -> Any:
    """What must be equal of a `repeat`: its items, and its length if names depend on it."""
    if node.kind != "repeat":
        return None
    return repr(node.args.get("over")), None if node.name else node.args.get("times")


def generalize(copies: Sequence[Sequence[SpecNode]], explain: Explain) -> list[SpecNode] | None:
    """One template for lists of nodes of the same structure, or None if a value is unexplained."""
    template: list[SpecNode] = []
    for group in zip(*copies, strict=True):
        first = group[0]
        channels = [node.input.channels for node in group]
        args: dict[str, Any] = {}
        names = dict.fromkeys(name for node in group for name in node.args)
        for name in names:
            values = [node.args.get(name, default_of(node.kind, name)) for node in group]
            if name == "shortcut":  # `project` is the identity where shapes are equal
                args[name] = "project"
                continue
            if all(value == values[0] for value in values):
                args[name] = values[0]
                continue
            written = _explained(name, first, values, channels, explain)
            if written is None:
                return None
            args[name] = written
        parts: dict[str, list[SpecNode]] = {}
        for key in first.parts:
            part = generalize([node.parts[key] for node in group], explain)
            if part is None:
                return None
            parts[key] = part
        input = first.input if len(set(channels)) == 1 else _VARIES
        template.append(
            SpecNode(first.kind, args, parts, first.name, input, first.weighted, first.path)
        )
    return template


def _explained(
    name: str, node: SpecNode, values: list[Any], channels: list[int], explain: Explain
) -> Any:
    """What to write for one argument; names of a join and `args` are explained one by one."""
    if all(isinstance(value, dict) for value in values):
        return _explained_items(node, values, channels, explain)
    if name == "with" and all(isinstance(value, list) for value in values):
        if len({len(value) for value in values}) > 1:
            return None
        items: list[Any] = []
        for each in zip(*values, strict=True):
            same = all(item == each[0] for item in each)
            items.append(each[0] if same else _explained("skip", node, [*each], channels, explain))
        return None if None in items else items
    if any(isinstance(value, First) for value in values):
        sides: list[Any] = []
        for side in ("first", "rest"):
            each = [getattr(value, side) if isinstance(value, First) else value for value in values]
            same = all(value == each[0] for value in each)
            sides.append(each[0] if same else explain(name, node, each, channels))
        return None if None in sides else First(*sides)
    if any(isinstance(value, Expression) for value in values):
        return None
    return explain(name, node, values, channels)


def _explained_items(
    node: SpecNode, values: list[Any], channels: list[int], explain: Explain
) -> dict[str, Any] | None:
    """What to write for mappings with the same keys."""
    if len({tuple(value) for value in values}) > 1:
        return None
    items: dict[str, Any] = {}
    for key in values[0]:
        each = [value[key] for value in values]
        same = all(item == each[0] for item in each)
        items[key] = each[0] if same else _explained(key, node, each, channels, explain)
        if items[key] is None and not same:
            return None
    return items


def default_of(kind: str, argument: str) -> Any:
    """The default of an op's argument, as it would be written in a spec."""
    field = OPS[kind].model_fields.get(argument) if kind in OPS else None
    if field is None or field.is_required():
        return None
    value = field.default
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def by_channels(values: Sequence[Any], channels: Sequence[int]) -> Expression | None:
    """Values as a multiple or a fraction of the input's channels."""
    return by_factor(values, channels, "in_channels")


def by_factor(values: Sequence[Any], known: Sequence[Any], name: str) -> Expression | None:
    """Values as a multiple or a fraction of known ones."""
    if not all(type(item) is int and item > 0 for item in (*values, *known)):
        return None
    if list(values) == list(known):
        return Expression(name)
    factor, rest = divmod(values[0], known[0])
    if not rest and all(value == factor * base for value, base in zip(values, known, strict=True)):
        return Expression(f"{factor} * {name}")
    divisor, rest = divmod(known[0], values[0])
    if rest or any(base % divisor for base in known):
        return None
    if any(value != base // divisor for value, base in zip(values, known, strict=True)):
        return None
    return Expression(f"{name} // {divisor}")
