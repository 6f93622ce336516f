"""How values that differ between copies of one structure can be written as expressions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cnngraph.importer.nodes import CHOICE, NO_LEVEL, SpecNode
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


@dataclass(frozen=True)
class Linear:
    """Numbers that grow evenly in a repeat: `scale * (index + offset) / count`."""

    scale: float
    count: int
    offset: Any
    index: str = "i"


@dataclass(frozen=True)
class Choice:
    """The values of the test of a `when`, or of a kind, before an expression is found for them."""

    values: tuple[Any, ...]
    channels: tuple[int, ...]


class _Absent:
    """The value of an argument of a node that a copy does not have."""


ABSENT = _Absent()

_VARIES = TensorShape((0,))
"""The input of a node of a template whose copies have different numbers of channels."""

Explain = Callable[[str, SpecNode, Sequence[Any], Sequence[int]], Any]
"""Name of an argument, its node, its values, and the input's channels in each copy -> what to
write."""


def signature(nodes: Sequence[SpecNode], *, own_names: bool = True) -> Any:
    """A key that is equal for nodes of the same structure: kinds and names, without arguments.

    With `own_names` false, the names of the nodes of this level may differ.
    """
    return tuple(
        (
            node.kind,
            node.name if own_names else "",
            tuple(
                (name, signature(part, own_names=own_names or node.name != NO_LEVEL))
                for name, part in node.parts.items()
            ),
            node.args.get("merge"),
            _copies(node),
        )
        for node in nodes
    )


def _copies(node: SpecNode) -> Any:
    """What must be equal of a `repeat`: its items, and its length if names depend on it."""
    if node.kind != "repeat":
        return None
    numbered = node.name or all("$" in inner.name for inner in node.parts["body"])
    return repr(node.args.get("over")), None if numbered else node.args.get("times")


def generalize(copies: Sequence[Sequence[SpecNode]], explain: Explain) -> list[SpecNode] | None:
    """One template for lists of nodes of the same structure, or None if a value is unexplained."""
    template: list[SpecNode] = []
    for group in zip(*copies, strict=True):
        present = [node for node in group if not node.absent]
        first = present[0]
        channels = [node.input.channels for node in group]
        args: dict[str, Any] = {}
        names = dict.fromkeys(name for node in present for name in node.args)
        for name in names:
            if (
                name == "shortcut" and first.kind == "residual"
            ):  # `project` is the identity where shapes are equal
                args[name] = "project"
                continue
            values = [
                ABSENT if node.absent else node.args.get(name, default_of(node.kind, name))
                for node in group
            ]
            given = [value for value in values if value is not ABSENT]
            if all(value == given[0] for value in given):
                args[name] = given[0] if given else ABSENT
                continue
            if first.kind in (CHOICE, "when"):
                args[name] = Choice(tuple(values), tuple(channels))
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
        same = len({node.input.channels for node in present}) == 1
        input = first.input if same else _VARIES
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
            given = [value for value in each if value is not ABSENT]
            same = all(value == given[0] for value in given)
            sides.append(given[0] if same else explain(name, node, each, channels))
        return None if None in sides else First(*sides)
    if all(isinstance(value, Linear) for value in values):
        first = values[0]
        if len({(value.scale, value.count, value.index) for value in values}) > 1:
            return None
        offset = explain("offset", node, [value.offset for value in values], channels)
        return None if offset is None else Linear(first.scale, first.count, offset, first.index)
    if any(isinstance(value, Expression | Linear) for value in values):
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


def agree(known: Iterable[Any], values: Iterable[Any], *, both: bool = False) -> bool:
    """Whether values are the known ones, wherever they matter; or with `both`, wherever both do."""
    return all(
        value is ABSENT or (both and own is ABSENT) or (value == own and type(value) is type(own))
        for own, value in zip(known, values, strict=True)
    )


def most_common(values: Sequence[Any]) -> tuple[Any, int]:
    """The most common of the values that matter, and how often it is there."""
    present = [value for value in values if value is not ABSENT]
    common, times = Counter(map(str, present)).most_common(1)[0]
    return next(value for value in present if str(value) == common), times


def by_channels(values: Sequence[Any], channels: Sequence[int]) -> Expression | None:
    """Values as a multiple or a fraction of the input's channels."""
    return by_factor(values, channels, "in_channels")


def by_factor(values: Sequence[Any], known: Sequence[Any], name: str) -> Expression | None:
    """Values as a multiple or a fraction of known ones."""
    pairs = [
        (value, base) for value, base in zip(values, known, strict=True) if value is not ABSENT
    ]
    if not pairs or not all(type(item) is int and item > 0 for pair in pairs for item in pair):
        return None
    values, known = zip(*pairs, strict=True)
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


def renaming(names: Mapping[str, str]) -> Callable[[Any], Any]:
    """A function that replaces names in the expressions of a value; `names`: name -> text."""
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, names)) + r")\b")

    def renamed(value: Any) -> Any:
        match value:
            case Expression(text):
                return Expression(pattern.sub(lambda found: names[found[1]], text))
            case First(first, rest, index):
                return First(renamed(first), renamed(rest), index)
            case Linear(scale, steps, offset, index):
                return Linear(scale, steps, renamed(offset), index)
            case list():
                return [*map(renamed, value)]
            case dict():
                return {key: renamed(item) for key, item in value.items()}
            case _:
                return value

    return renamed if names else lambda value: value
