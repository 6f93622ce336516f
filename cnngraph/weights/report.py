"""The result of loading weights, tensor by tensor."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from cnngraph.errors import CnngraphError
from cnngraph.graph.alignment import common
from cnngraph.report.html import preformatted, table

SHOWN = 10
"""The number of lines of a list that are shown."""


class WeightsError(CnngraphError):
    """Weights cannot be read, written or loaded, or a pattern matches nothing.

    Attributes:
        report: what fits and what does not, if a file was read but does not fit.
    """

    def __init__(self, message: str, report: LoadReport | None = None) -> None:
        super().__init__(message)
        self.report = report


class Mismatch(NamedTuple):
    """The shape of a tensor in the file and in the network."""

    file: tuple[int, ...]
    here: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file} in the file, {self.here} here"


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did. Keys are those of the network's `state_dict` unless noted.

    Attributes:
        file: the source of the weights.
        kept: keys loaded from the same key of the file.
        moved: key -> the key of the file that it was loaded from, if different.
        missing: key -> why it was not loaded; empty if the file has no tensor for it.
        mismatched: key -> both shapes, which differ.
        skipped: keys that match `skip`.
        unexpected: keys of the file that were not used.
        notes: changes made to the file's keys, and anything to check.
    """

    file: str
    kept: tuple[str, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict[str, str])
    missing: Mapping[str, str] = field(default_factory=dict[str, str])
    mismatched: Mapping[str, Mismatch] = field(default_factory=dict[str, Mismatch])
    skipped: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys that have the values of the file."""
        return (*self.kept, *self.moved)

    @property
    def new(self) -> tuple[str, ...]:
        """Keys whose values are unchanged."""
        return (*self.missing, *self.mismatched, *self.skipped)

    def __repr__(self) -> str:
        return f"<LoadReport of {self._headline()}>"

    def _repr_html_(self) -> str:
        groups = [
            ("loaded", self.kept, len(self.kept)),
            ("loaded from another key", moves(self.moved), len(self.moved)),
            ("new, not found in the file", modules(self.missing), len(self.missing)),
            ("new, of another shape", [*self.mismatched], len(self.mismatched)),
            ("new, skipped", self.skipped, len(self.skipped)),
            ("unused in the file", self.unexpected, len(self.unexpected)),
        ]
        rows = [
            (name, ", ".join([*keys[:SHOWN], *["..."] * (len(keys) > SHOWN)]), f"{count:,}")
            for name, keys, count in groups
            if count
        ]
        return preformatted(self._headline()) + table(("tensors", "keys"), ("count",), rows)

    def _headline(self) -> str:
        total = len(self.loaded) + len(self.new)
        return f"{self.file}: {len(self.loaded)} of {total} tensors loaded"

    def __str__(self) -> str:
        lines = [
            self._headline(),
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
    """A titled list of at most `SHOWN` lines; nothing for no lines."""
    if not lines:
        return []
    rest = [f"    and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"  {title} ({count}):", *(f"    {line}" for line in lines[:SHOWN]), *rest]


def modules(keys: Mapping[str, str]) -> list[str]:
    """One line for all keys of a module with the same reason."""
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
        same = min(common(ours[::-1], theirs[::-1]), len(ours) - 1, len(theirs) - 1)
        change = ".".join(ours[: len(ours) - same]), ".".join(theirs[: len(theirs) - same])
        groups[change] = groups.get(change, 0) + 1
    return [f"{here}.* <- {file}.* ({count})" for (here, file), count in groups.items()]


def closest(word: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate most similar to `word`, if any is similar."""
    close = difflib.get_close_matches(word, list(candidates), n=1, cutoff=cutoff)
    return close[0] if close else None
