"""`cnngraph compile`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    BackendOption,
    ForceOption,
    FormatOption,
    PluginOption,
    SetOption,
    SpecArgument,
    load_plugins,
    parse_params,
    print_diagnostics,
    print_json,
    require_own,
)
from cnngraph.errors import CnngraphError
from cnngraph.options import Options
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.graph import Graph
    from cnngraph.report.check import Report
    from cnngraph.report.compilation import Compiled


@app.command(
    epilog="""\b
Examples:
  cnngraph compile specs/googlenet.yaml
  cnngraph compile specs/googlenet.yaml --set num_classes=10 -o googlenet.pt
  cnngraph compile specs/resnet50.yaml --memory 6GB --batch-size 64
  cnngraph compile specs/lenet.yaml --print-graph --print-code

\b
With --format json, stdout is one object:
  {"cnngraph", "ok", "file", "diagnostics", "error",
   "name", "input", "output", "aux", "params", "buffers", "macs",
   "training_macs", "sizes", "stages",      as in `cnngraph check`
   "backend", "kernels", "artifact",
   "passes": [{"name", "made": {ops: count}, "nodes", "seconds"}],
   "memory": {"policy", "batch_size", "weights", "optimizer", "input",
              "kept", "step", "peak", "extra_time"},   predicted, in bytes
   "seconds": {phase: seconds},
   "graphs": [{"after", "text"}],           with --print-graph
   "code"}                                  with --print-code
For an invalid spec, unknown values are null. "error" is any other error,
such as a full disk.

\b
Exit codes: 0 success, 1 an invalid spec or a file that cannot be read or
written, 2 wrong usage.
"""
)
def compile(
    spec: SpecArgument,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Save the network, for `cnngraph.load_compiled`.",
            show_default=False,
        ),
    ] = None,
    sets: SetOption = None,
    backend: BackendOption = "fused",
    memory: Annotated[
        str,
        typer.Option(
            metavar="[fast|lean|SIZE]",
            help="What to keep for backward: `lean` recomputes activations; a size such as 6GB"
            " recomputes just enough for a step to fit.",
        ),
    ] = "fast",
    batch_size: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Images per training step, to predict its memory."),
    ] = 16,
    disable_passes: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Passes to leave out.", show_default=False),
    ] = None,
    print_graph: Annotated[
        bool, typer.Option("--print-graph", help="Print the graph after each pass.")
    ] = False,
    print_code: Annotated[
        bool, typer.Option("--print-code", help="Print the code of the network's `forward`.")
    ] = False,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    force: ForceOption = False,
    format: FormatOption = "text",
) -> None:
    """Compile a spec into a PyTorch module.

    Shows the costs of each stage, the fused operators, and the predicted memory of
    a training step. Errors of the spec are reported before PyTorch is loaded.
    """
    params = parse_params(sets)
    load_plugins(plugins)
    if output is not None and output.exists() and spec.exists() and output.samefile(spec):
        raise typer.BadParameter("it is the spec itself", param_hint="'-o'")
    require_own(output, "cnngraph compiled network", "compile", force)
    from cnngraph.passes import passes_of

    disabled = () if disable_passes is None else tuple(disable_passes.split(","))
    try:
        options = Options((), backend, memory, batch_size, disabled)
        passes_of(options)
    except CnngraphError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    seconds: dict[str, float] = {}
    with _timed(seconds, "check"):
        from cnngraph.checker import check_network

        report = check_network(spec, params, allow_code=allow_code)
    from cnngraph.report.compilation import compiled_data

    compiled, error = None, None
    if report.ok:
        try:
            with terminal.progress(f"compiling {spec}"):
                compiled = _compile(report, params, options, output, seconds)
        except CnngraphError as caught:
            error = str(caught)
    if format == "json":
        optional = ["graphs"] * print_graph + ["code"] * print_code
        print_json(compiled_data(report, compiled, error, optional))
    else:
        print_diagnostics(report)
        if error is not None:
            terminal.print_error(error)
        if compiled is not None:
            _print_compiled(report, compiled, print_graph, print_code)
    if compiled is None:
        raise typer.Exit(FAULT)


def _compile(
    report: Report,
    params: dict[str, Any],
    options: Options,
    output: Path | None,
    seconds: dict[str, float],
) -> Compiled:
    """Compiles a valid spec and saves the network; adds the time of each phase to `seconds`."""
    from cnngraph.report.compilation import Compiled

    with _timed(seconds, "load torch"):
        from cnngraph.compiler import compile_graph
        from cnngraph.weights.compiled import save_compiled
    assert report.spec is not None
    assert report.graph is not None
    graphs: list[tuple[str, Graph]] = []
    times = [perf_counter()]

    def observe(stage: str, graph: Graph) -> None:
        graphs.append((stage, graph))
        times.append(perf_counter())

    network = compile_graph(report.spec, params, report.graph, options, observe)
    seconds |= {"passes": times[-1] - times[0], "lower": perf_counter() - times[-1]}
    if output is not None:
        with _timed(seconds, "save"):
            save_compiled(network, output)
    return Compiled(network, seconds, graphs, output)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Generator[None]:
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start


def _print_compiled(
    report: Report, compiled: Compiled, print_graph: bool, print_code: bool
) -> None:
    from cnngraph.report.check import shapes
    from cnngraph.report.compilation import code_of, compiled_text
    from cnngraph.report.stages import stage_table

    assert report.graph is not None
    assert report.summary is not None
    if print_graph:
        for stage, graph in compiled.graphs:
            print(printable(f"# after {stage}\n{graph}\n"))
    if print_code:
        print(printable(f"# code\n{code_of(compiled.network)}\n"))
    print(printable(f"{report.name}: {report.graph.name}, {shapes(report.graph)}\n"))
    terminal.print_table(stage_table(report.graph))
    print(printable(f"\n{compiled_text(report.summary, compiled)}"))
