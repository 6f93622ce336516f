"""`cnngraph compile`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    Format,
    FormatOption,
    SetOption,
    SpecArgument,
    parse_params,
    print_diagnostics,
    print_json,
)
from cnngraph.errors import CnngraphError
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.checking import Report
    from cnngraph.graph import Graph
    from cnngraph.network import Network


class BackendName(StrEnum):
    """The names of `passes.BACKENDS`, which cannot be imported here: it needs torch."""

    FUSED = "fused"
    EAGER = "eager"
    INFERENCE = "inference"


class MemoryName(StrEnum):
    """The names of `passes.MEMORY`."""

    FAST = "fast"
    LEAN = "lean"


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
        BackendName, typer.Option(help="`fused` uses the fused operators, `eager` plain torch.nn, `inference` folds batch norms.")
    ] = BackendName.FUSED,
    memory: Annotated[
        MemoryName, typer.Option(help="What is kept for backward: `lean` computes activations again, for less memory.")
    ] = MemoryName.FAST,
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
    params = parse_params(sets)
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
                compiled = _compile(report, params, backend.value, memory.value, output, seconds)
        except CnngraphError as caught:
            error = str(caught)
    if format is Format.JSON:
        from cnngraph.report.data import report_data

        print_json({**report_data(report), **_compiled_data(compiled, print_graph, print_code), "error": error})
    else:
        _print_compiled(report, compiled, print_graph, print_code, error)
    if compiled is None:
        raise typer.Exit(FAULT)


@dataclass(frozen=True)
class _Compiled:
    network: Network
    seconds: dict[str, float]
    graphs: list[tuple[str, Graph]]
    artifact: Path | None


def _compile(
    report: Report,
    params: dict[str, Any],
    backend: str,
    memory: str,
    output: Path | None,
    seconds: dict[str, float],
) -> _Compiled:
    """Compiles a spec that holds, and saves the network; `seconds` is told how long each phase took."""
    with _timed(seconds, "load torch"):
        from cnngraph.artifact import save_compiled
        from cnngraph.compiler import compile_graph
    assert report.spec is not None
    assert report.graph is not None
    graphs: list[tuple[str, Graph]] = []
    times = [perf_counter()]

    def observe(stage: str, graph: Graph) -> None:
        graphs.append((stage, graph))
        times.append(perf_counter())

    network = compile_graph(report.spec, params, report.graph, backend, memory=memory, observe=observe)
    seconds |= {"passes": times[-1] - times[0], "lower": perf_counter() - times[-1]}
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


def _print_compiled(
    report: Report, compiled: _Compiled | None, print_graph: bool, print_code: bool, error: str | None
) -> None:
    from cnngraph.report import compilation as words
    from cnngraph.report.check import macs, params, shapes
    from cnngraph.report.numbers import size
    from cnngraph.report.stages import stage_table

    print_diagnostics(report)
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
