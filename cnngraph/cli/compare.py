"""`cnngraph compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    BatchSizeOption,
    FormatOption,
    OptimizerOption,
    SetOption,
    parse_params,
    print_json,
)
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph compare resnet18 resnet50 mobilenet_v2
  cnngraph compare resnet18 my_net.yaml --batch-size 64 --optimizer AdamW

\b
With --format json, stdout is one object:
  {"cnngraph", "batch_size", "optimizer", "networks": [{"name", "input",
   "layers", "params", "macs", "activations", "memory"}]}

\b
Exit codes: 0 success, 1 an invalid spec, 2 wrong usage.
"""
)
def compare(
    specs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SPEC", help="Specs in YAML, or names of `cnngraph zoo`.", show_default=False
        ),
    ],
    sets: SetOption = None,
    batch_size: BatchSizeOption = 16,
    optimizer: OptimizerOption = "SGD",
    format: FormatOption = "text",
) -> None:
    """Compare networks: layers with weights, parameters, MACs, activations and memory.

    Memory is that of a training step of the batch, predicted. PyTorch is not loaded.
    """
    from cnngraph.checker import given_params, read_spec
    from cnngraph.comparison.networks import compare as compared
    from cnngraph.comparison.networks import comparison_data, comparison_table
    from cnngraph.elaborate import elaborate_or_raise

    params = given_params(parse_params(sets))
    graphs = [(str(spec), elaborate_or_raise(read_spec(spec), params)) for spec in specs]
    found = compared(graphs, batch_size, optimizer)
    if format == "json":
        networks = comparison_data(found)
        print_json({"batch_size": batch_size, "optimizer": optimizer, "networks": networks})
        return
    terminal.print_table(comparison_table(found))
    print(f"\nact. and memory: for a batch of {batch_size}; a training step with {optimizer}")
