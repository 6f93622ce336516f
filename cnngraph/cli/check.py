"""`cnngraph check`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from cnngraph.cli.app import FAULT, app
from cnngraph.cli.options import (
    AllowCodeOption,
    FitOption,
    OptimizerOption,
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

if TYPE_CHECKING:
    from cnngraph.report.check import Report


@app.command(
    epilog="""\b
Examples:
  cnngraph check my_net.yaml
  cnngraph check resnet50
  cnngraph check specs/*.yaml --format json
  cnngraph check .
  cnngraph check specs/resnet18.yaml --set num_classes=10
  cnngraph check resnet18 --batch-size 64 --optimizer AdamW --fit 8GB
  cnngraph check my_net.yaml --watch
  cnngraph check . --format github

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
                 "buffers", "macs", "aux"}],
     "memory": as in `cnngraph summary`, with --batch-size,
     "largest_batch": with --fit}]}
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
    format: Annotated[
        Literal["text", "json", "github", "sarif"],
        typer.Option(help="`github` prints annotations of a workflow, `sarif` a log of mistakes."),
    ] = "text",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Add the memory of a training step.", show_default=False
        ),
    ] = None,
    optimizer: OptimizerOption = "SGD",
    fit: FitOption = None,
    specs_only: Annotated[
        bool, typer.Option("--specs-only", help="Leave out files without the key `cnngraph`.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Check once more whenever a file changes, until Ctrl-C.")
    ] = False,
) -> None:
    """Check specs without building anything or loading PyTorch.

    Reports every error with its line and a suggestion. For a valid spec, reports its
    costs and the input sizes that it accepts. In a folder, all YAML files with the key
    `cnngraph` are checked, those in folders inside of it too.
    """
    from cnngraph.report.check import summary
    from cnngraph.report.memory import describe_memory_of, memory_data_of

    params = parse_params(sets)
    load_plugins(plugins)
    if specs_only:
        specs = [spec for spec in specs if not spec.is_file() or _is_spec(spec)]

    def print_report(report: Report) -> None:
        if format != "text":
            return
        print_diagnostics(report)
        if not report.ok:
            return
        print(printable(summary(report)), flush=True)
        if report.graph is not None and (batch_size is not None or fit is not None):
            print(describe_memory_of(report.graph, batch_size, optimizer, fit), flush=True)

    def added(report: Report) -> dict[str, Any]:
        given = report.graph
        return {} if given is None else memory_data_of(given, batch_size, optimizer, fit)

    def run() -> list[Report]:
        reports: list[Report] = []
        for spec in chain.from_iterable(map(_specs_in, specs)):
            reports.append(_checked(spec, params, allow_code))
            print_report(reports[-1])
        _print_all(reports, format, added)
        return reports

    if watch:
        if format != "text" or Path("-") in specs:
            raise typer.BadParameter("--watch is for files and the format text")
        _watch(run, specs)
    if not all(report.ok for report in run()):
        raise typer.Exit(FAULT)


def _checked(spec: Path, params: dict[str, Any], allow_code: bool) -> Report:
    from cnngraph.checker import check, check_source

    with terminal.progress(f"checking {spec}"):
        if str(spec) == "-":
            return check_source(_stdin(), params, allow_code=allow_code)
        return check(spec, params, allow_code=allow_code)


def _print_all(
    reports: list[Report], format: str, added: Callable[[Report], dict[str, Any]]
) -> None:
    """What is printed once, after all reports; JSON also has what `added` gives for each."""
    from cnngraph.report.annotations import github_annotation, sarif
    from cnngraph.report.data import report_data

    diagnostics = [item for report in reports for item in report.diagnostics]
    failed = sum(not report.ok for report in reports)
    if format == "json":
        found = [report_data(report) | added(report) for report in reports]
        print_json({"ok": not failed, "specs": found})
    elif format == "sarif":
        print(json.dumps(sarif(diagnostics), indent=2))
    elif format == "github":
        for item in diagnostics:
            print(printable(github_annotation(item)))
    elif len(reports) > 1 and failed:
        terminal.print_diagnostics(f"{failed} of {len(reports)} specs are invalid")


def _watch(run: Callable[[], list[Report]], specs: list[Path]) -> NoReturn:
    """Checks once more whenever a spec, or a file that it imports, has changed."""
    from cnngraph.cli.watching import stamps, wait_for_change
    from cnngraph.spec.shipped import find_spec

    while True:
        files = [find_spec(str(spec)) for spec in chain.from_iterable(map(_specs_in, specs))]
        before = stamps(files)
        for report in run():
            before |= stamps(report.spec.files if report.spec else ())
        print("waiting for changes; Ctrl-C ends", file=sys.stderr, flush=True)
        wait_for_change(before)


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
