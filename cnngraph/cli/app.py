"""The application: its exit codes, and how errors are reported."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cnngraph import __version__
from cnngraph.cli.usage import UsageError, in_own_words
from cnngraph.errors import CnngraphError, SpecError
from cnngraph.report import terminal

FAULT = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Commands(TyperGroup):
    """Reports the errors of every command in one line, with an exit code."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except UsageError as error:
            raise in_own_words(error, self) from None

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except UsageError as error:
            raise in_own_words(error, self) from None
        except SpecError as error:
            terminal.print_diagnostics(str(error))
            code = FAULT
        except CnngraphError as error:
            terminal.print_error(str(error))
            code = FAULT
        except BrokenPipeError:
            _discard_stdout()
            code = BROKEN_PIPE
        except OSError as error:
            _discard_stdout()
            where = error.filename or "the output"
            terminal.print_error(f"cannot read or write {where}: {error.strerror or error}")
            code = FAULT
        except KeyboardInterrupt:
            terminal.print_error("interrupted")
            code = INTERRUPTED
        raise typer.Exit(code)


def _discard_stdout() -> None:
    """Keeps the interpreter from reporting at exit that it cannot flush stdout."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    name="cnngraph",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  cnngraph check specs/*.yaml
  cnngraph compile specs/googlenet.yaml --set num_classes=10 -o googlenet.pt
  cnngraph ops conv2d

\b
Exit codes:
  0    success
  1    an invalid spec, or a file that cannot be read or written
  2    wrong usage of the command
  130  interrupted
""",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"cnngraph {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Check convolutional networks written as data, and compile them for PyTorch."""


def main() -> None:
    """Runs the command line; `cnngraph` and `python -m cnngraph` start here."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # closed: `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="cnngraph")
    except KeyboardInterrupt:  # while the command line was parsed
        terminal.print_error("interrupted")
        raise SystemExit(INTERRUPTED) from None
