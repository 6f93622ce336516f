"""The commands. They parse, call the library and print; what is printed is made in `report/`."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cnngraph import __version__
from cnngraph.errors import CnngraphError, Source, SpecError, did_you_mean, render
from cnngraph.report import terminal
from cnngraph.report.terminal import printable
from cnngraph.yaml_source import parse_yaml

if TYPE_CHECKING:
    from cnngraph.checking import Report
    from cnngraph.graph import Graph
    from cnngraph.network import Network

FAULT = 1
INTERRUPTED = 130
BROKEN_PIPE = 141


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


class BackendName(StrEnum):
    """The names of `passes.BACKENDS`, which cannot be imported here: it needs torch."""

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
    params = _params(sets)
    if output is not None and output.exists() and spec.exists() and output.samefile(spec):
        raise typer.BadParameter("it is the spec itself", param_hint="'-o'")
    seconds: dict[str, float] = {}
    with _timed(seconds, "check"):
        from cnngraph.checking import check

        report = check(spec, params)
    compiled, error = None, None
    if report.ok:
        try:
            with terminal.progress(f"compiling {spec}"):
                compiled = _compile(spec, params, backend.value, output, seconds)
        except CnngraphError as caught:
            error = str(caught)
    if format is Format.JSON:
        from cnngraph.report.data import report_data

        _print_json({**report_data(report), **_compiled_data(compiled, print_graph, print_code), "error": error})
    else:
        _print_compiled(report, compiled, print_graph, print_code, error)
    if compiled is None:
        raise typer.Exit(FAULT)


@app.command(
    epilog="""\b
Examples:
  cnngraph check my_net.yaml
  cnngraph check specs/*.yaml --format json
  cnngraph check specs/resnet18.yaml --set num_classes=10

\b
With --format json, stdout holds one object:
  {"cnngraph": version, "ok": all hold, "specs": [
    {"file", "ok", "diagnostics": [
       {"code", "name", "severity", "message", "file", "line", "column",
        "width", "label", "path", "notes": [{"kind", "text"}]}],
     "name", "input", "output", "aux": {name: shape},
     "params", "buffers", "macs", "training_macs",
     "sizes": {"tried", "valid", "least", "stride",
               "failures": [{"sizes", "path", "reason"}]},
     "stages": [{"path", "kind", "copies", "shape", "params",
                 "buffers", "macs", "aux"}]}]}
Shapes leave out the batch; sizes are runs [first, last] of square
inputs; lines and columns count from 1. What is not known because
the spec does not hold is null.

\b
Exit codes: 0 all hold (warnings do not count), 1 a spec or a file is at fault, 2 wrong usage.
"""
)
def check(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC", help="Specs, in YAML.", show_default=False)],
    sets: SetOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Check specs, without PyTorch and without building anything.

    Every mistake is shown at its line, with a way out. Of a spec that holds: its costs, and the input sizes it accepts
    besides the one it declares.
    """
    from cnngraph.checking import check
    from cnngraph.report.check import summary
    from cnngraph.report.data import report_data

    params = _params(sets)
    reports = []
    for spec in specs:
        with terminal.progress(f"checking {spec}"):
            report = check(spec, params)
        reports.append(report)
        if format is Format.JSON:
            continue
        _print_diagnostics(report)
        if report.ok:
            print(printable(summary(report)), flush=True)
    failed = [report for report in reports if not report.ok]
    if format is Format.JSON:
        _print_json({"ok": not failed, "specs": [report_data(report) for report in reports]})
    elif len(reports) > 1 and failed:
        terminal.print_diagnostics(f"{len(failed)} of {len(reports)} specs do not hold")
    if failed:
        raise typer.Exit(FAULT)


@app.command(
    epilog="""\b
Examples:
  cnngraph schema -o cnngraph.schema.json
and then, as the first line of a spec, for editors that use yaml-language-server:
  # yaml-language-server: $schema=cnngraph.schema.json

\b
Exit codes: 0 fine, 1 the file cannot be written or a plugin is broken, 2 wrong usage.
"""
)
def schema(
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of to stdout.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema of specs, for completion and checks in editors.

    It is of draft 2020-12 and covers the ops of installed plugins.
    """
    from cnngraph.schema import json_schema

    text = json.dumps(json_schema(), indent=2) + "\n"
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CnngraphError(f"cannot write {output}: {error.strerror or error}") from None


def _known_kinds(incomplete: str) -> list[str]:
    """For the shell's completion."""
    from cnngraph.report.ops import kinds

    return [kind for kind in kinds() if kind.startswith(incomplete)]


@app.command(
    epilog="""\b
Examples:
  cnngraph ops
  cnngraph ops conv2d
  cnngraph ops --format json

\b
With --format json, stdout holds {"cnngraph": version, "ops": [
  {"kind", "composite", "summary", "description", "main",
   "arguments": [{"name", "required", "default", "type",
                  "schema", "description"}]}]}
"main" is the argument that may be given bare: `linear: 10`.

\b
Exit codes: 0 fine, 1 a plugin is broken, 2 wrong usage (no such op).
"""
)
def ops(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Tell of this one alone.", show_default=False, autocompletion=_known_kinds),
    ] = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """List what a node can be; or, with a NAME, tell what it takes."""
    from cnngraph.ops import load_plugins
    from cnngraph.report import ops as words

    load_plugins()
    if name is not None and name not in words.kinds():
        hint = "".join(f"; {text}" for _, text in did_you_mean(name, words.kinds()))
        raise typer.BadParameter(f"there is no op `{name}`{hint or '; `cnngraph ops` lists what there is'}")
    if format is Format.JSON:
        _print_json({"ops": words.kinds_data() if name is None else [words.kind_data(name)]})
    elif name is not None:
        print(words.kind_text(name))
    else:
        terminal.print_table(words.list_table())


def main() -> None:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:  # while the command line itself was read
        terminal.print_error("interrupted")
        raise SystemExit(INTERRUPTED) from None


# --- arguments -------------------------------------------------------------------------------------------------------


def _params(sets: Iterable[str] | None) -> dict[str, Any]:
    """`["num_classes=10"]` -> `{"num_classes": 10}`."""
    params: dict[str, Any] = {}
    for item in sets or ():
        key, separator, text = item.partition("=")
        if not separator or not key.isidentifier():
            raise _wrong_set(f"`{item}` is not of the form key=value")
        if key in params:
            raise _wrong_set(f"`{key}` is given twice")
        if not text.strip():
            raise _wrong_set(f'`{key}` has no value (`{key}=~` gives none, `{key}=""` an empty text)')
        try:
            params[key] = parse_yaml(Source(f"--set {key}", text)).plain()
        except SpecError as error:
            raise _wrong_set(f"`{item}`: {error.diagnostics[0].message}") from None
    return params


def _wrong_set(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--set'")


# --- compiling -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Compiled:
    network: Network
    seconds: dict[str, float]
    graphs: list[tuple[str, Graph]]
    artifact: Path | None


def _compile(
    spec: Path, params: dict[str, Any], backend: str, output: Path | None, seconds: dict[str, float]
) -> _Compiled:
    """Compiles a spec that holds, and saves the network; `seconds` is told how long each phase took."""
    with _timed(seconds, "load torch"):
        from cnngraph.artifact import save_compiled
        from cnngraph.compiler import compile_spec
    with _timed(seconds, "read"):
        from cnngraph.checking import read_spec

        loaded = read_spec(spec)
    graphs: list[tuple[str, Graph]] = []
    times = [perf_counter()]

    def observe(stage: str, graph: Graph) -> None:
        graphs.append((stage, graph))
        times.append(perf_counter())

    network = compile_spec(loaded, params, backend, observe=observe)
    seconds |= {"elaborate": times[1] - times[0], "passes": times[-1] - times[1], "lower": perf_counter() - times[-1]}
    if output is not None:
        with _timed(seconds, "save"):
            save_compiled(network, output)
    return _Compiled(network, seconds, graphs, output)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start


def _compiled_data(compiled: _Compiled | None, print_graph: bool, print_code: bool) -> dict[str, Any]:
    from cnngraph.report.compilation import code_of, kernels_in_use

    keys = ["backend", "kernels", "artifact", "passes", "seconds"]
    keys += ["graphs"] * print_graph + ["code"] * print_code
    if compiled is None:
        return dict.fromkeys(keys)
    compilation = compiled.network.meta["cnngraph"]
    data = {
        "backend": compilation.backend,
        "kernels": kernels_in_use(compilation.backend),
        "artifact": None if compiled.artifact is None else str(compiled.artifact),
        "passes": [asdict(item) for item in compilation.passes],
        "seconds": compiled.seconds,
        "graphs": [{"after": stage, "text": str(graph)} for stage, graph in compiled.graphs],
        "code": code_of(compiled.network),
    }
    return {key: data[key] for key in keys}


# --- printing --------------------------------------------------------------------------------------------------------


def _print_json(data: dict[str, Any]) -> None:
    print(json.dumps({"cnngraph": __version__, **data}, indent=2))


def _print_diagnostics(report: Report) -> None:
    """The diagnostics and how many they are, on stderr, where there are any."""
    from cnngraph.report.check import verdict

    if report.diagnostics:
        terminal.print_diagnostics(f"{render(report.diagnostics)}\n\n{verdict(report.name, report.diagnostics)}\n")


def _print_compiled(
    report: Report, compiled: _Compiled | None, print_graph: bool, print_code: bool, error: str | None
) -> None:
    from cnngraph.report import compilation as words
    from cnngraph.report.check import macs, params, shapes
    from cnngraph.report.numbers import size
    from cnngraph.report.stages import stage_table

    _print_diagnostics(report)
    if error is not None:
        terminal.print_error(error)
    if compiled is None or report.graph is None or report.summary is None:
        return
    if print_graph:
        for stage, graph in compiled.graphs:
            print(printable(f"# after {stage}\n{graph}\n"))
    if print_code:
        print(printable(f"# code\n{words.code_of(compiled.network)}\n"))
    print(printable(f"{report.name}: {report.graph.name}, {shapes(report.graph)}\n"))
    terminal.print_table(stage_table(report.graph))
    print()
    compilation = compiled.network.meta["cnngraph"]
    first, *others = words.describe_passes(compilation.passes)
    rows = [
        ("params", params(report.summary)),
        ("MACs", macs(report.summary)),
        ("backend", compilation.backend),
        ("passes", first),
        *(("", line) for line in others),
        ("kernels", words.describe_kernels(words.kernels_in_use(compilation.backend))),
        ("time", words.describe_phases(compiled.seconds)),
    ]
    if compiled.artifact is not None:
        rows.append(("saved", f"{compiled.artifact} ({size(compiled.artifact.stat().st_size)})"))
    for key, value in rows:
        print(printable(f"  {key:<9}{value}"))
