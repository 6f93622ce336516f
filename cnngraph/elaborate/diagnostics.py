"""Collects what the walk reports: each mistake once, with its place in the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Any, NoReturn

from cnngraph.elaborate.place import Place
from cnngraph.errors import MAX_MISTAKES, Diagnostic, Notes, Position
from cnngraph.spec.arguments import InvalidError

MAX_REPEATED = 5000
"""A walk ends when the copies of a repeat have made the same mistakes so many times."""


class Diagnostics:
    """The diagnostics of one walk.

    It accepts no more after `stop`, `MAX_MISTAKES` errors, or `MAX_REPEATED` repetitions of them.
    Of warnings of one code, it keeps `MAX_MISTAKES` and counts the others.
    """

    def __init__(self, found: Iterable[Diagnostic] = ()) -> None:
        self.found: list[Diagnostic] = []
        self.stopped = False
        self._seen: set[Hashable] = set()
        self._errors = 0
        self._repeated = 0
        self._warnings: Counter[str] = Counter()
        for diagnostic in found:
            self.report(diagnostic)

    def report(
        self,
        diagnostic: Diagnostic,
        place: Place | None = None,
        path: str | None = None,
        notes: Callable[[], Notes] = tuple,
    ) -> None:
        """Records a diagnostic; a mistake that occurs in every copy of a repeat is recorded once.

        `notes` computes further notes; it is called only if the diagnostic is recorded.
        """
        calls = [position for _, position in place.calls] if place else []
        repeated = diagnostic.severity == "warning" or bool(place and place.loops)
        message = "" if repeated else diagnostic.message
        key = (diagnostic.code, str(diagnostic.position), message, *map(str, calls))
        if self.stopped:
            return
        is_error = diagnostic.severity == "error"
        if key in self._seen:
            self._repeated += is_error
            if self._repeated == MAX_REPEATED:
                self._give_up(f"{MAX_REPEATED:,} copies of these errors", diagnostic.position)
            return
        self._seen.add(key)
        if not is_error:
            self._warnings[diagnostic.code] += 1
            if self._warnings[diagnostic.code] > MAX_MISTAKES:
                return
        diagnostic = replace(diagnostic, notes=(*diagnostic.notes, *notes()))
        if place is not None:
            inside = (place.level.path if path is None else path) or "the top level"
            loops = f"  (repeat {', '.join(place.loops)})" if place.loops else ""
            called = [
                ("called", f"block {block.name}, at {position}")
                for block, position in reversed(place.calls)
            ]
            diagnostic = replace(
                diagnostic, path=f"{inside}{loops}", notes=(*called, *diagnostic.notes)
            )
        self.found.append(diagnostic)
        self._errors += is_error
        if self._errors == MAX_MISTAKES:
            self._give_up(f"{MAX_MISTAKES} errors", diagnostic.position)

    def _give_up(self, count: str, position: Position | None) -> None:
        message = f"stopped after {count}; the rest of the spec was not checked"
        self.found.append(Diagnostic("E110", message, position))
        self.stopped = True

    def finish(self) -> list[Diagnostic]:
        """The diagnostics of the whole walk, with the number of warnings that were left out."""
        for code, count in self._warnings.items():
            if count > MAX_MISTAKES:
                message = f"the same is true at {count - MAX_MISTAKES:,} more places"
                self.found.append(Diagnostic(code, message))
        return self.found

    def fail(
        self,
        place: Place,
        code: str,
        message: str,
        position: Position,
        notes: Callable[[], Notes] | Notes = (),
        **details: Any,
    ) -> NoReturn:
        """Reports a diagnostic and raises `InvalidError`."""
        further = notes if callable(notes) else lambda: notes
        self.report(Diagnostic(code, message, position, **details), place, notes=further)
        raise InvalidError

    def stop(self, place: Place, message: str, position: Position) -> NoReturn:
        """Ends the walk because the spec as a whole exceeds a limit. Raises `InvalidError`."""
        self.report(Diagnostic("E110", message, position), place)
        self.stopped = True
        raise InvalidError
