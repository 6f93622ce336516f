"""The commands. They parse, call the library and print; what is printed is made in `report/`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cnngraph import __version__
from cnngraph.errors import CnngraphError, Source, SpecError, did_you_mean, has_errors, render
from cnngraph.report.terminal import console, print_diagnostics, print_error, printable, progress
from cnngraph.yaml_source import parse_yaml

if TYPE_CHECKING:
    from torch import fx

    from cnngraph.checking import Report
    from cnngraph.passes import PassResult

FAULT = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class Format(str, Enum):
    TEXT = "text"
    JSON = "json"


class BackendName(str, Enum):
    """The names of `compiler.BACKENDS`, which cannot be imported here: it needs torch."""

    FUSED = "fused"
    EAGER = "eager"


class _Commands(TyperGroup):
    """Turns whatever a user can run into into one clear line and an exit code, for every command."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except SpecError as error:
            print_diagnostics(str(error))
            raise typer.Exit(FAULT) from None
        except CnngraphError as error:
            print_error(str(error))
            raise typer.Exit(FAULT) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit's own flush would complain
            raise typer.Exit(BROKEN_PIPE) from None
        except KeyboardInterrupt:
            print_error("interrupted")
            raise typer.Exit(INTERRUPTED) from None


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

SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec, in YAML.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value for one of the spec's params, in YAML; may be repeated."),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="`json` prints one JSON object on stdout, and nothing else.")
]


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


@app.command(
    epilog="""\b
Examples:
  cnngraph compile specs/googlenet.yaml
  cnngraph compile specs/googlenet.yaml --set num_classes=10 -o googlenet.pt
  cnngraph compile specs/lenet.yaml --print-graph --print-code

\b
With --format json, stdout holds one object:
  {"cnngraph", "ok", "file", "diagnostics", "error",
   "name", "input", "output", "aux", "params", "buffers", "macs",
   "training_macs", "sizes", "stages",      as `check` gives them
   "backend", "kernels", "artifact",
   "passes": [{"name", "rewrites", "nodes", "seconds"}],
   "seconds": {phase: seconds},
   "graphs": [{"after", "text"}],           with --print-graph
   "code"}                                  with --print-code
What is not known because the spec does not hold is null.
"error" is a mistake that is none of the spec's, such as a full disk.

\b
Exit codes: 0 fine, 1 the spec or a file is at fault, 2 wrong usage.
"""
)
def compile(
    spec: SpecArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", show_default=False,
            help="Save the network; `cnngraph.load_compiled` brings it back.",
        ),
    ] = None,
    sets: SetOption = None,
    backend: Annotated[
        BackendName, typer.Option(help="`fused` uses the fused operators, `eager` plain torch.nn.")
    ] = BackendName.FUSED,
    print_graph: Annotated[
        bool, typer.Option("--print-graph", help="Print the graph before, between and after the passes.")
    ] = False,
    print_code: Annotated[
        bool, typer.Option("--print-code", help="Print the code of the network's `forward`.")
    ] = False,
    format: FormatOption = Format.TEXT,
) -> None:  # fmt: skip
    """Compile a spec into a PyTorch module, and say what it costs and what was fused.

    The spec is checked first: a mistake is told before PyTorch is even loaded.
    """
    params = parse_sets(sets)
    if output is not None and output.exists() and spec.exists() and output.samefile(spec):
        raise typer.BadParameter("this is the spec itself", param_hint="-o")
    with _phases() as phases:
        with phases("check"):
            from cnngraph.checking import check

            report = check(spec, params)
        if not report.ok:
            _fail(report, format)
        try:
            done = _compile(report, spec, params, backend.value, output, phases)
        except CnngraphError as error:
            if format is Format.TEXT:
                raise
            _print_json(_compile_data(report, error=str(error)))
            raise typer.Exit(FAULT) from None
    if format is Format.JSON:
        _print_json(_compile_data(report, done, print_graph, print_code))
    else:
        _print_compiled(report, done, print_graph, print_code)


class _Phases:
    """Names what is being done, and remembers how long each took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = perf_counter()
        with progress(name):
            yield
        self.seconds[name] = perf_counter() - start
