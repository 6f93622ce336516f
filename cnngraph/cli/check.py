"""`cnngraph check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import Format, FormatOption, SetOption, parse_params, print_diagnostics, print_json
from cnngraph.report import terminal
from cnngraph.report.terminal import printable


@app.command(
    epilog="""\b
Examples:
  cnngraph check my_net.yaml
  cnngraph check specs/*.yaml --format json
  cnngraph check specs/resnet18.yaml --set num_classes=10

\b
With --format json, stdout holds one object:
  {"cnngraph": version, "ok": all hold, "specs": [
    {"file", "ok", "diagnostics": [
       {"code", "name", "severity", "message", "file", "line", "column",
        "width", "label", "path", "notes": [{"kind", "text"}]}],
     "name", "input", "output", "aux": {name: shape},
     "params", "buffers", "macs", "training_macs",
     "sizes": {"tried", "valid", "least", "stride",
               "failures": [{"sizes", "path", "reason"}]},
     "stages": [{"path", "kind", "copies", "shape", "params",
                 "buffers", "macs", "aux"}]}]}
Shapes leave out the batch; sizes are runs [first, last] of square
inputs; lines and columns count from 1. What is not known because
the spec does not hold is null.

\b
Exit codes: 0 all hold (warnings do not count), 1 a spec or a file is at fault, 2 wrong usage.
"""
)
def check(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC", help="Specs, in YAML.", show_default=False)],
    sets: SetOption = None,
    format: FormatOption = Format.TEXT,
) -> None:
    """Check specs, without PyTorch and without building anything.

    Every mistake is shown at its line, with a way out. Of a spec that holds: its costs, and the input sizes it accepts
    besides the one it declares.
    """
    from cnngraph.checker import check
    from cnngraph.report.check import summary
    from cnngraph.report.data import report_data

    params = parse_params(sets)
    reports = []
    for spec in specs:
        with terminal.progress(f"checking {spec}"):
            report = check(spec, params)
        reports.append(report)
        if format is Format.JSON:
            continue
        print_diagnostics(report)
        if report.ok:
            print(printable(summary(report)), flush=True)
    failed = [report for report in reports if not report.ok]
    if format is Format.JSON:
        print_json({"ok": not failed, "specs": [report_data(report) for report in reports]})
    elif len(reports) > 1 and failed:
        terminal.print_diagnostics(f"{len(failed)} of {len(reports)} specs do not hold")
    if failed:
        raise typer.Exit(FAULT)
