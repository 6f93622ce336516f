"""Arguments and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph import __version__
from cnngraph.errors import Source, SpecError, render
from cnngraph.report import terminal
from cnngraph.spec.yaml import parse_yaml

if TYPE_CHECKING:
    from cnngraph.report.check import Report


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"


SpecArgument = Annotated[Path, typer.Argument(metavar="SPEC", help="A spec, in YAML.", show_default=False)]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value for one of the spec's params, in YAML; may be repeated."),
]
FormatOption = Annotated[
    Format, typer.Option("--format", help="`json` prints one JSON object on stdout, and nothing else.")
]


def parse_params(sets: Iterable[str] | None) -> dict[str, Any]:
    """`["num_classes=10"]` -> `{"num_classes": 10}`."""
    params: dict[str, Any] = {}
    for item in sets or ():
        key, separator, text = item.partition("=")
        if not separator or not key.isidentifier():
            raise _wrong(f"`{item}` is not of the form key=value")
        if key in params:
            raise _wrong(f"`{key}` is given twice")
        if not text.strip():
            raise _wrong(f'`{key}` has no value (`{key}=~` gives none, `{key}=""` an empty text)')
        try:
            params[key] = parse_yaml(Source(f"--set {key}", text)).plain()
        except SpecError as error:
            raise _wrong(f"`{item}`: {error.diagnostics[0].message}") from None
    return params


def _wrong(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--set'")


def print_json(data: dict[str, Any]) -> None:
    print(json.dumps({"cnngraph": __version__, **data}, indent=2))


def print_diagnostics(report: Report) -> None:
    """The diagnostics and how many they are, on stderr, where there are any."""
    from cnngraph.report.check import verdict

    if report.diagnostics:
        terminal.print_diagnostics(f"{render(report.diagnostics)}\n\n{verdict(report.name, report.diagnostics)}\n")
