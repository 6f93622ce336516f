"""Matching of the modules of a file with those of an edited network, by order and shapes.

Modules whose path and shapes are unchanged are kept. The others are aligned in order, as `diff`
aligns lines: a module may match one at another path if both have the same tensors with the same
shapes. The best alignments match the most modules and, among these, have the most similar paths.
Modules move only where all best alignments agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor in its module -> its shape."""

_MATCH = 10**6  # more than the similarity of all paths together
_KEPT = 10**12  # more than all matches together


@dataclass(frozen=True)
class Unit:
    """A module with tensors; `kind` is the name of its class, or "" if unknown."""

    path: str
    shapes: Shapes
    kind: str = ""

    def fits(self, other: Unit) -> bool:
        """Whether both have the same tensors and may have the same class."""
        return self.shapes == other.shapes and self.may_be(other)

    def may_be(self, other: Unit) -> bool:
        """Whether both may have the same class."""
        kinds = {_kind(self.kind), _kind(other.kind)} - {""}
        return len(kinds) < 2


@dataclass
class Alignment:
    """Module here -> its module of the file, or the candidates.

    `doubts` are notes on modules that kept their place by number alone.
    """

    origins: dict[str, str] = field(default_factory=dict[str, str])
    ambiguous: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    doubts: list[str] = field(default_factory=list[str])


def align(here: Sequence[Unit], file: Sequence[Unit], ordered: bool) -> Alignment:
    """Finds the origin of each module.

    Args:
        here: the modules of the network, in order.
        file: the modules of the file.
        ordered: whether `file` is in the order of its network. If not, modules whose paths differ
            only in numbers are aligned by these, and others move if there is a single candidate.
    """
    result = Alignment()
    theirs = {unit.path: unit for unit in file}
    for unit in here:
        if unit.path in theirs and unit.fits(theirs[unit.path]):
            result.origins[unit.path] = unit.path
    reach = Reach(here, file)
    if ordered:
        _align_in_order(here, file, reach, result)
    else:
        for skeleton in dict.fromkeys(map(_skeleton, (unit.path for unit in here))):
            ours = sorted(
                (u for u in here if _skeleton(u.path) == skeleton), key=lambda u: _numbers(u.path)
            )
            old = sorted(
                (u for u in file if _skeleton(u.path) == skeleton), key=lambda u: _numbers(u.path)
            )
            _align_in_order(ours, old, reach, result)
        _match_unique(here, file, reach, result)
    result.doubts += _doubts(here, file, reach, result)
    return result


class Reach:
    """Decides which modules may match at different paths.

    A name that exists on both sides refers to the same thing: modules in it never match modules
    elsewhere, whatever their shapes. Numbers do not count as names, because they shift. This
    applies to `3`, and to modules whose own names end in digits, such as `conv3`.
    """

    def __init__(self, here: Iterable[Unit], file: Iterable[Unit]) -> None:
        self.here = _scopes(here)
        self.file = _scopes(file)

    def __call__(self, ours: Unit, theirs: Unit) -> bool:
        if ours.path == theirs.path or not ours.fits(theirs):
            return False
        a, b = ours.path.split("."), theirs.path.split(".")
        same = common(a, b)
        return _free(a, same, self.file) and _free(b, same, self.here)


def _free(parts: list[str], at: int, other_side: set[str]) -> bool:
    if (
        at >= len(parts)
        or parts[at].isdigit()
        or (at == len(parts) - 1 and parts[at][-1:].isdigit())
    ):
        return True
    return ".".join(parts[: at + 1]) not in other_side


def _scopes(units: Iterable[Unit]) -> set[str]:
    """The paths of all modules and of the modules around them."""
    return {
        ".".join(parts[:end])
        for unit in units
        for parts in [unit.path.split(".")]
        for end in range(1, len(parts) + 1)
    }


def _align_in_order(
    here: Sequence[Unit], file: Sequence[Unit], reach: Reach, result: Alignment
) -> None:
    """Adds the matches that all best alignments have in common."""
    used = set(result.origins.values())
    scores: dict[tuple[int, int], int] = {}
    rows = {unit.path: index for index, unit in enumerate(file)}
    free = [(i, unit) for i, unit in enumerate(file) if unit.path not in used]
    moves = False
    for j, unit in enumerate(here):
        if unit.path in result.origins:
            scores[rows[unit.path], j] = _KEPT
            continue
        for i, origin in free:
            if reach(unit, origin):
                scores[i, j] = _MATCH + _similarity(unit.path, origin.path)
                moves = True
    if not moves:
        return
    ahead, behind = (
        _best_before(len(file), len(here), scores),
        _best_after(len(file), len(here), scores),
    )
    best = ahead[-1][-1]
    candidates: dict[int, list[int]] = {}
    targets: dict[int, list[int]] = {}
    for (i, j), score in scores.items():
        if score < _KEPT and ahead[i][j] + score + behind[i + 1][j + 1] == best:
            candidates.setdefault(j, []).append(i)
            targets.setdefault(i, []).append(j)
    for j, found in candidates.items():
        i = found[0]
        left_out = any(ahead[row][j] + behind[row][j + 1] == best for row in range(len(file) + 1))
        if len(found) == 1 and len(targets[i]) == 1 and not left_out:
            result.origins[here[j].path] = file[i].path
        else:
            result.ambiguous[here[j].path] = [file[index].path for index in found]


def _best_before(rows: int, columns: int, scores: Mapping[tuple[int, int], int]) -> list[list[int]]:
    """For each pair of places, the best score of aligning everything before them."""
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        above, row = best[i], best[i + 1]
        for j in range(columns):
            value = max(above[j + 1], row[j])
            score = scores.get((i, j))
            row[j + 1] = value if score is None else max(value, above[j] + score)
    return best


def _best_after(rows: int, columns: int, scores: Mapping[tuple[int, int], int]) -> list[list[int]]:
    """For each pair of places, the best score of aligning everything from them on."""
    mirrored = {(rows - 1 - i, columns - 1 - j): score for (i, j), score in scores.items()}
    return [row[::-1] for row in reversed(_best_before(rows, columns, mirrored))]


def _match_unique(
    here: Sequence[Unit], file: Sequence[Unit], reach: Reach, result: Alignment
) -> None:
    """Matches without an order: modules that are the only candidates of each other."""
    used = set(result.origins.values())
    free = [unit for unit in file if unit.path not in used]
    candidates = {
        unit.path: [origin.path for origin in free if reach(unit, origin)]
        for unit in here
        if unit.path not in result.origins and unit.path not in result.ambiguous
    }
    wanted = [path for paths in candidates.values() for path in paths]
    for path, origins in candidates.items():
        if len(origins) == 1 and wanted.count(origins[0]) == 1:
            result.origins[path] = origins[0]
        elif origins:
            result.ambiguous[path] = origins


def _doubts(
    here: Sequence[Unit], file: Sequence[Unit], reach: Reach, result: Alignment
) -> list[str]:
    """Notes on modules kept by number beside a new or removed module of the same shapes."""
    used = set(result.origins.values())
    kept = [unit for unit in here if result.origins.get(unit.path) == unit.path]
    new = {unit.path: (unit, "is new") for unit in here if unit.path not in result.origins}
    gone = {unit.path: (unit, "is in the file only") for unit in file if unit.path not in used}
    changed = new.keys() & gone.keys()  # same name, another shape
    twins: dict[tuple[str, str], dict[str, None]] = {}
    for other, what in (*new.values(), *gone.values()):
        for unit in kept if other.path not in changed else ():
            if _skeleton(unit.path) == _skeleton(other.path) and reach(unit, other):
                theirs, ours = other.path.split("."), unit.path.split(".")
                end = common(theirs, ours) + 1
                twins.setdefault((".".join(theirs[:end]), what), {})[".".join(ours[:end])] = None
    return [
        f"by number alone: {', '.join(list(paths)[:3])}{', ...' if len(paths) > 3 else ''} kept;"
        f" {other}, of the same shapes, {what}"
        for (other, what), paths in twins.items()
    ]


def _similarity(a: str, b: str) -> int:
    """How similar two paths are: their ends count most."""
    ours, theirs = a.split("."), b.split(".")
    return 3 * common(ours[::-1], theirs[::-1]) + common(ours, theirs)


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """The number of equal items that both begin with."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


@cache
def _skeleton(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def _kind(name: str) -> str:
    """`SyncBatchNorm` and `BatchNorm2d` have the same tensors."""
    return "BatchNorm" if "BatchNorm" in name else name
