"""Training: the flow from a spec and data to a network in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cnngraph.checker import SpecLike
from cnngraph.errors import CnngraphError
from cnngraph.lowering.network import Network
from cnngraph.options import Options, Strategy, budget_of
from cnngraph.report.html import table
from cnngraph.report.numbers import duration
from cnngraph.training import checkpoint, distributed, extras, report
from cnngraph.training.data.files import Progress as DataProgress
from cnngraph.training.distributed import rank
from cnngraph.training.listeners import EpochResult, Listener, Several
from cnngraph.training.loop import Loop
from cnngraph.training.planning import largest_batch, plan_of
from cnngraph.training.recipe import Recipe, load_recipe
from cnngraph.training.setup import DataLike, Setup, prepare


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        network: the network after the last epoch, in evaluation mode: the averages, if the recipe
            has `ema`.
        history: the figures of each epoch.
        best_epoch: the epoch with the highest validation accuracy.
        folder: the checkpoints and pictures; None if nothing was saved.
    """

    network: Network
    history: tuple[EpochResult, ...]
    best_epoch: int
    folder: Path | None

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{result.epoch} (best)" if result.epoch == self.best_epoch else str(result.epoch),
                f"{result.train_loss:.4f}",
                f"{result.train_accuracy:.2%}",
                f"{result.val_loss:.4f}",
                f"{result.val_accuracy:.2%}",
                duration(result.seconds),
            )
            for result in self.history
        ]
        titles = ("loss", "accuracy", "validation loss", "validation accuracy", "time")
        return table(("epoch",), titles, rows)

    @property
    def best(self) -> EpochResult:
        """The figures of the best epoch."""
        return self.history[self.best_epoch - 1]


def fit(
    spec: SpecLike | Network,
    data: DataLike = "digits",
    recipe: str | Path | Recipe | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    output: str | Path | None = None,
    options: Options | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    workers: int = 0,
    save_every: int | None = None,
    listener: Listener | None = None,
    strategy: Strategy = "ddp",
) -> Run:
    """Trains a network.

    Args:
        spec: path or text of a spec, or a compiled network, whose weights are then the initial
            ones.
        data: a source for `training.open_data`, a `Data`, two datasets, to train on and to evaluate
            on, or a `LightningDataModule`, whose datasets are taken.
        recipe: a path, the name of a shipped recipe, or a `Recipe`; by default `default`.
        params: values for the spec's `params`; `num_classes` follows from the data.
        overrides: what replaces parts of the recipe, such as `{"optimizer.lr": 0.1}`. A
            `batch_size` of `"auto"` is the largest that fits into memory.
        classes: the number of classes, to be checked against the data.
        weights: a file for `load_weights`, to fine-tune. The classifier is new if its number of
            classes differs.
        output: a folder for checkpoints, figures and pictures; if None, nothing is saved.
        options: how the spec is compiled.
        device: `cpu`, `cuda`, or `auto`.
        skip_bad: leave out files that cannot be read as images.
        workers: processes that read images, for sets that are too large for memory.
        save_every: steps between checkpoints, besides those at the end of epochs.
        listener: hears of every step; by default nothing is printed.
        strategy: what the processes of a run exchange. With `ddp` each has all weights, with `fsdp`
            a part of them.

    Raises:
        CnngraphError: the data or the weights do not fit, a step does not fit into memory, the loss
            is not finite, or a file cannot be written.
        SpecError: the spec or the recipe is invalid.
        Interrupted: after Ctrl-C; the run is saved.
    """
    setup = plan(
        spec,
        data,
        recipe,
        params=params,
        overrides=overrides,
        classes=classes,
        weights=weights,
        options=options,
        device=device,
        skip_bad=skip_bad,
        strategy=strategy,
    )
    return train(setup, output=output, workers=workers, save_every=save_every, listener=listener)


def train(
    setup: Setup,
    *,
    output: str | Path | None = None,
    workers: int = 0,
    save_every: int | None = None,
    listener: Listener | None = None,
) -> Run:
    """Carries out a plan. For the arguments and errors, see `fit`."""
    setup.plan.require_fit()
    distributed.require_parts(setup.recipe, setup.strategy)
    extras.require_all()
    folder = None if output is None else Path(output)
    if folder is not None and not rank():
        checkpoint.prepare_folder(folder, False, _bytes_of_checkpoints(setup))
    loop = Loop(setup, folder, with_files(listener, folder), save_every, workers)
    loop.listener.on_plan(setup.plan, setup.notes)
    return carry_out(loop)


def plan(
    spec: SpecLike | Network,
    data: DataLike = "digits",
    recipe: str | Path | Recipe | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    options: Options | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    progress: DataProgress | None = None,
    allow_code: bool = False,
    strategy: Strategy = "ddp",
) -> Setup:
    """A run before its first step; its `plan` says what the run will do and need. See `fit`.

    `allow_code` lets the spec import Python code, as in `cnngraph.check`.
    """
    changes = dict(overrides or {})
    automatic = changes.get("batch_size") == "auto"
    if automatic:
        if options is not None and budget_of(options.memory) is not None:
            raise CnngraphError(
                f"`memory={options.memory}` is a budget for a given batch: give a batch size, not"
                " `auto`"
            )
        changes["batch_size"] = 1
    setup = prepare(
        spec,
        data,
        load_recipe(recipe, changes),
        params=params,
        classes=classes,
        weights=weights,
        options=options,
        device=device,
        skip_bad=skip_bad,
        progress=progress,
        allow_code=allow_code,
        strategy=strategy,
    )
    if not automatic:
        return setup
    if setup.plan.available is None:
        raise CnngraphError("the free memory of this machine is unknown: give a batch size")
    count = len(setup.data.train.labels)
    batch_size = largest_batch(setup.net, setup.recipe, setup.plan.available, count, strategy)
    chosen = setup.recipe.model_copy(update={"batch_size": max(1, batch_size)})
    made = plan_of(setup.net, setup.data, chosen, setup.device, strategy)
    return replace(setup, recipe=chosen, plan=made)


def with_files(
    listener: Listener | None, folder: Path | None, done: Sequence[EpochResult] = ()
) -> Listener:
    """The listener, and one that writes the figures of each epoch into the folder.

    Only the first process of a run writes and reports.
    """
    if rank() > 0:
        return Listener()
    shown = listener or Listener()
    return shown if folder is None else Several(report.Figures(folder, done), shown)


def carry_out(loop: Loop) -> Run:
    """Trains to the last epoch, and writes the pictures."""
    try:
        if not loop.done:
            loop.run()
    finally:
        loop.listener.on_end()
    history = tuple(loop.progress.results())
    run = Run(loop.engine.finished_net(), history, loop.progress.best_epoch, loop.folder)
    if loop.folder is not None and not rank():
        report.write(loop.folder, loop.setup, history)
    return run


def _bytes_of_checkpoints(setup: Setup) -> int:
    """The size of three checkpoints: the last, the best, and one that is being written."""
    from cnngraph.training.optimization import state_slots

    values = sum(value.numel() * value.element_size() for value in setup.net.state_dict().values())
    copies = 1 + state_slots(setup.recipe) + (setup.recipe.ema is not None)
    return 3 * copies * values + 10_000_000
