"""`cnngraph probe`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    FormatOption,
    PlotOption,
    PluginOption,
    SetOption,
    SpecArgument,
    load_plugins,
    parse_params,
    print_json,
)
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph probe lenet
  cnngraph probe lenet --set activation=relu -o probe.png
  cnngraph probe my_net.yaml --data photos/ --weights runs/my_net/last.ckpt

\b
With --format json, stdout is one object:
  {"cnngraph", "network", "data", "weights", "batch_size", "loss",
   "layers": [{"path", "kind", "shape", "weighted", "mean", "std", "dead",
               "gradient", "relative"}],
   "findings": [{"problem": "vanishing" | "exploding" | "dead", "layer",
                 "text", "help": [text]}]}

\b
Exit codes: 0 success, whatever the verdict, 1 an invalid spec, wrong data or
weights, or a file that cannot be written, 2 wrong usage.
"""
)
def probe(
    spec: SpecArgument,
    sets: SetOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Images, as of `cnngraph train`, or `random` for normal random values.",
            show_default="digits if they fit, else random",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights or a checkpoint; by default, they are initialised.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=2, metavar="N", help="Images in the batch.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, and of the images.")] = 0,
    output: PlotOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
) -> None:
    """Measure one training step, layer by layer.

    Runs one batch forward and backward. Shows mean and deviation of each layer's
    output, its share of dead units, and its gradients. The verdict is about vanishing
    and exploding gradients and dead units, with what usually helps.
    """
    from cnngraph.report.plots import require_plot_file

    if output is not None:
        require_plot_file(output)
    params = parse_params(sets)
    load_plugins(plugins)
    from cnngraph.probing import report
    from cnngraph.probing.probe import probe

    with terminal.progress("probing"):
        found = probe(
            spec, params, data=data, weights=weights, batch_size=batch_size, seed=seed,
            allow_code=allow_code,
        )  # fmt: skip
    if format == "json":
        print_json(report.probe_data(found))
    else:
        terminal.print_table(report.probe_table(found))
        print(f"\n{report.CONVENTION}\n\n{report.verdict_text(found)}")
    if output is not None:
        found.save(output)
        if format != "json":
            print(f"wrote {output}")
