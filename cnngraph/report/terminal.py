"""Output in colour and in the window's width to a terminal, as plain text to a file or pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from threading import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

WIDE = 1000
"""Columns of a file or pipe, where nothing is wrapped or cut."""

NARROWEST = 60
"""A narrower terminal wraps lines of this width itself, so that no number is cut."""

PATIENCE = 1.0
"""Seconds before a progress line appears."""

_STYLES = {"error": "bold red", "warning": "bold yellow"}


def console(stderr: bool = False) -> Console:
    """A console on the current stdout or stderr."""
    from rich.console import Console

    colours = None if os.environ.get("NO_COLOR") else "auto"
    made = Console(stderr=stderr, color_system=colours, highlight=False, emoji=False, markup=False)
    made.width = max(made.width, NARROWEST) if made.is_terminal else WIDE
    return made


def simple_table(left: Sequence[str], right: Sequence[str], footer: Sequence[str] = ()) -> Table:
    """A table with only a rule below its header.

    Args:
        left: titles of the first columns, which are left-aligned and may wrap.
        right: titles of the others, which are right-aligned and never wrap.
        footer: cells of the last row, one per column.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        show_footer=bool(footer),
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    footer = footer or [""] * (len(left) + len(right))
    for title, last in zip([*left, *right], footer, strict=True):
        aligned_right = len(table.columns) >= len(left)
        justify = "right" if aligned_right else "left"
        table.add_column(title, last, justify=justify, no_wrap=aligned_right, overflow="fold")
    return table


def to_text(renderable: RenderableType) -> str:
    """A table as plain text, as wide as it needs to be."""
    from rich.console import Console

    text = io.StringIO()
    plain = Console(
        file=text, width=WIDE, color_system=None, highlight=False, emoji=False, markup=False
    )
    plain.print(renderable)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def print_table(table: RenderableType) -> None:
    """Prints a table on stdout; on a terminal in the window's width."""
    if sys.stdout.isatty():
        console().print(table)
    else:
        print(to_text(table))


def print_diagnostics(text: str) -> None:
    """Prints rendered diagnostics on stderr, unwrapped so that the carets stay in place."""
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
    """Prints `error: message` on stderr."""
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
    """`text` with control characters escaped: an untrusted spec must not control the terminal."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


@contextmanager
def progress(what: str) -> Generator[None]:
    """Shows on stderr what is being done, if it is a terminal and the work takes over a second."""
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
def progress_bar() -> Generator[Callable[[str, float], None]]:
    """A progress bar on stderr, if it is a terminal; yields the callback `(activity, share)`."""
    if not sys.stderr.isatty():
        yield lambda what, share: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
