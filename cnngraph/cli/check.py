"""`cnngraph check`."""

from __future__ import annotations

import re
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    FormatOption,
    PluginOption,
    SetOption,
    load_plugins,
    parse_params,
    print_diagnostics,
    print_json,
)
from cnngraph.errors import CnngraphError, Source, SpecError
from cnngraph.report import terminal
from cnngraph.report.terminal import printable
from cnngraph.spec.yaml import MAX_BYTES, decode, read_source


@app.command(
    epilog="""\b
Examples:
  cnngraph check my_net.yaml
  cnngraph check resnet50
  cnngraph check specs/*.yaml --format json
  cnngraph check .
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
               "failures": [{"sizes", "path", "code", "reason"}]},
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
            help="Specs in YAML, folders of specs, `-` for stdin, or names of `cnngraph zoo`.",
            show_default=False,
        ),
    ],
    sets: SetOption = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
) -> None:
    """Check specs without building anything or loading PyTorch.

    Reports every error with its line and a suggestion. For a valid spec, reports its
    costs and the input sizes that it accepts. In a folder, all YAML files with the key
    `cnngraph` are checked, those in folders inside of it too.
    """
    from cnngraph.checker import check, check_source
    from cnngraph.report.check import Report, summary
    from cnngraph.report.data import report_data

    params = parse_params(sets)
    load_plugins(plugins)
    reports: list[Report] = []
    for spec in chain.from_iterable(map(_specs_in, specs)):
        with terminal.progress(f"checking {spec}"):
            stdin = str(spec) == "-"
            report = (
                check_source(_stdin(), params, allow_code=allow_code)
                if stdin
                else check(spec, params, allow_code=allow_code)
            )
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


def _specs_in(path: Path) -> list[Path]:
    """The specs in a folder, hidden files and folders left out; for other paths, `path` itself.

    Raises `CnngraphError` if there are none.
    """
    if not path.is_dir():
        return [path]
    found = [
        file
        for file in sorted(path.rglob("*.y*ml"))
        if file.suffix in (".yaml", ".yml")
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and _is_spec(file)
    ]
    if not found:
        raise CnngraphError(f"no YAML file in {path} has the key `cnngraph`")
    return found


def _is_spec(file: Path) -> bool:
    """Whether a file says that it is a spec; True too if it cannot be read, which is reported."""
    try:
        text = read_source(file, str(file)).text
    except SpecError:
        return True
    return re.search(r"^cnngraph\s*:", text, re.MULTILINE) is not None


def _stdin() -> Source:
    """The text on stdin. Raises `SpecError` if it is too large, or not UTF-8."""
    return decode(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")
