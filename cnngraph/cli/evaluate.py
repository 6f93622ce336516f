"""`cnngraph evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    DATA_HELP,
    AllowCodeOption,
    CheckpointArgument,
    DeviceOption,
    FormatOption,
    PluginOption,
    SkipBadOption,
    load_plugins,
    print_json,
)
from cnngraph.report import terminal
from cnngraph.report.terminal import printable

if TYPE_CHECKING:
    from cnngraph.training import Evaluation


@app.command(
    epilog="""\b
Examples:
  cnngraph evaluate runs/lenet
  cnngraph evaluate runs/lenet/last.ckpt --data more_digits/ --format json

\b
With --format json, stdout is one object:
  {"cnngraph", "data", "images", "loss", "top1", "top5",
   "per_class": {class: share},
   "confusion": rows by class, columns by predicted class}

\b
Exit codes: 0 success, 1 no checkpoint, or data that does not suit it, 2 wrong
usage.
"""
)
def evaluate(
    path: CheckpointArgument,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help=DATA_HELP, show_default="the run's")
    ] = None,
    confusion: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the confusion matrix.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    skip_bad: SkipBadOption = False,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
) -> None:
    """Evaluate a trained network: top-1, top-5, each class, confusion.

    Reads everything from the checkpoint: the network, its weights, the classes and the
    normalisation. Evaluates the images that the run evaluated, or those of other data.
    """
    from cnngraph import training
    from cnngraph.training.report import draw_confusion

    load_plugins(plugins)
    found = training.evaluate(path, data, device=device, skip_bad=skip_bad, allow_code=allow_code)
    if confusion is not None:
        draw_confusion(found, confusion)
    if format == "json":
        print_json(found.to_dict())
        return
    _print(found)


def _print(found: Evaluation) -> None:
    print(
        printable(
            f"{found.name}: {len(found.labels):,} images, top-1 {found.top1:.2%}, top-5"
            f" {found.top5:.2%}, loss {found.loss:.4f}\n"
        )
    )
    table = terminal.simple_table(["class"], ["images", "correct", "most often taken for"])
    confusion = found.confusion
    for index, (name, share) in enumerate(zip(found.classes, found.per_class, strict=True)):
        row = confusion[index].clone()
        row[index] = 0
        count = int(row.max())
        other = f"{found.classes[int(row.argmax())]} ({count})" if count else ""
        images = int(confusion[index].sum())
        table.add_row(printable(name), f"{images:,}", f"{share:.1%}" if images else "", other)
    terminal.print_table(table)
