"""`cnngraph scaling`."""

from __future__ import annotations

from typing import Annotated

import typer

from cnngraph.checker import read_spec
from cnngraph.cli.app import app
from cnngraph.cli.options import AllowCodeOption, PluginOption, SpecsArgument, load_plugins
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph.exchange import exchange
from cnngraph.report import terminal
from cnngraph.report.numbers import size

_DEVICES = (8, 64, 512)


@app.command(
    epilog="""\b
Examples:
  cnngraph scaling resnet50 vgg16
  cnngraph scaling resnet50 --step 250 --bandwidth 25 --latency 10

\b
The prediction is that of a ring all-reduce. Of two shares, the first is
reached if nothing overlaps, the second if gradients are exchanged during the
backward pass, two thirds of the step. `needs` is the bandwidth with which the
exchange of gradients takes as long as the backward pass.

\b
Exit codes: 0 success, 1 an invalid spec, 2 wrong usage.
"""
)
def scaling(
    specs: SpecsArgument,
    step: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="The measured time of a step on one device, to predict the efficiency of many.",
            show_default=False,
        ),
    ] = None,
    bandwidth: Annotated[
        float,
        typer.Option(metavar="GB/S", help="Of the slowest link, in each direction."),
    ] = 25.0,
    latency: Annotated[float, typer.Option(metavar="US", help="Of a message.")] = 10.0,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
) -> None:
    """Show what a distributed training step exchanges.

    With a measured step time, also predicts the efficiency on many devices.
    """
    load_plugins(plugins)
    columns = ["gradients", "batch norms", "statistics"]
    if step is not None:
        columns += ["needs", *(f"{count} devices" for count in _DEVICES)]
    table = terminal.simple_table(["network"], columns)
    for spec in specs:
        source = read_spec(spec, allow_code)
        found = exchange(elaborate_or_raise(source, {}))
        row = [size(found.gradients), str(found.batch_norms), size(found.statistics)]
        if step is not None:
            seconds = step / 1e3
            row.append(f"{3 * found.gradients / seconds / 1e9:.2f} GB/s")
            for count in _DEVICES:
                low, high = found.efficiency(seconds, count, bandwidth * 1e9, latency / 1e6)
                row.append(f"{low:.0%} to {high:.0%}")
        table.add_row(source.name, *row)
    terminal.print_table(table)
