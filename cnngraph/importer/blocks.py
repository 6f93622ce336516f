"""Modules of the same structure become one block with parameters."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from cnngraph.importer.holes import generalize, signature
from cnngraph.importer.nodes import NO_LEVEL, OUTER, SpecNode
from cnngraph.importer.params import Params
from cnngraph.importer.source import Source
from cnngraph.importer.steps import parent_of
from cnngraph.importer.unify import unify
from cnngraph.ops import OPS
from cnngraph.spec.document import COMPOSITES

_SHORT = {"conv2d": "conv", "batch_norm": "bn", "linear": "fc", "layer_norm": "norm"}
_CONTAINERS = {"sequential", "module_list", "module_dict", "level", "branch", "join_level"}
_MOST_ROUNDS = 20
_MOST_PARAMS_OF_A_CHAIN = 3
"""A container of calls of one block that would need more parameters than this is no block."""


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


def find_blocks(
    graph: list[SpecNode],
    source: Source,
    fold: Callable[[list[SpecNode]], list[SpecNode]],
    *,
    variants: bool,
) -> list[BlockSpec]:
    """Replaces levels of the same structure in `graph` by calls of blocks, the innermost first.

    Args:
        graph: the nodes of the network, which are changed.
        source: the module that is imported.
        fold: folds the repeats in a list of nodes.
        variants: whether levels that differ in a few nodes become one block.
    """
    blocks: dict[str, BlockSpec] = {}
    for levels in _by_height(graph, source):
        groups: dict[Any, list[SpecNode]] = defaultdict(list)
        for level in levels:
            _fold_parts(level, fold)
            groups[signature(level.parts["body"])].append(level)
        alike = [*groups.values()]
        for members in _alike(alike, source) if variants else alike:
            if len(members) > 1 and _is_worth_a_block(members):
                _make_block(members, blocks, source)
    return list(blocks.values())


def _alike(groups: list[list[SpecNode]], source: Source) -> list[list[SpecNode]]:
    """The groups, of which those of one class are joined if `unify` can give them one structure."""
    joined: list[list[SpecNode]] = []
    for group in sorted(groups, key=len, reverse=True):
        role = _role(group[0], source)
        role = _common_role(group, source)
        for other in joined:
            if role is None or role != _common_role(other, source):
                continue
            both = [*other, *group]
            if (
                unify([member.parts["body"] for member in both])
                and _order(both, source) is not None
            ):
                other += group
                break
        else:
            joined.append(group)
    return joined


def _common_role(levels: Sequence[SpecNode], source: Source) -> str | None:
    ((role, _),) = Counter(_role(level, source) for level in levels).most_common(1)
    return role


def _role(level: SpecNode, source: Source) -> str | None:
    """What a level is: its class, or for a container its place in a module of a class."""
    own = snake_case(source.class_of(level.path))
    if own not in _CONTAINERS:
        return own
    around = snake_case(source.class_of(parent_of(level.path)))
    return None if around in _CONTAINERS or level.name.isdigit() else f"{around}_{level.name}"


def _fold_parts(node: SpecNode, fold: Callable[[list[SpecNode]], list[SpecNode]]) -> None:
    for key, part in node.parts.items():
        for inner in part:
            if inner.kind not in ("sequential", "aux"):
                _fold_parts(inner, fold)
        node.parts[key] = fold(part)


def _by_height(graph: list[SpecNode], source: Source) -> list[list[SpecNode]]:
    """The levels, the innermost first; those of one role come together."""
    levels: list[SpecNode] = []
    roles: dict[int, str | None] = {}
    nested: set[str | None] = {None}

    def collect(node: SpecNode, around: tuple[str | None, ...]) -> None:
        if node.kind == "sequential":
            levels.append(node)
            role = roles[id(node)] = _role(node, source)
            nested.update({role} & {*around})
            around = (*around, role)
        for part in node.parts.values():
            for inner in part:
                collect(inner, around)

    heights: dict[int, int] = {}
    lowest: Counter[str | None] = Counter()

    def height_of(node: SpecNode) -> int:
        inside = [height_of(inner) for part in node.parts.values() for inner in part]
        height = max(inside, default=-1)
        if id(node) in roles:
            role, height = roles[id(node)], height + 1
            if role not in nested:
                height = lowest[role] = max(height, lowest[role])
            heights[id(node)] = height
        return height

    for node in graph:
        collect(node, ())
    for _ in range(_MOST_ROUNDS):
        before = dict(heights)
        for node in graph:
            height_of(node)
        if heights == before:
            break
    ordered: dict[int, list[SpecNode]] = defaultdict(list)
    for level in levels:
        ordered[heights[id(level)]].append(level)
    return [ordered[height] for height in sorted(ordered)]


def _is_worth_a_block(members: Sequence[SpecNode]) -> bool:
    bodies = [member.parts["body"] for member in members]
    if all(len(body) == 1 and body[0].kind in ("repeat", "dense") for body in bodies):
        return False
    return max(len([*member.walk()]) for member in members) > 2


def _make_block(members: list[SpecNode], blocks: dict[str, BlockSpec], source: Source) -> None:
    known = {name: block.params for name, block in blocks.items()}
    results = [member.result or member.input for member in members]
    params = Params([member.input for member in members], results, known)
    bodies = [member.parts["body"] for member in members]
    if any(OUTER in node.name for body in bodies for top in body for node in top.walk()):
        return
    rows = unify(bodies)
    body = generalize(rows, params.explain) if rows is not None else None
    if body is None:
        return
    is_container = snake_case(source.class_of(members[0].path)) in _CONTAINERS
    is_chain = is_container and len({node.kind for node in body}) == 1
    if is_chain and len(params.values) > _MOST_PARAMS_OF_A_CHAIN:
        return
    params.decide(body)
    params.rename(body)
    name = _block_name(members, source, blocks)
    blocks[name] = BlockSpec(name, dict(params.defaults), body, _order(members, source) or [])
    for index, member in enumerate(members):
        member.kind = name
        member.parts = {}
        member.args = params.given(index)
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


def _order(members: Sequence[SpecNode], source: Source) -> list[str] | None:
    """The names that come first in the `state_dict`, unless that is the order of execution.

    None if no such names give the order of all members.
    """
    orders: list[tuple[list[str], list[str]]] = []
    for member in members:
        run = [name for name in _weighted_names(member.parts["body"]) if "$" not in name]
        stored = [name for name in source.children_of(member.path) if name in run]
        if len(stored) == len(run) and (stored, run) not in orders:
            orders.append((stored, run))
    longest = max((stored for stored, _ in orders), key=len, default=[])
    for length in range(max(1, len(longest))):
        first = longest[:length]
        if all(
            stored == sorted(run, key=lambda name: _rank(name, first)) for stored, run in orders
        ):
            return first
    return None


def _rank(name: str, first: Sequence[str]) -> int:
    return first.index(name) if name in first else len(first)


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
