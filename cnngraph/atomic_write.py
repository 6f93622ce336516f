"""Files that are written completely or not at all."""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from cnngraph.errors import CnngraphError

PathLike = str | os.PathLike[str]


def atomic_write(
    path: PathLike, write: Callable[[Path], object], faults: tuple[type[Exception], ...] = ()
) -> None:
    """Calls `write` on a temporary file beside `path`, which then replaces `path`.

    A file that is replaced keeps its permissions. Temporary files that a killed process left are
    removed, where the system has `flock`.

    Args:
        path: the file to write.
        write: fills the file that it is given.
        faults: errors of `write`, besides `OSError`, that mean that the file cannot be written.

    Raises:
        CnngraphError: the file cannot be written.
    """
    name = printable(os.fspath(path))
    unfinished = None
    try:
        target = Path(os.path.realpath(path))
        mode = _mode_of(target, name)
        _remove_abandoned(target)
        unfinished = target.with_name(f"{_prefix(target)}{uuid4().hex}.tmp")
        with _locked(unfinished):
            write(unfinished)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            if mode is not None:
                unfinished.chmod(mode)
            os.replace(unfinished, target)
    except OSError as error:
        raise CnngraphError(f"cannot write {name}: {error.strerror or error}") from None
    except ValueError as error:  # a name with a NUL character, or one that cannot be encoded
        raise CnngraphError(f"cannot write {name}: {one_line(error)}") from None
    except faults as error:
        raise CnngraphError(f"cannot write {name}: {one_line(error)}") from None
    finally:
        if unfinished is not None:
            unfinished.unlink(missing_ok=True)


def _mode_of(target: Path, name: str) -> int | None:
    """The permissions of the file to replace, if there is one. Raises if it cannot be replaced."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        if not target.parent.is_dir():
            folder = os.path.dirname(name) or "."
            raise CnngraphError(
                f"cannot write {name}: the folder {folder} does not exist"
            ) from None
        return None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
        raise CnngraphError(f"cannot write {name}: it is {what}")
    return stat.S_IMODE(mode)


def _prefix(target: Path) -> str:
    return f".{target.name.encode()[:100].decode(errors='ignore')}."


def _fcntl() -> Any:
    """The module `fcntl`; None on Windows, which has no such locks."""
    try:
        return importlib.import_module("fcntl")
    except ImportError:
        return None


@contextmanager
def _locked(file: Path) -> Generator[None]:
    """Creates a file, which stays locked until it has replaced another."""
    fcntl = _fcntl()
    if fcntl is None:
        file.touch(exist_ok=False)
        yield
        return
    with file.open("xb") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        yield


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of `target`, except those that a process writes and has locked."""
    fcntl = _fcntl()
    if fcntl is None:
        return
    ours = re.compile(re.escape(_prefix(target)) + r"[0-9a-f]{32}\.tmp")
    for name in filter(ours.fullmatch, os.listdir(target.parent)):
        file = target.with_name(name)
        try:
            with file.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file.unlink()
        except OSError:  # being written, finished meanwhile, or not ours
            continue


def atomic_write_text(path: PathLike, text: str) -> None:
    """Writes `text` in UTF-8. Raises `CnngraphError` if the file cannot be written."""
    atomic_write(path, lambda file: file.write_text(text, encoding="utf-8"))


def printable(text: str) -> str:
    """`text` as it may be printed: short, and without characters that cannot be."""
    kept = text if len(text) <= 200 else f"{text[:200]}..."
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in kept)


def one_line(error: Exception) -> str:
    """The text of an exception on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
