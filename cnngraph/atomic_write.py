"""Files that are written completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from cnngraph.errors import CnngraphError

PathLike = str | os.PathLike[str]


def atomic_write(
    path: PathLike, write: Callable[[Path], object], faults: tuple[type[Exception], ...] = ()
) -> None:
    """Calls `write` on a temporary file beside `path`, which then replaces `path`.

    Args:
        path: the file to write.
        write: fills the file that it is given.
        faults: errors of `write`, besides `OSError`, that mean that the file cannot be written.

    Raises:
        CnngraphError: the file cannot be written.
    """
    name = os.fspath(path)
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        what = "a folder" if target.is_dir() else "not an ordinary file"
        raise CnngraphError(f"cannot write {name}: it is {what}")
    if not target.parent.is_dir():
        folder = os.path.dirname(name) or "."
        raise CnngraphError(f"cannot write {name}: the folder {folder} does not exist")
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


def atomic_write_text(path: PathLike, text: str) -> None:
    """Writes `text` in UTF-8. Raises `CnngraphError` if the file cannot be written."""
    atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def one_line(error: Exception) -> str:
    """The text of an exception on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
