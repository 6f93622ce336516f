"""Which module of a file became which module of an edited network, by place in the graph and by
shape.

Modules with the path and shapes they had are kept. The others are aligned in order, as `diff`
aligns lines: a module may come from another path if both have the same tensors of the same shapes.
Of all alignments, those of the most modules are best, and of these the ones of the most similar
paths. Only what all of the best agree on is moved.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor in its module -> its shape."""

_MATCH = 10**6  # more than the likeness of all paths together
_KEPT = 10**12  # more than all matches together


@dataclass(frozen=True)
class Unit:
    """A module that holds tensors; `kind` is its class, or "" where nobody knows."""

    path: str
    shapes: Shapes
    kind: str = ""

    def fits(self, other: Unit) -> bool:
        return self.shapes == other.shapes and self.may_be(other)

    def may_be(self, other: Unit) -> bool:
        kinds = {_kind(self.kind), _kind(other.kind)} - {""}
        return len(kinds) < 2


@dataclass
class Alignment:
    """Module here -> module of the file it comes from, or those it might come from."""

    origins: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, list[str]] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)


def align(here: Sequence[Unit], file: Sequence[Unit], ordered: bool) -> Alignment:
    """Finds each module's origin.

    Args:
        here: the network's modules in order.
        file: the file's, in the order of the network they come from if `ordered`; if not, only
            modules whose paths differ in numbers are aligned, by those numbers, and others are
            moved where there is just one candidate.
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
    """Which modules may have moved where.

    A name that is there on both sides stands for the same thing: what is in it is never looked for
    elsewhere, whatever its shapes. Numbers are no names: they shift when something is put in
    between. That holds for `3`, and for the module's own name where it ends in digits, as `conv3`.
    """

    def __init__(self, here: Iterable[Unit], file: Iterable[Unit]) -> None:
        self.here = _holders(here)
        self.file = _holders(file)

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


def _holders(units: Iterable[Unit]) -> set[str]:
    return {
        ".".join(parts[:end])
        for unit in units
        for parts in [unit.path.split(".")]
        for end in range(1, len(parts) + 1)
    }


def _align_in_order(
    here: Sequence[Unit], file: Sequence[Unit], reach: Reach, result: Alignment
) -> None:
    """The part of all best alignments that they have in common."""
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
                scores[i, j] = _MATCH + _likeness(unit.path, origin.path)
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
    """The best score of aligning what comes before each pair of places."""
    best = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows):
        above, row = best[i], best[i + 1]
        for j in range(columns):
            value = max(above[j + 1], row[j])
            score = scores.get((i, j))
            row[j + 1] = value if score is None else max(value, above[j] + score)
    return best


def _best_after(rows: int, columns: int, scores: Mapping[tuple[int, int], int]) -> list[list[int]]:
    """The best score of aligning what comes from each pair of places on."""
    mirrored = {(rows - 1 - i, columns - 1 - j): score for (i, j), score in scores.items()}
    return [row[::-1] for row in reversed(_best_before(rows, columns, mirrored))]


def _match_unique(
    here: Sequence[Unit], file: Sequence[Unit], reach: Reach, result: Alignment
) -> None:
    """Moves without an order: where both sides have no other candidate."""
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
    """What kept its number beside something new or removed that it could be exchanged with."""
    used = set(result.origins.values())
    kept = [unit for unit in here if result.origins.get(unit.path) == unit.path]
    new = {unit.path: (unit, "is new") for unit in here if unit.path not in result.origins}
    gone = {unit.path: (unit, "is in the file only") for unit in file if unit.path not in used}
    changed = new.keys() & gone.keys()  # it has its name still, and another shape
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


def _likeness(a: str, b: str) -> int:
    """How much of two paths is the same: what they end in counts most."""
    ours, theirs = a.split("."), b.split(".")
    return 3 * common(ours[::-1], theirs[::-1]) + common(ours, theirs)


def common(a: Sequence[str], b: Sequence[str]) -> int:
    """The number of equal items that both begin with."""
    return len(list(takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))))


def _skeleton(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def _numbers(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


def _kind(name: str) -> str:
    """`SyncBatchNorm` and `BatchNorm2d` hold the same."""
    return "BatchNorm" if "BatchNorm" in name else name
