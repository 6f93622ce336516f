"""`cnngraph predict`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from cnngraph.cli.app import app
from cnngraph.cli.options import (
    AllowCodeOption,
    CheckpointArgument,
    DeviceOption,
    FormatOption,
    PluginOption,
    SkipBadOption,
    load_plugins,
)
from cnngraph.report.terminal import printable


@app.command(
    epilog="""\b
Examples:
  cnngraph predict runs/lenet three.png
  cnngraph predict runs/lenet photos/ --top 1 --format json
  cnngraph predict runs/lenet - < three.png

\b
With --format json, each line of stdout is one object:
  {"image", "classes": [{"name", "probability"}]}, the most probable first.

\b
Exit codes: 0 success, 1 no checkpoint or a file that cannot be read, 2 wrong
usage.
"""
)
def predict(
    path: CheckpointArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE",
            help="Image files, folders of them, or `-` for stdin.",
            show_default=False,
        ),
    ],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Classes to name.")] = 5,
    device: DeviceOption = "auto",
    skip_bad: SkipBadOption = False,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    format: FormatOption = "text",
) -> None:
    """Predict the classes of images with a trained network."""
    from cnngraph import training

    load_plugins(plugins)
    predictions = training.predict(
        path, images, top=top, device=device, skip_bad=skip_bad, allow_code=allow_code
    )
    for found in predictions:
        if format == "json":
            print(json.dumps(found.to_dict()), flush=True)
            continue
        classes = ", ".join(f"{name} {share:.1%}" for name, share in found.classes)
        print(printable(f"{found.image}: {classes}"), flush=True)
