"""`cnngraph compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    BatchSizeOption,
    FormatOption,
    OptimizerOption,
    PlotOption,
    PluginOption,
    SetOption,
    SpecsArgument,
    load_plugins,
    parse_params,
    print_json,
)
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph compare resnet18 resnet50 mobilenet_v2
  cnngraph compare resnet18 my_net.yaml --batch-size 64 --optimizer AdamW
  cnngraph compare resnet18 mobilenet_v2 --measure -o compare.svg

\b
With --format json, stdout is one object:
  {"cnngraph", "networks": [{"name", "input", "layers", "top1", "params",
                             "macs", "activations", "memory",
                             "images_per_second"}],
   "batch_size", "optimizer", "threads"}
What is not published or not measured is null. Memory is in bytes.

\b
Exit codes: 0 success, 1 an invalid spec, or a file that cannot be written,
2 wrong usage.
"""
)
def compare(
    specs: SpecsArgument,
    sets: SetOption = None,
    batch_size: BatchSizeOption = 16,
    optimizer: OptimizerOption = "SGD",
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure images per second on this machine, with PyTorch."),
    ] = False,
    output: PlotOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
) -> None:
    """Compare networks: accuracy, size, cost and memory.

    The accuracy is the published one, if there is any. Memory is that of a training
    step of the batch, predicted. Without --measure, PyTorch is not loaded.
    """
    from cnngraph.comparison import networks
    from cnngraph.comparison.compare import compare as compared
    from cnngraph.report.plots import require_plot_file

    if output is not None:
        require_plot_file(output)
    load_plugins(plugins)
    with terminal.progress_bar() as progress:
        found = compared(
            specs, parse_params(sets), batch_size=batch_size, optimizer=optimizer,
            measure=measure, progress=progress, plugins=[*map(str, plugins or ())],
            allow_code=allow_code,
        )  # fmt: skip
    if format == "json":
        print_json(networks.comparison_data(found))
    else:
        terminal.print_table(networks.comparison_table(found))
        print(f"\n{networks.comparison_notes(found)}")
    if output is not None:
        found.save(output)
        if format != "json":
            print(f"wrote {output}")
