"""`cnngraph train`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnngraph.allocator import tune_memory
from cnngraph.cli.app import INTERRUPTED, app
from cnngraph.cli.options import (
    DATA_HELP,
    AllowCodeOption,
    BackendOption,
    DeviceOption,
    FormatOption,
    PluginOption,
    SetOption,
    SkipBadOption,
    load_plugins,
    parse_params,
)
from cnngraph.errors import CnngraphError, Source, SpecError
from cnngraph.options import Options, Strategy
from cnngraph.report import terminal
from cnngraph.report.terminal import printable
from cnngraph.spec.yaml import parse_yaml

if TYPE_CHECKING:
    from cnngraph.training import Listener, Run


@app.command(
    epilog="""\b
Examples:
  cnngraph train specs/lenet.yaml --data digits
  cnngraph train specs/resnet18.yaml --data photos/ --recipe finetune \\
      --weights resnet18.safetensors --freeze "conv1,bn1,layer1"
  cnngraph train specs/resnet20_cifar.yaml --data cifar/ --recipe resnet_cifar
  cnngraph train specs/vgg11.yaml --data photos/ --batch-size auto --dry-run
  cnngraph train --resume runs/lenet
  cnngraph train specs/resnet50.yaml --data photos/ --devices 8
  torchrun --nproc-per-node 8 -m cnngraph train specs/resnet50.yaml \\
      --data photos/ --strategy fsdp

\b
The folder of the run contains:
  last.ckpt, best.ckpt  checkpoints; also for load_compiled and load_weights
  metrics.csv           a row for each epoch; also in tensorboard/
  curves.png, confusion.png, mistakes.png

\b
With --format json, each line of stdout is one object:
  {"event": "plan", "network", "data", "images", "classes", "input",
   "parameters", "trained", "epochs", "batch_size", "steps", "device",
   "precision", "memory", "available", "largest"}   memory in bytes
  {"event": "epoch", "epoch", "step", "lr", "train_loss", "train_accuracy",
   "val_loss", "val_accuracy", "seconds", "images_per_second", "best"}
  {"event": "end", "folder", "best_epoch", "val_accuracy"}

\b
Exit codes: 0 success, 1 an invalid spec or recipe, wrong data, a loss that is
not finite, or a file that cannot be written, 2 wrong usage, 130 interrupted
(the run is saved). With torchrun: 75 another process has ended.
"""
)
def train(
    spec: Annotated[
        Path | None,
        typer.Argument(
            metavar="SPEC", help="A spec in YAML, or a name of `cnngraph zoo`.", show_default=False
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help=DATA_HELP, show_default="digits")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="RECIPE",
            help="A recipe file or the name of a shipped recipe.",
            show_default="default",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="The folder of the run.",
            show_default="runs/NAME",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Continue the run in a folder.", show_default=False),
    ] = None,
    sets: SetOption = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Replaces the recipe's.")] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Replaces the recipe's; `auto` is the largest that fits.",
        ),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Replaces the recipe's learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces the recipe's.")] = None,
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Replace another part of the recipe, such as optimizer.name=SGD. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Start from these weights.", show_default=False),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="The number of classes; by default that of the data.",
            show_default=False,
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN,...",
            help='Parts that are not trained, such as "conv1,layer1*".',
            show_default=False,
        ),
    ] = None,
    backend: BackendOption = "fused",
    memory: Annotated[
        str,
        typer.Option(metavar="[fast|lean|SIZE]", help="As for `cnngraph compile`."),
    ] = "fast",
    device: DeviceOption = "auto",
    devices: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Train on N GPUs, or in N processes on CPUs, each with a part of every batch.",
        ),
    ] = 1,
    strategy: Annotated[
        Strategy,
        typer.Option(
            help="With several devices: `ddp` keeps all weights on each; `fsdp` shards them."
        ),
    ] = "ddp",
    workers: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Processes that read images, for sets too large for memory."
        ),
    ] = 0,
    save_every: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="STEPS",
            help="Save also within epochs; at least every ten minutes.",
            show_default=False,
        ),
    ] = None,
    skip_bad: SkipBadOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, and train nothing.")
    ] = False,
    show_batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw an augmented batch as a .png, and train nothing.",
            show_default=False,
        ),
    ] = None,
    plugins: PluginOption = None,
    allow_code: AllowCodeOption = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    format: FormatOption = "text",
) -> None:
    """Train a network on images.

    Prints the plan first: the data, the steps, and the memory that a step needs. Ctrl-C saves,
    and --resume continues to the same weights as an unbroken run.
    """
    overrides = _overrides(override)
    short = {"epochs": epochs, "optimizer.lr": lr, "seed": seed}
    overrides |= {key: value for key, value in short.items() if value is not None}
    if batch_size is not None:
        overrides["batch_size"] = _batch_size(batch_size)
    if freeze is not None:
        overrides["freeze"] = freeze.split(",")
    if resume is not None:
        _require_alone(recipe, output, sets, overrides, weights, classes, dry_run, show_batch)
    elif spec is None:
        raise typer.BadParameter("give a spec, or --resume a run", param_hint="'SPEC'")
    if devices > 1 and "WORLD_SIZE" not in os.environ:
        raise typer.Exit(_launch(devices, resume or output))
    params = parse_params(sets)
    load_plugins(plugins)
    options = Options((), backend, memory)
    tune_memory()
    from cnngraph import training
    from cnngraph.training.distributed import LOST, LostProcessError, rank
    from cnngraph.training.listeners import JsonLines

    listener: Listener = (
        training.Listener() if quiet else JsonLines() if format == "json" else training.Text()
    )
    try:
        if resume is not None:
            run = training.resume(
                resume, spec=spec, data=data, device=device, skip_bad=skip_bad, workers=workers,
                save_every=save_every, listener=listener, strategy=strategy, allow_code=allow_code,
            )  # fmt: skip
        else:
            assert spec is not None
            with terminal.progress_bar() as progress:
                setup = training.plan(
                    spec, data or "digits", recipe, params=params, overrides=overrides,
                    classes=classes, weights=weights, options=options, device=device,
                    skip_bad=skip_bad, progress=progress, allow_code=allow_code, strategy=strategy,
                )  # fmt: skip
            if dry_run or show_batch is not None:
                listener.on_plan(setup.plan, setup.notes)
                setup.plan.require_fit()
                if show_batch is not None:
                    training.draw_batch(setup, show_batch)
                return
            folder = output or Path("runs") / setup.plan.network
            run = training.train(
                setup, output=folder, workers=workers, save_every=save_every, listener=listener
            )
    except training.Interrupted as stopped:
        terminal.print_error(str(stopped))
        raise typer.Exit(INTERRUPTED) from None
    except LostProcessError as lost:
        if os.environ.get("TORCHELASTIC_RUN_ID") != "cnngraph":  # else `launch` explains it
            terminal.print_error(str(lost))
        raise typer.Exit(LOST) from None
    if not quiet and not rank():
        _print_end(run, format)


def _launch(devices: int, folder: Path | None) -> int:
    """Runs this command in a process for each device."""
    from cnngraph.training.distributed import launch

    command = [sys.executable, "-m", "cnngraph", *sys.argv[1:]]
    return launch(command, devices, f"`cnngraph train --resume {folder or 'runs/NAME'}` continues")


def _print_end(run: Run, format: str) -> None:
    if format == "json":
        from cnngraph.training.listeners import print_line

        best = {"best_epoch": run.best_epoch, "val_accuracy": run.best.val_accuracy}
        print_line("end", {"folder": str(run.folder), **best})
    else:
        print(
            printable(
                f"\nbest: {run.best.val_accuracy:.2%} in epoch {run.best_epoch}, saved as"
                f" {run.folder}/best.ckpt"
            )
        )


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or not int(text):
        raise typer.BadParameter(
            f"{text!r} is neither a number of images nor `auto`", param_hint="'--batch-size'"
        )
    return int(text)


def _overrides(items: list[str] | None) -> dict[str, Any]:
    """`["optimizer.name=SGD"]` -> `{"optimizer.name": "SGD"}`."""
    found: dict[str, Any] = {}
    for item in items or ():
        key, separator, text = item.partition("=")
        if not separator or not key or not text.strip():
            raise typer.BadParameter(
                f"`{item}` is not of the form KEY=VALUE", param_hint="'--override'"
            )
        try:
            found[key] = parse_yaml(Source(f"--override {key}", text)).plain()
        except SpecError as error:
            raise CnngraphError(f"--override {item}: {error.diagnostics[0].message}") from None
    return found


def _require_alone(*given: object) -> None:
    if any(given):
        raise typer.BadParameter(
            "a resumed run keeps its recipe, spec, weights and folder: give only --data, --device,"
            " --devices, --strategy, --workers and --save-every with it",
            param_hint="'--resume'",
        )
