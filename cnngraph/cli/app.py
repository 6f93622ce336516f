"""The application: its exit codes, and how every mistake becomes one clear line."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cnngraph import __version__
from cnngraph.errors import CnngraphError, SpecError
from cnngraph.report import terminal

FAULT = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class _Commands(TyperGroup):
    """Turns whatever a user can run into into one clear line and an exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except SpecError as error:
            terminal.print_diagnostics(str(error))
            raise typer.Exit(FAULT) from None
        except CnngraphError as error:
            terminal.print_error(str(error))
            raise typer.Exit(FAULT) from None
        except BrokenPipeError:
            _discard_stdout()
            raise typer.Exit(BROKEN_PIPE) from None
        except OSError as error:
            _discard_stdout()
            where = f" {error.filename}" if error.filename else " the output"
            terminal.print_error(f"cannot read or write{where}: {error.strerror or error}")
            raise typer.Exit(FAULT) from None
        except KeyboardInterrupt:
            terminal.print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from None


def _discard_stdout() -> None:
    """What is still to be flushed cannot be written, and the interpreter's exit would complain of it."""
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
  0    fine
  1    a spec or a file is at fault; what is wrong is on stderr
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
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Convolutional networks as data: checked before a step, compiled into fused PyTorch modules."""


def main() -> None:
    """The console script."""
    if sys.stdout is None:  # closed: `>&-`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # while the command line itself was read
        terminal.print_error("interrupted")
        raise SystemExit(INTERRUPTED) from None
