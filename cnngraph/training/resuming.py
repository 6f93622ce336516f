"""Continuing a run from its last checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from cnngraph.checker import SpecLike, read_spec
from cnngraph.errors import CnngraphError, Source
from cnngraph.options import Strategy
from cnngraph.training import checkpoint, distributed, extras
from cnngraph.training.augmentation import Normalisation
from cnngraph.training.data import Data
from cnngraph.training.distributed import rank
from cnngraph.training.evaluation import other_classes
from cnngraph.training.listeners import EpochResult, Listener
from cnngraph.training.loop import Loop
from cnngraph.training.planning import Plan
from cnngraph.training.recipe import parse_recipe
from cnngraph.training.run import Run, carry_out, with_files
from cnngraph.training.setup import DataLike, prepare


def resume(
    folder: str | Path,
    *,
    spec: SpecLike | None = None,
    data: DataLike | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    workers: int = 0,
    save_every: int | None = None,
    listener: Listener | None = None,
    strategy: Strategy = "ddp",
    allow_code: bool = False,
) -> Run:
    """Continues a run from its last checkpoint, to the same weights as if it had never stopped.

    Args:
        folder: the folder of the run.
        spec: the spec that the run must be of, if given.
        data: where the data is now; by default where it was.
        device, skip_bad, workers, save_every, listener, strategy: as for `fit`. The run may have
            had another number of processes and another strategy.
        allow_code: as in `cnngraph.load_compiled`.

    Raises:
        CnngraphError: there is no checkpoint, or it belongs to another spec or other data.
    """
    extras.require_all()
    folder = Path(folder)
    last = folder / checkpoint.LAST
    if not last.is_file():
        raise CnngraphError(f"{folder} contains no run to resume: it has no {checkpoint.LAST}")
    saved = checkpoint.load(last, allow_code=allow_code)
    if spec is not None:
        _require_same_spec(saved, spec, allow_code)
    state = saved.training
    recipe = parse_recipe(Source(str(last), state["recipe"]))
    setup = prepare(
        saved.network,
        data or saved.data,
        recipe,
        device=device,
        skip_bad=skip_bad,
        normalisation=Normalisation(tuple(state["mean"]), tuple(state["std"])),
        strategy=strategy,
    )
    distributed.require_parts(recipe, strategy)
    _require_same_data(saved, setup.data, setup.plan)
    if not rank():
        checkpoint.prepare_folder(folder, True, 0)
    done = state["progress"]["history"]
    listener = with_files(listener, folder, [EpochResult(**row) for row in done])
    loop = Loop(setup, folder, listener, save_every, workers)
    loop.load_state(state)
    at_best = loop.progress.best_epoch == loop.progress.epoch > 0 and not loop.progress.batch
    if at_best and not rank():
        checkpoint.keep_as_best(last)  # in case the run ended between the two
    listener.on_plan(setup.plan)
    listener.on_message(_where(loop))
    if state["threads"] != torch.get_num_threads():
        listener.on_message(
            f"this run used {state['threads']} threads before, now {torch.get_num_threads()}: sums"
            " are rounded differently"
        )
    return carry_out(loop)


def _where(loop: Loop) -> str:
    progress = loop.progress
    if loop.done:
        return f"the run is complete: {progress.epoch} epochs"
    return (
        f"continuing after step {progress.step} of {loop.total_steps}: epoch {progress.epoch + 1},"
        f" batch {progress.batch + 1}"
    )


def _require_same_spec(saved: checkpoint.Checkpoint, spec: SpecLike, allow_code: bool) -> None:
    compilation = saved.network.compilation
    given = read_spec(spec, allow_code)
    texts = sorted(source.text for source in given.files.values())
    if sorted(source.text for source in compilation.spec.files.values()) != texts:
        raise CnngraphError(
            f"{saved.path} is a checkpoint of `{compilation.spec.name}`, not of {spec}, or the spec"
            " was edited since: leave the spec out to continue with the saved one"
        )


def _require_same_data(saved: checkpoint.Checkpoint, data: Data, plan: Plan) -> None:
    if saved.classes != data.classes:
        raise other_classes(data.name, data.classes, saved)
    images = tuple(saved.training["images"])
    if plan.images != images:
        raise CnngraphError(
            f"{data.name} has changed since {saved.path} was written: {plan.images[0]} and"
            f" {plan.images[1]} images, then {images[0]} and {images[1]}"
        )
