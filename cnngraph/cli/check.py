"""`cnngraph check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    FormatOption,
    SetOption,
    parse_params,
    print_diagnostics,
    print_json,
)
from cnngraph.report import terminal
from cnngraph.report.terminal import printable


@app.command(
    epilog="""\b
Examples:
  cnngraph check my_net.yaml
  cnngraph check resnet50
  cnngraph check specs/*.yaml --format json
  cnngraph check specs/resnet18.yaml --set num_classes=10

\b
With --format json, stdout is one object:
  {"cnngraph": version, "ok": all are valid, "specs": [
    {"file", "ok", "diagnostics": [
       {"code", "name", "severity", "message", "file", "line", "column",
        "width", "label", "path", "notes": [{"kind", "text"}]}],
     "name", "input", "output", "aux": {name: shape},
     "params", "buffers", "macs", "training_macs",
     "sizes": {"tried", "valid", "least", "stride",
               "failures": [{"sizes", "path", "reason"}]},
     "stages": [{"path", "kind", "copies", "shape", "params",
                 "buffers", "macs", "aux"}]}]}
Shapes are without the batch. Sizes are runs [first, last] of square inputs.
Lines and columns count from 1. For an invalid spec, unknown values are null.

\b
Exit codes: 0 valid (with or without warnings), 1 an invalid spec or a file
that cannot be read, 2 wrong usage.
"""
)
def check(
    specs: Annotated[
        list[Path],
        typer.Argument(
            metavar="SPEC",
            help="Specs in YAML, or names of `cnngraph zoo`.",
            show_default=False,
        ),
    ],
    sets: SetOption = None,
    format: FormatOption = "text",
) -> None:
    """Check specs without building anything or loading PyTorch.

    Reports every error with its line and a suggestion. For a valid spec, reports its
    costs and the input sizes that it accepts.
    """
    from cnngraph.checker import check
    from cnngraph.report.check import Report, summary
    from cnngraph.report.data import report_data

    params = parse_params(sets)
    reports: list[Report] = []
    for spec in specs:
        with terminal.progress(f"checking {spec}"):
            report = check(spec, params)
        reports.append(report)
        if format == "json":
            continue
        print_diagnostics(report)
        if report.ok:
            print(printable(summary(report)), flush=True)
    failed = [report for report in reports if not report.ok]
    if format == "json":
        print_json({"ok": not failed, "specs": [report_data(report) for report in reports]})
    elif len(reports) > 1 and failed:
        terminal.print_diagnostics(f"{len(failed)} of {len(reports)} specs are invalid")
    if failed:
        raise typer.Exit(FAULT)
