"""Siblings of the same structure become a `repeat`, or a `dense`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cnngraph.importer.holes import (
    ABSENT,
    Expression,
    First,
    Linear,
    agree,
    by_channels,
    generalize,
    most_common,
    signature,
)
from cnngraph.importer.loops import unify_loops
from cnngraph.importer.nodes import COPIES, NO_LEVEL, SpecNode
from cnngraph.ops import OPS
from cnngraph.spec.expressions import RESERVED

_MOST_STEPS = 500
_FEWEST_ITEMS = 3
"""Copies that differ in more than the counter are folded if there are at least this many."""
_MOST_VARIABLES = 8


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
            if agree(known, values):
                return Expression(name)
        if (found := _linear(argument, values, self.index)) is not None:
            return found
        usual, _ = most_common(values)
        values = [usual if value is ABSENT else value for value in values]
        first, *rest = values
        if all(value == rest[0] for value in rest) and _plain(values):
            if not isinstance(first, bool):
                self.exceptions.add(argument)
            return First(first, rest[0], self.index)
        if not _plain(values):
            return None
        found = None if argument in ("layers", "times") else self._of_the_index(values)
        if found is not None:
            return found
        name = {"times": "depth", "with": "skip", "from": "skip"}.get(argument, argument)
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


def _linear(argument: str, values: Sequence[Any], index: str) -> Linear | None:
    """Numbers that grow evenly, such as the probabilities `p` of stochastic depth."""
    known = [(at, value) for at, value in enumerate(values) if value is not ABSENT]
    if len(known) < (2 if argument == "p" else _FEWEST_ITEMS) or not all(
        type(value) is float for _, value in known
    ):
        return None
    (first, start), *_, (last, end) = known
    step = (end - start) / (last - first)
    if not step or any(abs(start + step * (at - first) - value) > 1e-9 for at, value in known):
        return None
    offset = start / step - first
    for count in range(1, _MOST_STEPS):
        scale = round(step * count, 4)
        if abs(step * count - scale) < 1e-9 and abs(offset - round(offset)) < 1e-6:
            return Linear(scale, count, round(offset), index)
    return None


def fold_repeats(nodes: list[SpecNode], *, most_nodes: int = 3) -> list[SpecNode]:
    """The nodes with runs of the same structure folded into `repeat` and `dense`.

    A repeat of several nodes, such as a block and a pool, has at most `most_nodes` in its body.
    """
    nodes = _fold_dense(nodes)
    changed = unify_loops(nodes)
    found: list[SpecNode] = []
    at = 0
    while at < len(nodes):
        folded, end = _folded(nodes, at, most_nodes)
        found.append(folded or nodes[at])
        at = end if folded else at + 1
    for node, body in changed:
        if any(each is node for each in found):
            node.parts["body"] = body
    return found


def _folded(nodes: Sequence[SpecNode], at: int, most_nodes: int) -> tuple[SpecNode | None, int]:
    """The longest `repeat` of nodes that start at `at`, and its end."""
    for period in range(1, most_nodes + 1):
        end = _run(nodes, at, period)
        fewest = 1 if period == 1 else _FEWEST_ITEMS - 1
        while end - at > fewest * period:
            copies = [nodes[start : start + period] for start in range(at, end, period)]
            folded = _repeat(copies, whole=at == 0 and end == len(nodes))
            if folded is not None:
                return folded, end
            end -= period
    return None, at


def _run(nodes: Sequence[SpecNode], at: int, period: int) -> int:
    """The end of the run of groups of `period` nodes with the same structure from `at`."""
    first = nodes[at : at + period]
    if all(node.kind in OPS for node in first) or any(node.kind == "aux" for node in first):
        return at + period
    end = at + period
    structure = signature(first, own_names=False)
    while signature(nodes[end : end + period], own_names=False) == structure:
        copies = [nodes[start : start + period] for start in range(at, end + 1, period)]
        if None in _names(copies):
            break
        end += period
    return end


def _names(copies: Sequence[Sequence[SpecNode]]) -> list[_Numbers | None]:
    """What the names of each node of a level have in common in its copies."""
    rows = zip(*map(_level, copies), strict=True)
    return [_numbered([node.name for node in row]) for row in rows]


def _level(nodes: Sequence[SpecNode]) -> list[SpecNode]:
    """The nodes of one level, with those in composites that add no level."""
    found: list[SpecNode] = []
    for node in nodes:
        inner = [*node.parts.values()] if node.name == NO_LEVEL else []
        found += [node, *(each for part in inner for each in _level(part))]
    return found


def _numbered(names: Sequence[str]) -> _Numbers | None:
    """What names such as layer1, layer2 have in common."""
    if all(name == names[0] for name in names) and names[0] in ("", NO_LEVEL):
        return _Numbers(names[0], 0, 0)
    parts = [re.fullmatch(r"(.*?)(0|[1-9]\d*)", name) for name in names]
    stems = {part[1] if part else None for part in parts}
    if len(stems) > 1 or None in stems:
        return None
    numbers = [int(part[2]) for part in parts if part]
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if step < 1 or numbers != [numbers[0] + step * index for index in range(len(names))]:
        return None
    return _Numbers(stems.pop() or "", numbers[0], step)


@dataclass(frozen=True)
class _Numbers:
    """Names that consist of a stem and a number, which grows by a step."""

    stem: str
    start: int
    step: int

    def name(self, index: str) -> str:
        """The name of each copy in a loop with this counter."""
        if not self.step:
            return self.stem
        number = index if self.step == 1 else f"{self.step} * {index}"
        return (
            f"{self.stem}${{{number} + {self.start}}}"
            if self.start
            else f"{self.stem}${{{number}}}"
        )


def _repeat(copies: Sequence[Sequence[SpecNode]], *, whole: bool) -> SpecNode | None:
    """One `repeat` for groups of sibling nodes; `whole` if they are all nodes of their level."""
    names = _names(copies)
    if any(numbers is None or (numbers.step > 1 and len(names) == 1) for numbers in names):
        return None
    nested = any(node.kind in ("repeat", "dense") for top in copies[0] for node in top.walk())
    loop = _Loop("stage" if nested else "i")
    body = generalize(copies, loop.explain)
    if body is None:
        return None
    if len(copies) < _FEWEST_ITEMS and (loop.names or not loop.exceptions <= {"stride"}):
        return None
    if len(loop.names) + len(loop.exceptions) > min(_MOST_VARIABLES, len(copies) - 1):
        return None
    for node, numbers in zip(_level(body), names, strict=True):
        node.name = numbers.name(loop.index) if numbers else ""
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
    input = copies[0][0].input
    if whole and names == [_Numbers("", 0, 1)] and not _becomes_loop(body[0]):
        body[0].name = ""  # numbered by the counter, if the repeat has a name
        return SpecNode("repeat", args, {"body": body}, COPIES, input)
    return SpecNode("repeat", args, {"body": body}, "", input)


def _becomes_loop(node: SpecNode) -> bool:
    """Whether a level is only a loop, which takes its place and then needs its name."""
    return [inner.kind for inner in node.parts.get("body", [])] in (["repeat"], ["dense"])


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
    numbers = _numbered([body.name for body in bodies])
    same = {repr(signature([body], own_names=False)) for body in bodies}
    if numbers is None or len(same) > 1:
        return None
    loop = _Loop("i")
    template = generalize([[body] for body in bodies], loop.explain)
    if template is None or loop.names:
        return None
    (body,) = template
    body.name = numbers.name("i")
    name = COPIES if whole else NO_LEVEL
    return SpecNode("dense", {"layers": len(bodies)}, {"body": [body]}, name, layers[0].input)
