"""What the walk finds wrong: each mistake told once, with the place in the network it was found at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

from cnngraph.elaborate.place import Place
from cnngraph.errors import MAX_MISTAKES, Diagnostic, Notes, Position
from cnngraph.spec.arguments import InvalidError


class Reporting:
    """Collects diagnostics. After `stop`, and after very many mistakes, no more are taken."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.reported: set[Any] = set()
        self.mistakes = 0
        self.stopped = False

    def report(
        self, diagnostic: Diagnostic, place: Place | None = None, path: str | None = None,
        notes: Callable[[], Notes] = tuple,
    ) -> None:  # fmt: skip
        """Records a diagnostic; the same mistake in every copy of a repeat is recorded once.

        `notes` are further ones, which may take long to find and are asked for once.
        """
        calls = [position for _, position in place.calls] if place else []
        repeated = diagnostic.severity == "warning" or bool(place and place.loops)
        message = "" if repeated else diagnostic.message
        key = (diagnostic.code, str(diagnostic.position), message, *map(str, calls))
        if key in self.reported or self.stopped:
            return
        self.reported.add(key)
        diagnostic = replace(diagnostic, notes=(*diagnostic.notes, *notes()))
        if place is not None:
            inside = (place.level.path if path is None else path) or "the top level"
            loops = f"  (repeat {', '.join(place.loops)})" if place.loops else ""
            called = [("called", f"block {block.name}, at {position}") for block, position in reversed(place.calls)]
            diagnostic = replace(diagnostic, path=f"{inside}{loops}", notes=(*called, *diagnostic.notes))
        self.diagnostics.append(diagnostic)
        if diagnostic.severity == "error":
            self.mistakes += 1
            if self.mistakes == MAX_MISTAKES:
                message = f"these are {MAX_MISTAKES} mistakes; what comes after them is not looked at"
                self.diagnostics.append(Diagnostic("E110", message, diagnostic.position))
                self.stopped = True

    def fail(
        self, place: Place, code: str, message: str, position: Position,
        notes: Callable[[], Notes] | Notes = (), **details: Any,
    ) -> NoReturn:  # fmt: skip
        self.report(
            Diagnostic(code, message, position, **details), place, notes=notes if callable(notes) else lambda: notes
        )
        raise InvalidError

    def stop(self, place: Place, message: str, position: Position, **details: Any) -> NoReturn:
        """Ends the walk: a limit on all of it is exceeded."""
        self.report(Diagnostic("E110", message, position, **details), place)
        self.stopped = True
        raise InvalidError
