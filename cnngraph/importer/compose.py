"""Levels -> nodes of a spec: which values meet where becomes residuals, parallels and joins."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from cnngraph.importer.composites import composite
from cnngraph.importer.names import ValueNames
from cnngraph.importer.nodes import OUTER, SpecNode
from cnngraph.importer.steps import Share, Step, Steps
from cnngraph.importer.tree import Item, Level, children_of, results_of
from cnngraph.ops import Op
from cnngraph.ops.merge import Add, Concat, Multiply
from cnngraph.shape import TensorShape

_MERGES: dict[type[Op], str] = {Add: "add", Concat: "concat", Multiply: "multiply"}
_MOST_LEVELS = 8
"""A value that skips more levels than this is joined by name, as in a U-Net."""


def compose(tree: Level, network: Steps) -> tuple[list[SpecNode], dict[str, str]]:
    """The nodes of a network's `graph`, and the names of its `outputs`, if it has several.

    Where values meet in no residual or parallel, they are joined by name.
    """
    return _Composer(network, children_of(tree)).network(tree)


class _Composer:
    def __init__(self, network: Steps, children: dict[str, set[str]]) -> None:
        self._network = network
        self._heads = set(network.heads)
        self._shapes: dict[str, TensorShape] = {**network.inputs}
        self._shapes |= {step.result: step.shape for step in network.steps}
        self._names = ValueNames(network.inputs, children)

    def network(self, tree: Level) -> tuple[list[SpecNode], dict[str, str]]:
        """The nodes of the network, and the names of its outputs."""
        results = self._network.outputs.values()
        made = [step.result for step in self._network.steps if step.result in results]
        end = made[-1] if made else self._network.output
        nodes = self.sequence(tree.items, self._network.main_input, end, "")
        named = {
            name: "." if value == end else self._names.of(value, "")
            for name, value in self._network.outputs.items()
        }
        return nodes, named

    def level(self, level: Level, start: str) -> list[SpecNode]:
        """The nodes of a level, from the value that it reads to its result."""
        return self.sequence(level.items, start, level.result, level.path)

    def sequence(self, items: Sequence[Item], value: str, end: str, path: str) -> list[SpecNode]:
        """The nodes that compute `end` from `value` by these items, in the level at `path`."""
        nodes: list[SpecNode] = []
        pending = list(items)
        while pending:
            heads = [item for item in pending if self._is_head(item) and item.reads == (value,)]
            if not heads and self._is_head(pending[0]):
                heads = pending[:1]
            for item in heads:
                nodes.append(self._head(item, value, path))
                value = item.reads[0]  # which a side head passes on
                pending.remove(item)
            if heads:
                continue
            first = pending[0]
            users = [item for item in pending if value in item.reads]
            found = None
            if users != [first] or set(first.reads) != {value}:
                found = self._meeting(pending, value, end, path)
            if found is None:
                nodes += self._item(first, value, path)
                count = 1
            else:
                node, count = found
                nodes.append(node)
            value = pending[count - 1].result
            self._names.made(value, nodes, path)
            pending = pending[count:]
        if value != end:
            nodes.append(SpecNode("from", {"value": self._names.of(end, path)}))
        return nodes

    def _is_head(self, item: Item) -> bool:
        return isinstance(item, Level) and bool(item.results) and set(item.results) <= self._heads

    def _head(self, item: Item, value: str, path: str) -> SpecNode:
        assert isinstance(item, Level)
        read = item.reads[0]
        self._heads -= {*item.results}
        args = {} if read == value else {"from": self._names.of(read, path)}
        body = self.level(item, read)
        name, shape = _relative(item.path, path), self._shapes[read]
        return SpecNode("aux", args, {"body": body}, name, shape, path=item.path)

    def _item(self, item: Item, value: str, path: str) -> list[SpecNode]:
        """A step or level, which may read other values than the current one by name."""
        if isinstance(item, Step) and type(item.op) in _MERGES:
            return [self._join(item, value, path)]
        own = item.reads[0]
        if value in item.reads and not (isinstance(item, Step) and _given(item.op)):
            own = value
        if isinstance(item, Step):
            args = arguments(item.op)
            if isinstance(item.op, Share):
                args["of"] = self._names.relative(item.op.of, path)
            for argument, read in zip(_given(item.op), item.reads[1:], strict=False):
                args[argument] = self._names.of(read, path)
            node = SpecNode(item.op.kind, args, {}, "", item.input, item.weighted)
            node.name = _relative(item.module, path) if item.module else ""
        else:
            origin = None if own == value else self._names.of(own, path)
            body = self.level(item, own)
            name, shape = _relative(item.path, path), self._shapes[own]
            node = SpecNode("sequential", {}, {"body": body}, name, shape, path=item.path)
            node.result = self._shapes[item.result]
            for inner in body:
                if name and re.match(rf"{re.escape(name)}[-_]", inner.name):
                    inner.name = OUTER + inner.name.removeprefix(name)
            if origin is not None:
                return [SpecNode("from", {"value": origin}), node]
        if own != value:
            node.args = {"from": self._names.of(own, path), **node.args}
        return [node]

    def _join(self, step: Step, value: str, path: str) -> SpecNode:
        """The sum, product or concatenation of values by name."""
        args: dict[str, Any] = {}
        names = ["." if read == value else self._names.of(read, path) for read in step.reads]
        if "." not in names:
            args["from"], names[0] = names[0], "."
        if isinstance(step.op, Concat) and names[0] != ".":
            args["with"] = names
        else:
            names.remove(".")
            args["with"] = names[0] if len(names) == 1 else names
        return SpecNode(_MERGES[type(step.op)], args, {}, "", step.input)

    # --- values that meet -------------------------------------------------------------------

    def _meeting(
        self, pending: Sequence[Item], value: str, end: str, path: str
    ) -> tuple[SpecNode, int] | None:
        """A composite for all that happens up to where all paths from `value` meet.

        Returns it with the number of items; None if they do not meet in one composite.
        """
        inner = {value}
        for count, last in enumerate(pending, 1):
            needed = {name for item in pending[count:] for name in item.reads} | {end}
            if not inner & (needed | self._heads):
                break
            inner |= {*results_of(last)}
        else:
            return None
        region = pending[: count - 1]
        merge = _MERGES.get(type(last.op)) if isinstance(last, Step) else None
        if merge is None:
            return None
        levels = sum(isinstance(item, Level) for item in region)
        if value in last.reads and levels > _MOST_LEVELS:
            return None
        branches = self._branches(region, last.reads, merge, value, path)
        if branches is None:
            return None
        return composite(merge, branches, self._shapes[value]), count

    def _branches(
        self, items: Sequence[Item], reads: Sequence[str], merge: str, value: str, path: str
    ) -> list[list[SpecNode]] | None:
        """The nodes of each branch from `value` to one of `reads`; None if they share items."""
        groups = _independent(items, reads)
        if sum(len(members) for _, members in groups) != len(items):
            return None
        known = {value, *(name for item in items for name in results_of(item))}
        if not {read for item in items for read in item.reads} | set(reads) <= known:
            return None
        branches: list[list[SpecNode]] = []
        for ends, members in groups:
            if len(ends) == 1:
                branches.append(self.sequence(members, value, ends[0], path))
                continue
            if merge == "multiply":
                return None
            branch = self._divided(members, ends, merge, value, path)
            if branch is None:
                return None
            branches.append(branch)
        return branches

    def _divided(
        self, members: Sequence[Item], ends: Sequence[str], merge: str, value: str, path: str
    ) -> list[SpecNode] | None:
        """A branch whose end divides into several: what they share, and then a composite."""
        nodes: list[SpecNode] = []
        pending = list(members)
        while pending and value not in ends:
            users = [item for item in pending if value in item.reads]
            if users != pending[:1] or set(pending[0].reads) != {value}:
                break
            nodes += self._item(pending[0], value, path)
            value = pending.pop(0).result
            self._names.made(value, nodes, path)
        if len(pending) == len(members):
            return None
        branches = self._branches(pending, ends, merge, value, path)
        if branches is None:
            return None
        return [*nodes, composite(merge, branches, self._shapes[value])]


def _independent(items: Sequence[Item], reads: Sequence[str]) -> list[tuple[list[str], list[Item]]]:
    """The ends of branches, grouped where branches share items, with the items of each."""
    maker = {name: item for item in items for name in results_of(item)}
    groups: list[tuple[list[str], list[Item]]] = []
    for end in reads:
        members = _ancestors(end, maker)
        ends = [end]
        while groups and any(item in members for item in groups[-1][1]):
            before, shared = groups.pop()
            ends = [*before, *ends]
            members = [*shared, *(item for item in members if item not in shared)]
        groups.append((ends, [item for item in items if item in members]))
    return groups


def _ancestors(end: str, maker: dict[str, Item]) -> list[Item]:
    found: list[Item] = []
    waiting = [end]
    while waiting:
        item = maker.get(waiting.pop())
        if item is not None and item not in found:
            found.append(item)
            waiting += item.reads
    return found


def _relative(path: str, level: str) -> str:
    return path.removeprefix(f"{level}.") if level else path


def _given(op: Op) -> list[str]:
    """The arguments of an op that name values."""
    return [name for name in op.references if getattr(op, name) is not None]


def arguments(op: Op) -> dict[str, Any]:
    """The arguments of an op that differ from their defaults; equal pairs as one number."""
    found: dict[str, Any] = {}
    for name, field in type(op).model_fields.items():
        value = getattr(op, name)
        if not field.is_required() and value == field.default:
            continue
        if name == "stride" and value == getattr(op, "kernel_size", None) and field.default is None:
            continue  # a pool's usual stride
        if isinstance(value, tuple) and len(set(value)) == 1 and name not in ("mean", "std"):
            value = value[0]
        found[field.alias or name] = list(value) if isinstance(value, tuple) else value
    return found
