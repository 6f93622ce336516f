"""`cnngraph experiment`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph.allocator import tune_memory
from cnngraph.cli.app import INTERRUPTED, app
from cnngraph.cli.options import (
    DATA_HELP,
    AllowCodeOption,
    DeviceOption,
    PluginOption,
    load_plugins,
)
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.training.experiments import Results


@app.command(
    epilog="""\b
Examples:
  cnngraph experiment
  cnngraph experiment lenet_activation
  cnngraph experiment degradation --data fashion_mnist/ -o degradation
  cnngraph experiment my_experiment.yaml --epochs 5

\b
The folder contains:
  results.md, results.csv  the table
  curves.png               loss and accuracy of each epoch
  VARIANT/                 the run of each variant, as of `cnngraph train`

\b
Exit codes: 0 success, 1 an invalid experiment, spec or recipe, wrong data, or
a file that cannot be written, 2 wrong usage, 130 interrupted (the run is
saved).
"""
)
def experiment(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]",
            help="A shipped experiment, or a file with one. Lists the shipped ones if left out.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str, typer.Option(metavar="SOURCE", help=DATA_HELP)] = "digits",
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="The folder of the results.",
            show_default="runs/NAME",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Replaces that of each run.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces that of each run.")] = None,
    short: Annotated[
        bool,
        typer.Option("--short", help="One epoch on two images of each class: a trial."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue what the folder contains, with the same options."),
    ] = False,
    device: DeviceOption = "auto",
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print only the table.")] = False,
) -> None:
    """Run an experiment: train its variants and compare them.

    The shipped experiments are those of the textbook, on small data.
    """
    from cnngraph import training
    from cnngraph.training import experiments

    if name is None:
        _list(experiments.shipped())
        return
    load_plugins(plugins)
    tune_memory()
    chosen = experiments.load_experiment(name)
    overrides: dict[str, Any] = {"epochs": epochs, "seed": seed}
    try:
        found = experiments.run_experiment(
            chosen,
            data=data,
            output=output or Path("runs") / chosen.name,
            overrides={key: value for key, value in overrides.items() if value is not None},
            short=short,
            resumed=resume,
            device=device,
            listener=training.Listener() if quiet else training.Text(),
            allow_code=allow_code,
        )
    except training.Interrupted as stopped:
        terminal.print_error(str(stopped))
        raise typer.Exit(INTERRUPTED) from None
    _print(found)


def _list(shipped: dict[str, Path]) -> None:
    from cnngraph.training.experiments import load_experiment

    table = terminal.simple_table(["experiment", "question"], [])
    for name, path in shipped.items():
        table.add_row(name, printable(load_experiment(path).question))
    terminal.print_table(table)


def _print(found: Results) -> None:
    rows = found.rows()
    first, *others = rows[0]
    table = terminal.simple_table([first], others)
    for row in rows:
        table.add_row(*map(printable, row.values()))
    print(printable(f"\n{found.experiment.question}\n"))
    terminal.print_table(table)
