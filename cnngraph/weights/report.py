"""What became of each tensor when weights were loaded."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import NamedTuple

from cnngraph.errors import CnngraphError

SHOWN = 10
"""Lines of a list before it is cut short."""


class WeightsError(CnngraphError):
    """Weights that cannot be read, written or loaded, or a pattern that matches nothing.

    Attributes:
        report: what fits and what does not, where a file was read but does not fit.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class Mismatch(NamedTuple):
    """The shapes of a tensor that the file has in one shape and the network in another."""

    file: tuple[int, ...]
    here: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file} in the file, {self.here} here"


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did. Keys are the network's, those of its `state_dict`, where nothing
    else is said.

    Attributes:
        file: what was loaded from.
        kept: keys that were loaded from the same key of the file.
        moved: key -> the key of the file it was loaded from, where that is another.
        missing: keys that were not loaded -> why.
        mismatched: keys that were not loaded because their shapes differ -> both shapes.
        skipped: keys that were not loaded because `skip` says so.
        unexpected: keys of the file that were not used.
        notes: what was done to the file's keys before, and what else is worth a look.
    """

    file: str
    kept: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    mismatched: Mapping[str, Mismatch] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys that now hold the file's values."""
        return (*self.kept, *self.moved)

    @property
    def new(self) -> tuple[str, ...]:
        """Keys that hold what they held before."""
        return (*self.missing, *self.mismatched, *self.skipped)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.new)
        lines = [
            f"{self.file}: {len(self.loaded)} of {total} tensors loaded",
            *(f"  {note}" for note in self.notes),
        ]
        lines += listed("moved", moves(self.moved), len(self.moved))
        lines += listed("new, not found in the file", modules(self.missing), len(self.missing))
        lines += listed(
            "new, of another shape",
            [f"{key}: {m}" for key, m in self.mismatched.items()],
            len(self.mismatched),
        )
        lines += listed("new, skipped", modules(dict.fromkeys(self.skipped, "")), len(self.skipped))
        lines += listed(
            "in the file and not used",
            modules(dict.fromkeys(self.unexpected, "")),
            len(self.unexpected),
        )
        return "\n".join(lines)


def listed(title: str, lines: Sequence[str], count: int) -> list[str]:
    """A titled list of at most `SHOWN` lines, or nothing."""
    if not lines:
        return []
    rest = [f"    and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"  {title} ({count}):", *(f"    {line}" for line in lines[:SHOWN]), *rest]


def modules(keys: Mapping[str, str]) -> list[str]:
    """One line for the keys of a module that share a reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, why in keys.items():
        path, _, leaf = key.rpartition(".")
        groups.setdefault((path, why), []).append(leaf)
    return [
        (f"{path}: " if path else "") + ", ".join(leaves) + (f" ({why})" if why else "")
        for (path, why), leaves in groups.items()
    ]


def moves(moved: Mapping[str, str]) -> list[str]:
    """One line for all keys whose paths changed in the same way: `stage1.* <- layer1.*`."""
    groups: dict[tuple[str, str], int] = {}
    for here, file in moved.items():
        ours, theirs = here.split("."), file.split(".")
        same = len(
            list(
                takewhile(
                    lambda pair: pair[0] == pair[1],
                    zip(reversed(ours), reversed(theirs), strict=False),
                )
            )
        )
        same = min(same, len(ours) - 1, len(theirs) - 1)
        change = ".".join(ours[: len(ours) - same]), ".".join(theirs[: len(theirs) - same])
        groups[change] = groups.get(change, 0) + 1
    return [f"{here}.* <- {file}.* ({count})" for (here, file), count in groups.items()]


def closest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate that looks most like `word`, if one does."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return close[0] if close else None
