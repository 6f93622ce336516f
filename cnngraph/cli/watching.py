"""Waits until a file changes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import sleep

_INTERVAL = 0.3
"""Seconds between two looks at the files."""

Stamps = dict[Path, tuple[int, int] | None]


def stamps(files: Iterable[Path]) -> Stamps:
    """The time of the last change of each file, and its size; None if there is no such file."""
    return {file: _stamp(file) for file in files}


def wait_for_change(before: Stamps) -> None:
    """Returns when one of the files is no longer as it was."""
    while stamps(before) == before:
        sleep(_INTERVAL)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
