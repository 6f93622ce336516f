"""Runs the variants of an experiment one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.errors import CnngraphError
from cnngraph.training import checkpoint, extras
from cnngraph.training.data import Data, open_data
from cnngraph.training.data.selection import select
from cnngraph.training.experiments.experiment import Experiment, Variant, load_experiment
from cnngraph.training.experiments.results import Result, Results
from cnngraph.training.listeners import Listener
from cnngraph.training.loop import NotFiniteError
from cnngraph.training.recipe import load_recipe
from cnngraph.training.resuming import resume
from cnngraph.training.run import Run, plan, train
from cnngraph.training.setup import Setup

_SHORT = {"epochs": 1, "batch_size": 8}
_SHORT_PER_CLASS = 2


def run_experiment(
    experiment: str | Path | Experiment,
    *,
    output: str | Path,
    data: str | Path = "digits",
    overrides: dict[str, Any] | None = None,
    short: bool = False,
    resumed: bool = False,
    device: str = "auto",
    listener: Listener | None = None,
    allow_code: bool = False,
) -> Results:
    """Trains every variant of an experiment, and writes the comparison.

    Args:
        experiment: a path, the name of a shipped experiment, or an `Experiment`.
        output: the folder: `results.md`, `results.csv`, `curves.png`, and a run for each variant.
        data: a source for `open_data`.
        overrides: what replaces parts of every recipe, such as `{"epochs": 5}`.
        short: one epoch on two images of each class, to see that everything runs.
        resumed: continue the experiment in the folder; finished variants are not repeated.
        device: `cpu`, `cuda`, or `auto`.
        listener: hears of every step of every run.
        allow_code: as in `cnngraph.check`.

    Raises:
        CnngraphError: the folder already contains an experiment, or a run fails in another way than
            by a loss that is not finite.
        SpecError: the experiment, a spec or a recipe is invalid.
        Interrupted: after Ctrl-C; the run is saved.
    """
    extras.require_all()
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    folder = Path(output)
    if not resumed and any(folder.glob(f"*/{checkpoint.LAST}")):
        raise CnngraphError(
            f"{folder} already contains an experiment: --resume continues it, -o chooses another"
            " folder"
        )
    changes = {**(overrides or {}), **(_SHORT if short else {})}
    found: list[Result] = []
    for name, variant in experiment.merged.items():
        shown = listener or Listener()
        shown.on_message(f"\n{experiment.name}: {name}")
        setup = _setup(variant, str(data), changes, short, folder, device, allow_code)
        found.append(_result(name, variant, setup, folder / name, shown))
    results = Results(experiment, str(data), tuple(found))
    results.write(folder)
    return results


def _setup(
    variant: Variant,
    source: str,
    changes: dict[str, Any],
    short: bool,
    folder: Path,
    device: str,
    allow_code: bool,
) -> Setup:
    assert variant.spec is not None
    shape = elaborate_or_raise(read_spec(variant.spec, allow_code), variant.params).input
    per_class = _SHORT_PER_CLASS if short else None
    opened: Data = select(
        open_data(source, shape), variant.classes, per_class or variant.train_per_class, per_class
    )
    return plan(
        variant.spec,
        opened,
        load_recipe(variant.recipe, {**variant.overrides, **changes}),
        params=variant.params,
        weights=None if variant.weights is None else folder / variant.weights / checkpoint.LAST,
        device=device,
        allow_code=allow_code,
    )


def _result(name: str, variant: Variant, setup: Setup, folder: Path, listener: Listener) -> Result:
    diverged = None
    try:
        history = _run(setup, folder, listener).history
    except NotFiniteError as error:
        listener.on_message(str(error))
        history, diverged = error.history, str(error)
    return Result(name, setup.plan.parameters, history, variant.book, diverged)


def _run(setup: Setup, folder: Path, listener: Listener) -> Run:
    last = folder / checkpoint.LAST
    if not last.exists():
        return train(setup, output=folder, listener=listener)
    allow_code = setup.net.compilation.spec.allows_code
    if checkpoint.load(last, allow_code=allow_code).training["recipe"] != setup.recipe.to_yaml():
        raise CnngraphError(
            f"{folder} was run with another recipe: give the options of then, or -o another folder"
        )
    return resume(
        folder,
        data=setup.data,
        device=str(setup.device),
        listener=listener,
        allow_code=allow_code,
    )
