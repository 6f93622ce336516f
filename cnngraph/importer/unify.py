"""Levels that differ in a few nodes get one structure, so that they can be one block.

A node that only some of them have becomes a `when`. Nodes of different kinds become a `CHOICE`, and
so does a body that is a residual in only some of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from cnngraph.importer.holes import signature
from cnngraph.importer.nodes import CHOICE, NO_LEVEL, SpecNode
from cnngraph.ops import OPS
from cnngraph.ops.activation import ReLU

_MOST_OPTIONAL = 2
"""Structures with more optional nodes than this stay blocks of their own."""

_READS = ("from", "with", "value", "of", "like")
"""The arguments that name values."""
_ACTIVATIONS = {kind for kind, op in OPS.items() if op.__module__ == ReLU.__module__}

Row = list[SpecNode]
Cell = SpecNode | None


def unify(rows: Sequence[Row]) -> list[Row] | None:
    """Lists of nodes in one structure, or None if they differ too much.

    The given nodes are not changed.
    """
    rows = _with_sums(_with_joins([_without_positions(row) for row in rows]))
    structures = {repr(signature(row)): row for row in rows}
    if len(structures) == 1:
        return [*rows]
    profile = _profile(structures)
    own = [profile[repr(signature(row))] for row in rows]
    columns = [
        [row[at] if at is not None else None for row, at in zip(rows, places, strict=True)]
        for places in zip(*own, strict=True)
    ]
    unified = [_cells(column) for column in columns]
    optional = [cells for cells in unified if cells and cells[0].kind == "when"]
    names = [cells[0].parts["body"][0].name for cells in optional]
    names = [name for name in names if name not in ("", NO_LEVEL)]
    if None in unified or len(optional) > _MOST_OPTIONAL or len(optional) * 2 > len(columns) + 1:
        return None
    if len({*names}) < len(names):
        return None
    found = [[cells[index] for cells in unified if cells] for index in range(len(rows))]
    if any(_reads_differ(cells, rows) for cells in unified if cells):
        return None
    for row in found:
        for node, following in reversed([*pairwise(row)]):
            if node.args.get("test") is False:
                node.input = following.input
    return found if len({repr(signature(row)) for row in found}) == 1 else None


def _reads_differ(cells: Sequence[SpecNode], rows: Sequence[Row]) -> bool:
    """Whether nodes read values of different names, of which some are values of the rows."""
    own = {node.name for row in rows for top in row for node in top.walk()} - {""}
    local = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in own))
    for nodes in zip(*(cell.walk() for cell in cells), strict=True):
        for argument in _READS:
            names = {repr(node.args.get(argument)) for node in nodes if not node.absent}
            if own and len(names) > 1 and any(map(local.search, names)):
                return True
    return False


def _without_positions(row: Row) -> Row:
    """The nodes without their names, if each is named by its position."""
    names = [node.name for node in row]
    if any(node.kind == "repeat" for node in row) or not any(names):
        return row
    if any(name not in ("", str(index)) for index, name in enumerate(names)):
        return row
    return [replace(node, name="") for node in row]


def _with_joins(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows with a `CHOICE` of `residual` and `sequential`, if only some have a residual."""
    places = [next((at for at, node in enumerate(row) if _joins(node)), None) for row in rows]
    found = [(at, row) for at, row in zip(places, rows, strict=True) if at is not None]
    others = [node for at, row in zip(places, rows, strict=True) if at is None for node in row]
    sides = {(repr(signature(row[:at])), repr(signature(row[at + 1 :]))) for at, row in found}
    if not found or not others or len(sides) > 1 or any(node.kind == "residual" for node in others):
        return rows
    start = found[0][0]
    after = len(found[0][1]) - start - 1
    joined: list[Row] = []
    for at, row in zip(places, rows, strict=True):
        end = len(row) - after
        if at is None and end > start:
            inner, kind = row[start:end], "sequential"
        elif at is not None:
            inner, kind = row[at].parts["body"], "residual"
        else:
            return rows
        if (repr(signature(row[:start])), repr(signature(row[end:]))) not in sides:
            return rows
        parts = {"body": inner}
        choice = SpecNode(CHOICE, {"kind": kind}, parts, NO_LEVEL, row[start].input)
        joined.append([*row[:start], choice, *row[end:]])
    return joined


def _with_sums(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows with residuals as sums of branches, if others sum more than two."""
    sums = [node for row in rows for node in row if node.args.get("merge") == "add"]
    return [[*map(_as_sum, row)] for row in rows] if sums else rows


def _as_sum(node: SpecNode) -> SpecNode:
    if node.kind != "residual" or node.args or "shortcut" not in node.parts:
        return node
    parts = {str(index): part for index, part in enumerate(node.parts.values())}
    return replace(node, kind="parallel", args={"merge": "add"}, parts=parts)


def _joins(node: SpecNode) -> bool:
    own = node.kind == "residual" and node.name == NO_LEVEL and not node.args
    return own and [*node.parts] == ["body"]


def _profile(structures: dict[str, Row]) -> dict[str, list[int | None]]:
    """For each structure, which of its nodes stands in each of the common columns."""
    longest, *others = sorted(structures, key=lambda key: -len(structures[key]))
    profile: dict[str, list[int | None]] = {longest: [*range(len(structures[longest]))]}
    columns = [*structures[longest]]
    for key in others:
        row = structures[key]
        pairs = _aligned(columns, row)
        profile = {
            name: [None if own is None else places[own] for own, _ in pairs]
            for name, places in profile.items()
        }
        profile[key] = [other for _, other in pairs]
        columns = [row[other or 0] if own is None else columns[own] for own, other in pairs]
    return profile


def _aligned(left: Row, right: Row) -> list[tuple[int | None, int | None]]:
    """The positions of nodes that match, in order, as the longest common subsequence."""
    best = [[0.0] * (len(right) + 1) for _ in range(len(left) + 1)]
    score = [[_likeness(a, b) for b in right] for a in left]
    for i in reversed(range(len(left))):
        for j in reversed(range(len(right))):
            both = best[i + 1][j + 1] + score[i][j] if score[i][j] else 0.0
            best[i][j] = max(both, best[i + 1][j], best[i][j + 1])
    pairs: list[tuple[int | None, int | None]] = []
    i = j = 0
    while i < len(left) or j < len(right):
        matched = i < len(left) and j < len(right) and score[i][j]
        if matched and best[i][j] == best[i + 1][j + 1] + matched:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif j == len(right) or (i < len(left) and best[i][j] == best[i + 1][j]):
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    return pairs


def _likeness(left: SpecNode, right: SpecNode) -> float:
    """How well two nodes fit together; 0 if they cannot be one."""
    if left.name != right.name:
        return 0
    if left.kind != right.kind:
        return 1 if _is_simple(left) and _is_simple(right) else 0
    if "shortcut" in left.args or "shortcut" in right.args:
        return 10 if repr(signature([left])) == repr(signature([right])) else 0
    if _cells([left, right]) is None:
        return 0
    names = {*left.args, *right.args}
    same = sum(_is_same(left, right, name) for name in names)
    return 10 + same / (len(names) + 1)


def _is_same(left: SpecNode, right: SpecNode, name: str) -> bool:
    """Whether two nodes have the same argument, or the same for each channel of their inputs."""
    one, other = left.args.get(name), right.args.get(name)
    if isinstance(one, int) and isinstance(other, int):
        return one == other or one * right.input.channels == other * left.input.channels
    return one == other


def _is_simple(node: SpecNode) -> bool:
    """Whether a node is an activation that its kind describes completely."""
    return node.kind in _ACTIVATIONS and not (node.args or node.weighted)


def _cells(column: Sequence[Cell]) -> list[SpecNode] | None:
    """The nodes of one column in one structure; None if they cannot have one."""
    present = [node for node in column if node is not None]
    first = present[0]
    simple = all(map(_is_simple, present))
    if len({node.kind for node in present}) > 1 or (simple and len(present) < len(column)):
        kinds = [node.kind if node is not None else "identity" for node in column]
        return [SpecNode(CHOICE, {"kind": kind}, {}, first.name, first.input) for kind in kinds]
    parts: dict[str, list[Row]] = {}
    for key in dict.fromkeys(key for node in present for key in node.parts):
        rows = unify([node.parts.get(key, []) for node in present])
        if rows is None:
            return None
        parts[key] = rows
    nodes = iter(
        replace(node, parts={key: rows[index] for key, rows in parts.items()})
        for index, node in enumerate(present)
    )
    found = [next(nodes) if node is not None else None for node in column]
    if None not in found:
        return [node for node in found if node]
    model = next(node for node in found if node)
    return [_when(node is not None, node or _absent(model)) for node in found]


def _when(test: bool, node: SpecNode) -> SpecNode:
    return SpecNode("when", {"test": test}, {"body": [node]}, "", node.input)


def _absent(node: SpecNode) -> SpecNode:
    """A node that stands where a copy has none: its arguments do not matter."""
    parts = {key: [*map(_absent, part)] for key, part in node.parts.items()}
    return replace(node, args={}, parts=parts, absent=True)
