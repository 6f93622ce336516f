"""Siblings of the same structure become a `repeat`, or a `dense`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnngraph.importer.holes import Expression, First, by_channels, generalize, signature
from cnngraph.importer.nodes import COPIES, NO_LEVEL, SpecNode
from cnngraph.ops import OPS
from cnngraph.spec.expressions import RESERVED

_FEWEST_ITEMS = 3
"""Copies that differ in more than the counter are folded if there are at least this many."""
_MOST_VARIABLES = 5


@dataclass
class _Loop:
    """The variables of a loop while values are explained."""

    index: str
    names: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    exceptions: set[str] = field(default_factory=set[str])

    def explain(
        self, argument: str, node: SpecNode, values: Sequence[Any], channels: Sequence[int]
    ) -> Any:
        """An expression for values that differ between the copies of a repeat; see `Explain`."""
        if (found := by_channels(values, channels)) is not None:
            return found
        for name, known in self.names.items():
            if known == list(values):
                return Expression(name)
        first, *rest = values
        if all(value == rest[0] for value in rest) and _plain(values):
            self.exceptions.add(argument)
            return First(first, rest[0], self.index)
        if not _plain(values):
            return None
        if (found := self._of_the_index(values)) is not None:
            return found
        name = "depth" if argument == "times" else argument
        taken = {*self.names, *RESERVED, *OPS, "i"}
        if name in taken:
            name = next(f"{name}_{n}" for n in range(2, 99) if f"{name}_{n}" not in taken)
        self.names[name] = list(values)
        return Expression(name)

    def _of_the_index(self, values: Sequence[Any]) -> Expression | None:
        if len(values) < _FEWEST_ITEMS or not all(type(value) is int for value in values):
            return None
        start, step = values[0], values[1] - values[0]
        if list(values) == [start + step * index for index in range(len(values))]:
            scaled = self.index if step == 1 else f"{step} * {self.index}"
            return Expression(f"{start} + {scaled}" if start else scaled)
        if start > 0 and list(values) == [start * 2**index for index in range(len(values))]:
            return Expression(f"{start} * 2 ** {self.index}")
        return None


def _plain(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float | str | bool) for value in values)


def fold_repeats(nodes: list[SpecNode]) -> list[SpecNode]:
    """The nodes with runs of the same structure folded into `repeat` and `dense`."""
    nodes = _fold_dense(nodes)
    found: list[SpecNode] = []
    at = 0
    while at < len(nodes):
        end = _run(nodes, at)
        folded = None
        while folded is None and end - at > 1:
            folded = _repeat(nodes[at:end], whole=at == 0 and end == len(nodes))
            end -= folded is None
        found.append(folded or nodes[at])
        at = end if folded else at + 1
    return found


def _run(nodes: Sequence[SpecNode], at: int) -> int:
    """The end of the run of nodes with the same structure that starts at `at`."""
    first = nodes[at]
    if first.kind in OPS or first.kind == "aux":
        return at + 1
    end = at + 1
    structure = signature([first], own_names=False)
    while end < len(nodes) and signature([nodes[end]], own_names=False) == structure:
        if _numbered([node.name for node in nodes[at : end + 1]]) is None:
            break
        end += 1
    return end


def _numbered(names: Sequence[str]) -> tuple[str, int] | None:
    """The common start and the first number of names such as layer1, layer2."""
    if all(name in ("", NO_LEVEL) for name in names):
        return names[0], 0
    parts = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    if not all(parts):
        return None
    stems = {part[1] for part in parts if part}
    numbers = [int(part[2]) for part in parts if part]
    if len(stems) > 1 or numbers != list(range(numbers[0], numbers[0] + len(names))):
        return None
    if any(part and part[2] != str(int(part[2])) for part in parts):
        return None
    return stems.pop(), numbers[0]


def _repeat(copies: Sequence[SpecNode], *, whole: bool) -> SpecNode | None:
    """One `repeat` for sibling nodes; `whole` if they are all nodes of their level."""
    pattern = _numbered([copy.name for copy in copies])
    if pattern is None:
        return None
    nested = any(node.kind in ("repeat", "dense") for node in copies[0].walk())
    loop = _Loop("stage" if nested else "i")
    template = generalize([[copy] for copy in copies], loop.explain)
    if template is None:
        return None
    if len(copies) < _FEWEST_ITEMS and (loop.names or not loop.exceptions <= {"stride"}):
        return None
    if len(loop.names) + len(loop.exceptions) > _MOST_VARIABLES:
        return None
    (body,) = template
    body.name = _name(*pattern, loop.index)
    args: dict[str, Any] = {}
    if not loop.names:
        args["times"] = len(copies)
    elif len(loop.names) == 1:
        ((name, values),) = loop.names.items()
        args |= {"over": values, "as": name}
    else:
        args["over"] = [list(item) for item in zip(*loop.names.values(), strict=True)]
        args["as"] = list(loop.names)
    if loop.index != "i":
        args["index"] = loop.index
    if whole and pattern == ("", 0):
        body.name = ""  # numbered by the counter, if the repeat has a name
        return SpecNode("repeat", args, {"body": [body]}, COPIES, copies[0].input)
    return SpecNode("repeat", args, {"body": [body]}, "", copies[0].input)


def _name(stem: str, start: int, index: str) -> str:
    if stem == NO_LEVEL:
        return stem
    counter = f"${{{index} + {start}}}" if start else f"${{{index}}}"
    return f"{stem}{counter}"


def _fold_dense(nodes: list[SpecNode]) -> list[SpecNode]:
    """The nodes with runs of `concat(x, body(x))` folded into `dense`."""
    found: list[SpecNode] = []
    at = 0
    while at < len(nodes):
        end = at
        while end < len(nodes) and _grows(nodes[end]):
            end += 1
        dense = _dense(nodes[at:end], whole=at == 0 and end == len(nodes))
        found.append(dense or nodes[at])
        at = end if dense else at + 1
    return found


def _grows(node: SpecNode) -> bool:
    parts = list(node.parts.values())
    return (
        node.kind == "parallel"
        and node.name == NO_LEVEL
        and not node.args
        and len(parts) == 2
        and not parts[0]
        and len(parts[1]) == 1
    )


def _dense(layers: Sequence[SpecNode], *, whole: bool) -> SpecNode | None:
    bodies = [layer.parts["1"][0] for layer in layers]
    if len(bodies) < 2:
        return None
    pattern = _numbered([body.name for body in bodies])
    same = {repr(signature([body], own_names=False)) for body in bodies}
    if pattern is None or len(same) > 1:
        return None
    loop = _Loop("i")
    template = generalize([[body] for body in bodies], loop.explain)
    if template is None or loop.names:
        return None
    (body,) = template
    body.name = _name(*pattern, "i")
    name = COPIES if whole else NO_LEVEL
    return SpecNode("dense", {"layers": len(bodies)}, {"body": [body]}, name, layers[0].input)
