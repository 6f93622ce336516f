"""Modules of the same structure become one block with parameters."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from cnngraph.importer.holes import (
    Expression,
    by_channels,
    by_factor,
    default_of,
    generalize,
    signature,
)
from cnngraph.importer.nodes import NO_LEVEL, SpecNode
from cnngraph.importer.source import Source
from cnngraph.importer.steps import parent_of
from cnngraph.ops import OPS
from cnngraph.spec.document import COMPOSITES
from cnngraph.spec.expressions import RESERVED

_SHORT = {"conv2d": "conv", "batch_norm": "bn", "linear": "fc", "layer_norm": "norm"}
_CONTAINERS = {"sequential", "module_list", "module_dict", "level", "branch", "join_level"}


@dataclass
class BlockSpec:
    """A block of the spec.

    Attributes:
        params: its parameters with their defaults.
        order: the names of nodes whose weights come first, if they do not run in that order.
    """

    name: str
    params: dict[str, Any]
    body: list[SpecNode]
    order: list[str]


@dataclass
class _Params:
    """The parameters of a block while its values are explained."""

    names: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])

    def explain(
        self, argument: str, node: SpecNode, values: Sequence[Any], channels: Sequence[int]
    ) -> Any:
        """An expression for values that differ between the calls of a block; see `Explain`."""
        by_input = by_channels(values, channels)
        follows = node.kind == "module" or argument in ("groups", "num_parameters")
        if follows and by_input is not None:
            return by_input
        for name, known in self.names.items():
            if known == list(values):
                return Expression(name)
        if argument == "padding":
            for name, known in self.names.items():
                if name.endswith("kernel_size") and list(values) == [_half(k) for k in known]:
                    return Expression(f"{name} // 2")
        if argument.endswith(("channels", "features", "width")):
            for name, known in self.names.items():
                if (found := by_factor(values, known, name)) is not None:
                    return found
            if by_input is not None:
                return by_input
        name = self._new(argument, node)
        self.names[name] = list(values)
        default = default_of(node.kind, argument)
        common, times = Counter(map(str, values)).most_common(1)[0]
        usual = next(value for value in values if str(value) == common)
        if default in values or (times > 1 and argument in ("stride", "bias")):
            self.defaults[name] = default if default in values else usual
        elif default is not None and usual is not None and times > len(values) // 2:
            self.defaults[name] = usual
        else:
            self.defaults[name] = None
        types = {type(value) for value in values} | {type(self.defaults[name])}
        if len(types - {type(None)}) > 1 or (self.defaults[name] is not None and None in values):
            self.defaults[name] = None
        return Expression(name)

    def _new(self, argument: str, node: SpecNode) -> str:
        taken = {*self.names, *RESERVED, "name", *OPS}
        argument = "skip" if argument in ("with", "from", "value") else argument
        stem = re.sub(r"\W", "_", node.name)
        options = [argument, f"{stem}_{argument}" if stem and not stem[0].isdigit() else argument]
        for option in options:
            if option not in taken:
                return option
        numbered = (f"{options[-1]}_{number}" for number in count(2))
        return next(name for name in numbered if name not in taken)


def _half(value: Any) -> Any:
    return value // 2 if type(value) is int else value


def find_blocks(
    graph: list[SpecNode],
    source: Source,
    fold: Callable[[list[SpecNode]], list[SpecNode]],
) -> list[BlockSpec]:
    """Replaces levels of the same structure in `graph` by calls of blocks, the innermost first.

    Args:
        graph: the nodes of the network, which are changed.
        source: the module that is imported.
        fold: folds the repeats in a list of nodes.
    """
    blocks: dict[str, BlockSpec] = {}
    levels: dict[int, list[SpecNode]] = defaultdict(list)
    for node in graph:
        _by_height(node, levels)
    for height in sorted(levels):
        groups: dict[Any, list[SpecNode]] = defaultdict(list)
        for level in levels[height]:
            _fold_parts(level, fold)
            groups[signature(level.parts["body"])].append(level)
        for members in groups.values():
            if len(members) > 1 and _is_worth_a_block(members[0]):
                _make_block(members, blocks, source)
    return list(blocks.values())


def _fold_parts(node: SpecNode, fold: Callable[[list[SpecNode]], list[SpecNode]]) -> None:
    for key, part in node.parts.items():
        for inner in part:
            if inner.kind not in ("sequential", "aux"):
                _fold_parts(inner, fold)
        node.parts[key] = fold(part)


def _by_height(node: SpecNode, levels: dict[int, list[SpecNode]]) -> int:
    heights = [_by_height(inner, levels) for part in node.parts.values() for inner in part]
    height = max(heights, default=-1)
    if node.kind != "sequential":
        return height
    levels[height + 1].append(node)
    return height + 1


def _is_worth_a_block(level: SpecNode) -> bool:
    body = level.parts["body"]
    if len(body) == 1 and body[0].kind in ("repeat", "dense"):
        return False
    return sum(not node.parts for node in level.walk()) > 1


def _make_block(members: list[SpecNode], blocks: dict[str, BlockSpec], source: Source) -> None:
    params = _Params()
    body = generalize([member.parts["body"] for member in members], params.explain)
    if body is None:
        return
    name = _block_name(members, source, blocks)
    blocks[name] = BlockSpec(name, dict(params.defaults), body, _order(members, source))
    for index, member in enumerate(members):
        given = {key: values[index] for key, values in params.names.items()}
        member.kind = name
        member.parts = {}
        member.args = given
        member.weighted = True


def _block_name(
    members: Sequence[SpecNode],
    source: Source,
    blocks: dict[str, BlockSpec],
) -> str:
    """The name of the modules' class in snake case; containers are named by what they contain."""
    (written, _), *_ = Counter(source.class_of(member.path) for member in members).most_common(1)
    name = snake_case(written)
    if name in _CONTAINERS:
        names = {member.name for member in members if not member.name.isdigit()}
        kinds = [_SHORT.get(node.kind, node.kind) for node in members[0].parts["body"]]
        if len(names) == 1:
            (name,) = names
            around = {snake_case(source.class_of(parent_of(member.path))) for member in members}
            if len(around) == 1 and not around & _CONTAINERS:
                name = f"{around.pop()}_{name}"
        elif len(kinds) <= 3:
            name = "_".join(kinds)
        else:
            name = f"{kinds[0]}_block"
    name = re.sub(r"\W", "_", name)
    taken = {*blocks, *OPS, *COMPOSITES}
    if name not in taken:
        return name
    numbered = (f"{name}_{number}" for number in count(2))
    return next(name for name in numbered if name not in taken)


def _order(members: Sequence[SpecNode], source: Source) -> list[str]:
    """The names that come first in the `state_dict`, unless that is the order of execution."""
    for member in members:
        run = [name for name in _weighted_names(member.parts["body"]) if "$" not in name]
        stored = [name for name in source.children_of(member.path) if name in run]
        if len(stored) != len(run):
            continue
        for length in range(len(run)):
            first = stored[:length]
            if stored == [*first, *(name for name in run if name not in first)]:
                if first:
                    return first
                break
    return []


def _weighted_names(nodes: Sequence[SpecNode]) -> list[str]:
    """The names in one level that have weights, in order of execution."""
    names: list[str] = []
    for node in nodes:
        if node.args.get("shortcut") == "project":
            names += [*_weighted_names(node.parts["body"]), "downsample"]
        elif node.name in ("", NO_LEVEL):
            names += [name for part in node.parts.values() for name in _weighted_names(part)]
        elif node.weighted or node.parts:
            names.append(node.name)
    return [name for name in names if name]


def snake_case(name: str) -> str:
    """`BasicConv2d` -> `basic_conv2d`, `ConvBNReLU` -> `conv_bn_relu`."""
    name = name.lstrip("_").replace("ReLU", "Relu").replace("BN", "Bn").replace("SE", "Se")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
