"""`cnngraph summary`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    BatchSizeOption,
    FitOption,
    OptimizerOption,
    PluginOption,
    SetOption,
    SpecArgument,
    load_plugins,
    parse_params,
    print_diagnostics,
    print_json,
)
from cnngraph.report import terminal
from cnngraph.report.terminal import printable


@app.command(
    epilog="""\b
Examples:
  cnngraph summary resnet18
  cnngraph summary googlenet --depth all --format csv
  cnngraph summary resnet50 --batch-size 64 --set input=3,288,288
  cnngraph summary resnet50 --optimizer AdamW --fit 8GB
  cnngraph summary resnet50 --freeze "conv1,bn1,layer1"

\b
With --format json, stdout is one object:
  {"cnngraph", "file", "name", "input", "batch_size",
   "parts": [{"path", "kind", "copies", "aux", "shape", "params", "frozen",
              "params_share", "buffers", "macs", "macs_share",
              "activation_bytes", "receptive_field", "stride", "offset"}],
   "memory": {"optimizer", "batch_size", "peak",
              "bytes": {"weights", "gradients", "optimizer", "input",
                        "activations"}},
   "largest_batch"}   with --fit
Receptive fields are by axis; null is the whole input. Memory is in bytes.

\b
Exit codes: 0 success, 1 an invalid spec, 2 wrong usage.
"""
)
def summary(
    spec: SpecArgument,
    sets: SetOption = None,
    depth: Annotated[
        str, typer.Option(metavar="N|all", help="Levels of blocks to open; `all` lists layers.")
    ] = "1",
    batch_size: BatchSizeOption = 1,
    optimizer: OptimizerOption = "SGD",
    fit: FitOption = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Weights that are not trained, as patterns of paths.",
            show_default=False,
        ),
    ] = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: Annotated[
        Literal["text", "markdown", "csv", "json"], typer.Option(help="How to print it.")
    ] = "text",
) -> None:
    """Show shapes, costs and receptive fields by part.

    Costs are parameters, multiply-accumulates, and bytes of activations for the batch.
    Nothing is built, and PyTorch is not loaded.
    """
    from cnngraph.checker import check_network
    from cnngraph.report import memory as words
    from cnngraph.report import summary as report

    levels = None if depth == "all" else _levels(depth)
    params = parse_params(sets)
    load_plugins(plugins)
    checked = check_network(spec, params, allow_code=allow_code)
    print_diagnostics(checked)
    if not checked.ok or checked.graph is None:
        raise typer.Exit(FAULT)
    graph = checked.graph
    frozen = freeze.split(",") if freeze else ()
    found = report.summarize_parts(graph, levels, batch_size, frozen)
    if format == "csv":
        print(printable(report.summary_csv(found)), end="")
        return
    if format == "markdown":
        print(printable(report.summary_markdown(found)))
        return
    step = words.step_memory(graph, batch_size, optimizer, frozen)
    largest = None if fit is None else words.largest(graph, fit, optimizer, frozen)
    if format == "json":
        print_json(
            {
                "file": str(spec),
                "name": graph.name,
                "input": {name: list(shape) for name, shape in graph.inputs.items()},
                "batch_size": batch_size,
                "parts": report.summary_rows(found),
                "memory": words.memory_data(step, optimizer),
                **({} if largest is None else {"largest_batch": largest}),
            }
        )
        return
    terminal.print_table(report.summary_table(found))
    print(f"\n{report.CONVENTION}")
    print(f"\nmemory: {words.describe_step(step, optimizer)}")
    if fit is not None and largest is not None:
        print(words.describe_fit(largest, fit, optimizer))


def _levels(depth: str) -> int:
    if not depth.isdecimal() or int(depth) < 1:
        message = f"must be `all` or a whole number from 1, not `{depth}`"
        raise typer.BadParameter(message, param_hint="'--depth'")
    return int(depth)
