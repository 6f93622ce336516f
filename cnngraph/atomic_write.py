"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from cnngraph.errors import CnngraphError


def atomic_write(
    path: str | os.PathLike[str], write: Callable[[Path], object], faults: tuple[type[Exception], ...] = ()
) -> None:
    """Has `write` fill a file beside `path`, which takes the place of `path` when it is complete.

    Raises `CnngraphError` where that cannot be done; `faults` are errors of `write` that mean just that.
    """
    name = os.fspath(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "not an ordinary file"
        raise CnngraphError(f"cannot write {name}: it is {what}")
    if not target.parent.is_dir():
        raise CnngraphError(f"cannot write {name}: the folder {os.path.dirname(name) or '.'} does not exist")
    unfinished = target.with_name(f".{target.name[:100]}.{uuid4().hex}.tmp")
    try:
        unfinished.open("xb").close()
        write(unfinished)
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except OSError as error:
        raise CnngraphError(f"cannot write {name}: {error.strerror or error}") from None
    except faults as error:
        raise CnngraphError(f"cannot write {name}: {one_line(error)}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def one_line(error: Exception) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
