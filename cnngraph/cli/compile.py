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
from cnngraph.options import Options
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.graph import Graph
    from cnngraph.graph.step_memory import StepMemory
    from cnngraph.lowering.network import Network
    from cnngraph.report.check import Report


class BackendName(StrEnum):
    """The names of `passes.BACKENDS`, which would load every op if they were imported here."""

    FUSED = "fused"
    EAGER = "eager"


class ModeName(StrEnum):
    TRAIN = "train"
    INFERENCE = "inference"


@app.command(
    epilog="""\b
Examples:
  cnngraph compile specs/googlenet.yaml
  cnngraph compile specs/googlenet.yaml --set num_classes=10 -o googlenet.pt
  cnngraph compile specs/resnet50.yaml --memory 6GB --batch-size 64
  cnngraph compile specs/lenet.yaml --print-graph --print-code

\b
With --format json, stdout holds one object:
  {"cnngraph", "ok", "file", "diagnostics", "error",
   "name", "input", "output", "aux", "params", "buffers", "macs",
   "training_macs", "sizes", "stages",      as `check` gives them
   "backend", "mode", "kernels", "artifact",
   "passes": [{"name", "made": {ops: count}, "nodes", "seconds"}],
   "memory": {"policy", "batch_size", "weights", "optimizer", "input",
              "kept", "step", "peak", "extra_time"},   predicted, in bytes
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
    mode: Annotated[
        ModeName, typer.Option(help="`inference` folds batch norms into convolutions.")
    ] = ModeName.TRAIN,
    memory: Annotated[
        str,
        typer.Option(
            metavar="[fast|lean|SIZE]",
            help="What is kept for backward: `lean` computes activations again, for less memory; a budget such as 6GB as much as a step must.",
        ),
    ] = "fast",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images in a training step: its memory is predicted, and kept to a budget.")
    ] = 16,
    passes: Annotated[
        str | None,
        typer.Option(
            metavar="-NAME[,-NAME]", show_default=False, help="Turns passes off: --passes -channels_last",
        ),
    ] = None,
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
    from cnngraph.passes import passes_of

    turned_off = tuple(passes.split(",")) if passes is not None else ()
    try:
        options = Options(
            backend=backend.value, mode=mode.value, memory=memory, batch_size=batch_size, passes=turned_off
        )
        passes_of(options)
    except CnngraphError as wrong:
        raise typer.BadParameter(str(wrong)) from None
    seconds: dict[str, float] = {}
    with _timed(seconds, "check"):
        from cnngraph.checker import check

        report = check(spec, params)
    compiled, error = None, None
    if report.ok:
        try:
            with terminal.progress(f"compiling {spec}"):
                compiled = _compile(report, params, options, output, seconds)
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

    def memory(self) -> tuple[StepMemory, float]:
        """The memory of a training step, and what computing again adds to its time."""
        from cnngraph.graph.step_memory import extra_time, predict

        _, optimized = self.graphs[-1]
        batch_size = self.network.compilation.options.batch_size
        return predict(optimized, batch_size), extra_time(optimized, batch_size)


def _compile(
    report: Report,
    params: dict[str, Any],
    options: Options,
    output: Path | None,
    seconds: dict[str, float],
) -> _Compiled:
    """Compiles a spec that holds, and saves the network; `seconds` is told how long each phase took."""
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
    return _Compiled(network, seconds, graphs, output)


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    start = perf_counter()
    yield
    seconds[phase] = perf_counter() - start


def _compiled_data(compiled: _Compiled | None, print_graph: bool, print_code: bool) -> dict[str, Any]:
    from cnngraph.report.compilation import code_of, kernels_in_use

    keys = ["backend", "mode", "kernels", "artifact", "passes", "memory", "seconds"]
    keys += ["graphs"] * print_graph + ["code"] * print_code
    if compiled is None:
        return dict.fromkeys(keys)
    compilation = compiled.network.compilation
    memory, extra_time = compiled.memory()
    data = {
        "backend": compilation.options.backend,
        "mode": compilation.options.mode,
        "kernels": kernels_in_use(compilation.options.backend),
        "artifact": None if compiled.artifact is None else str(compiled.artifact),
        "passes": [asdict(item) for item in compilation.passes],
        "memory": {
            "policy": compilation.options.memory,
            **asdict(memory),
            "peak": memory.peak,
            "extra_time": extra_time,
        },
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
    compilation = compiled.network.compilation
    options = compilation.options
    memory, extra_time = compiled.memory()
    first, *others = words.describe_passes(compilation.passes)
    rows = [
        ("params", params(report.summary)),
        ("MACs", macs(report.summary)),
        ("backend", options.backend),
        ("mode", options.mode),
        ("passes", first),
        *(("", line) for line in others),
        ("kernels", words.describe_kernels(words.kernels_in_use(options.backend))),
        ("memory", words.describe_memory(memory)),
        *([("", words.describe_policy(options.memory, compilation.passes, extra_time))] * (options.memory != "fast")),
        ("time", words.describe_phases(compiled.seconds)),
    ]
    if compiled.artifact is not None:
        rows.append(("saved", f"{compiled.artifact} ({size(compiled.artifact.stat().st_size)})"))
    for key, value in rows:
        print(printable(f"  {key:<9}{value}"))
