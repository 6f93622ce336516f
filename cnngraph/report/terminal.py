"""Writing to the terminal: colours and the window's width where there is one, plain wide text where there is none."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

WIDE = 1000
"""Columns of what is not a terminal: nothing is ever wrapped or cut in a pipe or a file."""

NARROWEST = 60
"""Terminals narrower than this get lines that the terminal itself wraps, rather than cut numbers."""

PATIENCE = 1.0
"""Seconds before work is worth a progress line."""

_STYLES = {"error": "bold red", "warning": "bold yellow"}


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr as it is now."""
    from rich.console import Console

    colours = None if os.environ.get("NO_COLOR") else "auto"
    made = Console(stderr=stderr, color_system=colours, highlight=False, emoji=False, markup=False)
    made.width = max(made.width, NARROWEST) if made.is_terminal else WIDE
    return made


def to_text(renderable: RenderableType) -> str:
    """A table as plain text, as wide as it needs to be."""
    from rich.console import Console

    text = io.StringIO()
    Console(file=text, width=WIDE, color_system=None, highlight=False, emoji=False, markup=False).print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def print_table(table: RenderableType) -> None:
    """A table on stdout, in the window's width where there is a window."""
    if sys.stdout.isatty():
        console().print(table)
    else:
        print(to_text(table))


def print_diagnostics(text: str) -> None:
    """Rendered diagnostics on stderr: never wrapped, no markup read into them, the carets lined up as they came."""
    text = printable(text)
    with suppress(OSError):
        sys.stdout.flush()
    if not sys.stderr.isatty():
        sys.stderr.write(text + "\n")
        return
    from rich.text import Text

    styled = Text()
    for line in text.splitlines(keepends=True):
        styled.append_text(_styled(line))
    console(stderr=True).print(styled, soft_wrap=True)


def print_error(message: str) -> None:
    """`error: message` on stderr, on one line."""
    print_diagnostics(f"error: {message}")


def _styled(line: str) -> Text:
    from rich.text import Text

    word = line.partition("[")[0].partition(":")[0]
    if word in _STYLES:
        head, separator, message = line.partition(":")
        return Text.assemble((head, _STYLES[word]), separator, (message, "bold"))
    text = Text(line)
    gutter, bar, excerpt = line.partition(" |")
    if bar and (not gutter.strip() or gutter.strip().isdigit()):
        text.stylize("blue", 0, len(gutter) + len(bar))
        if not gutter.strip() and excerpt.strip().startswith("^"):
            text.stylize("red", len(gutter) + len(bar))
    elif line.lstrip().startswith(("-->", "= ")):
        text.stylize("blue", 0, len(line) - len(line.lstrip()) + (3 if "-->" in line[:12] else 1))
    return text


def printable(text: str) -> str:
    """`text` with control characters spelled out: a spec from a stranger must not steer the terminal."""
    return "".join(
        char if char in "\n\t" or char.isprintable() or char == " " else char.encode("unicode_escape").decode()
        for char in text
    )


@contextmanager
def progress(what: str) -> Iterator[None]:
    """Says on stderr what is being done, if that takes longer than a second and somebody is there to read it."""
    if not sys.stderr.isatty():
        yield
        return
    status = console(stderr=True).status(what)
    timer = Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def progress_bar() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr, told what is being done and which share is behind; nothing where nobody is there to see it."""
    if not sys.stderr.isatty():
        yield lambda what, share: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
