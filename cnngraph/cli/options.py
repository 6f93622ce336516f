"""Arguments and output that several commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cnngraph import __version__
from cnngraph.errors import Source, SpecError, render
from cnngraph.options import Backend
from cnngraph.report import terminal
from cnngraph.spec.yaml import parse_yaml

if TYPE_CHECKING:
    from cnngraph.report.check import Report

Format = Literal["text", "json"]

SpecArgument = Annotated[
    Path,
    typer.Argument(
        metavar="SPEC", help="A spec in YAML, or a name of `cnngraph zoo`.", show_default=False
    ),
]
SpecsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="SPEC", help="Specs in YAML, or names of `cnngraph zoo`.", show_default=False
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Set a param of the spec, in YAML; a list as `widths=8,16`. Can be repeated.",
        show_default=False,
    ),
]
AllowCodeOption = Annotated[
    bool,
    typer.Option("--allow-code", help="Let the spec import Python code. Only if you trust it."),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="Run a Python file that registers ops. Can be repeated.",
        show_default=False,
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="`json` prints JSON on stdout.")]
BatchSizeOption = Annotated[
    int, typer.Option(min=1, metavar="N", help="Images in a batch, for activations and memory.")
]
OptimizerOption = Annotated[
    str, typer.Option(metavar="NAME", help="An optimizer of torch.optim, to predict memory.")
]
FitOption = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Find the largest batch whose training step fits, such as 8GB.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Write the result as JSON.", show_default=False
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", metavar="FILE", help="Draw a plot, .png or .svg.", show_default=False
    ),
]
BackendOption = Annotated[Backend, typer.Option(help="Fused operators, or plain torch.nn.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Overwrite a file that another command wrote.")
]
CheckpointArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="A checkpoint, or the folder of a run.", show_default=False
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="`auto` takes the GPU if there is one.")
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out files that cannot be read as images.")
]
DATA_HELP = (
    "`digits` (scikit-learn's), a folder with a subfolder for each class (or `train` and `val`"
    " with one), a .csv with `path` and `label`, a folder with the files of MNIST (IDX) or CIFAR"
    " (binary), or an .npz."
)


def load_plugins(files: Iterable[Path] | None) -> None:
    """Runs the files of `--plugin`. Raises `SpecError`."""
    from cnngraph.ops import load_plugin_file

    for file in files or ():
        load_plugin_file(file, str(file))


def require_own(path: Path | None, mark: str, command: str, force: bool) -> None:
    """Raises `typer.BadParameter` if `path` is a file that `command` did not write.

    Args:
        path: the file to write.
        mark: text near the start of each file that the command writes.
        command: the name of the command.
        force: accept any file.
    """
    if force or path is None or not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(4096)
    if start and mark.encode() not in start:
        raise typer.BadParameter(
            f"{path} exists and was not written by `cnngraph {command}` (--force overwrites it)"
        )


def parse_params(sets: Iterable[str] | None) -> dict[str, Any]:
    """`["num_classes=10"]` -> `{"num_classes": 10}`. Raises `typer.BadParameter`."""
    params: dict[str, Any] = {}
    for item in sets or ():
        key, separator, text = item.partition("=")
        if not separator or not key.isidentifier():
            raise _wrong(f"`{item}` is not of the form NAME=VALUE")
        if key in params:
            raise _wrong(f"`{key}` is given twice")
        if not text.strip():
            raise _wrong(f'`{key}` has no value (write `{key}=~` for null, `{key}=""` for no text)')
        try:
            params[key] = _value(key, text)
        except SpecError as error:
            raise _wrong(f"`{item}`: {error.diagnostics[0].message}") from None
    return params


def _value(name: str, text: str) -> Any:
    """A value in YAML, or several with commas between them. Raises `SpecError`."""
    value = parse_yaml(Source(f"--set {name}", text)).plain()
    if isinstance(value, str) and "," in value and value == text.strip():  # without quotes
        return parse_yaml(Source(f"--set {name}", f"[{text}]")).plain()
    return value


def _wrong(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint="'--set'")


def to_json(data: dict[str, Any]) -> str:
    """`data` with the version of cnngraph first."""
    return json.dumps({"cnngraph": __version__, **data}, indent=2)


def print_json(data: dict[str, Any]) -> None:
    """Prints `to_json(data)`."""
    print(to_json(data))


def print_diagnostics(report: Report) -> None:
    """Prints the diagnostics and their number on stderr, if there are any."""
    from cnngraph.report.check import verdict

    if report.diagnostics:
        found = verdict(report.name, report.diagnostics)
        terminal.print_diagnostics(f"{render(report.diagnostics)}\n\n{found}\n")
