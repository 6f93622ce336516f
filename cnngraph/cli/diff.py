"""`cnngraph diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    PluginOption,
    SetOption,
    load_plugins,
    parse_params,
    print_json,
)
from cnngraph.report import terminal


@app.command(
    epilog="""\b
Examples:
  cnngraph diff resnet18 resnet34
  cnngraph diff specs/vgg11.yaml my_net.yaml --format markdown
  cnngraph diff resnet18 --set num_classes=10

\b
With --format json, stdout is one object; lists are [old, new]:
  {"cnngraph", "old", "new", "totals": {"params", "macs", "activations"},
   "layers": [{"status": "added" | "removed" | "changed" | "resized" |
               "renamed", "path", "kind", "arguments": {name: [old, new]},
               "shape", "params", "macs", "activations"}],
   "same": number of layers,
   "weights": {"kept": [key], "renamed": {new key: old key},
               "lost": [key], "new": [key]}}

\b
Exit codes: 0 success, 1 an invalid spec, 2 wrong usage.
"""
)
def diff(
    old: Annotated[
        Path,
        typer.Argument(
            metavar="OLD", help="A spec in YAML, or a name of `cnngraph zoo`.", show_default=False
        ),
    ],
    new: Annotated[
        Path | None,
        typer.Argument(
            metavar="[NEW]",
            help="The spec to compare with; if left out, OLD with the params of --set.",
            show_default=False,
        ),
    ] = None,
    sets: SetOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: Annotated[
        Literal["text", "markdown", "json"], typer.Option(help="How to print it.")
    ] = "text",
) -> None:
    """Show what differs between two networks, layer by layer.

    Shows the layers that were added, removed and changed, what that costs, and which
    weights of the old network the new one can load. PyTorch is not loaded.
    """
    from cnngraph.comparison import diff_report as report
    from cnngraph.comparison.diff import diff

    params = parse_params(sets)
    if new is None and not params:
        raise typer.BadParameter("give a second spec, or --set a param", param_hint="'NEW'")
    load_plugins(plugins)
    found = diff(old, new, params, allow_code=allow_code)
    if format == "json":
        print_json(report.diff_data(found))
    elif format == "markdown":
        print(report.diff_markdown(found))
    else:
        table = report.diff_table(found)
        if table.row_count:
            terminal.print_table(table)
            print()
        terminal.print_table(report.totals_table(found))
        print(f"\n{report.diff_notes(found)}")
