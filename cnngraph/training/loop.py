"""The training loop: epochs, their evaluation, and when to save. What it computes follows from the
seed and the position, not from when it was saved or resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from torch import Tensor

from cnngraph.errors import CnngraphError
from cnngraph.training import checkpoint
from cnngraph.training.data.loader import Order, loader_of, seed_everything, seed_of
from cnngraph.training.distributed import LostProcessError, is_loss_of_process
from cnngraph.training.engine import Engine
from cnngraph.training.interruption import Interruption
from cnngraph.training.listeners import Clock, EpochResult, Listener, Step
from cnngraph.training.optimization import rate_factor
from cnngraph.training.progress import Progress
from cnngraph.training.setup import Setup

_SECONDS_BETWEEN_SAVES = 600.0
_SHARE_OF_SAVING = 20
"""Regular saves take at most one part in this many of the time."""


class Interrupted(CnngraphError):
    """The run was stopped by Ctrl-C or SIGTERM, after it was saved."""


class NotFiniteError(CnngraphError):
    """The loss, a gradient or a weight is not finite. `history` is that of the epochs before."""

    def __init__(self, message: str, history: Sequence[EpochResult]) -> None:
        super().__init__(message)
        self.history = tuple(history)


class Loop:
    """A run in progress.

    Args:
        setup: the network, data and recipe.
        folder: where to save; None to save nothing.
        listener: hears of every step.
        save_every: steps between saves, besides those at the end of epochs.
        workers: processes that read images.
    """

    def __init__(
        self,
        setup: Setup,
        folder: Path | None,
        listener: Listener,
        save_every: int | None = None,
        workers: int = 0,
    ) -> None:
        self.setup = setup
        self.folder = folder
        self.listener = listener
        self.save_every = save_every
        recipe = setup.recipe
        self.engine = Engine(setup)
        self.order = Order(
            len(setup.data.train.labels),
            recipe.batch_size,
            recipe.seed,
            rank=self.engine.rank,
            devices=self.engine.devices,
        )
        self.batches = self.order.batches
        self.steps_per_epoch = -(-self.batches // recipe.accumulate)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.loader = loader_of(setup.data.train, self.order, workers)
        self.progress = Progress()
        self.interruption = Interruption(listener.on_message)
        self._saved_at = monotonic()
        self._saving_took = 0.0

    # --- the run --------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains from the current position to the last epoch.

        Raises:
            Interrupted: after Ctrl-C or SIGTERM.
            LostProcessError: another process of the run has ended.
            CnngraphError: the loss is not finite, or a checkpoint cannot be written.
        """
        torch.backends.cudnn.deterministic = True  # for runs on a GPU to be reproducible
        try:
            self.save()
            with self.interruption.watched():
                while not self.done:
                    self._train_epoch()
                    self._finish_epoch()
        except RuntimeError as error:
            if self.engine.devices == 1 or not is_loss_of_process(error):
                raise
            raise LostProcessError(
                f"lost the connection to another process after step {self.progress.step}"
                + (f": `cnngraph train --resume {self.folder}` continues" if self.folder else "")
            ) from None

    @property
    def done(self) -> bool:
        """Whether the last epoch is finished, or the run has stopped early."""
        recipe, progress = self.setup.recipe, self.progress
        stopping = recipe.early_stopping
        stopped = stopping is not None and progress.waited(stopping.min_delta) >= stopping.patience
        return progress.epoch >= recipe.epochs or stopped

    def _train_epoch(self) -> None:
        progress, recipe = self.progress, self.setup.recipe
        if progress.batch >= self.batches:
            return  # saved before the evaluation
        self.engine.start_epoch(progress.epoch)
        self.order.epoch, self.order.start = progress.epoch, progress.batch
        clock, before = Clock(), progress.seconds
        for seed, images, labels in self.loader:
            seed_everything(seed)
            self._train_batch(images, labels)
            clock.images += self.order.size_of(progress.batch - 1)
            progress.seconds = before + clock.seconds
            if progress.batch % recipe.accumulate and progress.batch < self.batches:
                continue
            self.listener.on_step(
                Step(
                    progress.epoch + 1,
                    progress.step,
                    self.total_steps,
                    progress.loss / progress.seen,
                    progress.correct / progress.seen,
                    clock.rate,
                )
            )
            self._save_if_due()

    def _train_batch(self, images: Tensor, labels: Tensor) -> None:
        recipe, progress = self.setup.recipe, self.progress
        first = progress.batch - progress.batch % recipe.accumulate
        group = min(recipe.accumulate, self.batches - first)
        last = progress.batch + 1 == first + group
        seen = self.order.size_of(progress.batch)
        # Processes average their gradients, and the last batch is not divided equally.
        share = len(labels) * self.order.devices / seen / group
        loss, correct = self.engine.add_gradients(images, labels, share, last)
        if not math.isfinite(loss):
            self._fail(f"the loss is {loss}", images, labels)
        if last:
            if not self.engine.update(self._rate_factor()):
                self._fail("a gradient is not finite", images, labels)
            progress.step += 1
        progress.loss += loss
        progress.correct += correct
        progress.seen += seen
        progress.batch += 1

    def _rate_factor(self) -> float:
        return rate_factor(
            self.setup.recipe.schedule, self.progress.step, self.steps_per_epoch, self.total_steps
        )

    def _fail(self, what: str, images: Tensor, labels: Tensor) -> None:
        """Raises, after repeating the batch with a look at every layer."""
        progress = self.progress
        seed = self.setup.recipe.seed
        seed_everything(seed_of(seed, progress.epoch, progress.batch, self.order.rank))
        found = self.engine.explain(images, labels)
        saved = (
            "nothing was saved"
            if self.folder is None
            else f"the last good checkpoint is {self.folder / checkpoint.LAST}"
        )
        raise NotFiniteError(
            f"{what} at step {progress.step + 1} (epoch {progress.epoch + 1}, batch"
            f" {progress.batch + 1}): {found}; {saved}. A lower learning rate (--lr), warm-up or"
            " clip_gradient_norm may help",
            progress.results(),
        )

    def _finish_epoch(self) -> None:
        progress = self.progress
        loss, accuracy = self.engine.evaluate(self.setup.data.val, self.order.batch_size)
        result = EpochResult(
            epoch=progress.epoch + 1,
            step=progress.step,
            lr=self.engine.lr,
            train_loss=progress.loss / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            val_loss=loss,
            val_accuracy=accuracy,
            seconds=progress.seconds,
            images_per_second=progress.seen / max(progress.seconds, 1e-9),
        )
        best = progress.finish_epoch(result)
        self.listener.on_epoch(result, self.setup.recipe.epochs, best)
        cheap, asked = self.engine.any_of(self._saving_is_cheap, self.interruption.asked)
        if best or cheap or asked or self.done:
            self.save()
            if best and self.folder is not None and not self.engine.rank:
                checkpoint.keep_as_best(self.folder / checkpoint.LAST)
        if asked:
            self._stop()

    # --- saving ---------------------------------------------------------------------------------

    @property
    def _waited(self) -> float:
        return monotonic() - self._saved_at

    @property
    def _saving_is_cheap(self) -> bool:
        return not self.engine.rank and self._waited > _SHARE_OF_SAVING * self._saving_took

    def _save_if_due(self) -> None:
        counted = self.save_every is not None and self.progress.step % self.save_every == 0
        timed = self._waited > _SECONDS_BETWEEN_SAVES and self._saving_is_cheap
        timed, asked = self.engine.any_of(timed, self.interruption.asked)
        if counted or timed or asked:
            self.save()
        if asked:
            self._stop()

    def _stop(self) -> None:
        if self.folder is None:
            raise Interrupted("interrupted; nothing was saved")
        raise Interrupted(
            f"interrupted after step {self.progress.step}, and saved:"
            f" `cnngraph train --resume {self.folder}` continues"
        )

    def save(self) -> None:
        """Writes the last checkpoint. Raises `NotFiniteError` if a weight is not finite."""
        if self.folder is None:
            return
        if not self.engine.finite_weights():
            raise NotFiniteError(
                f"a weight is not finite after step {self.progress.step}; the last good checkpoint"
                f" is {self.folder / checkpoint.LAST}. A lower learning rate (--lr) may help",
                self.progress.results(),
            )
        start = perf_counter()
        contents = checkpoint.contents_of(self.engine.best_net, self.state())
        if self.engine.rank:
            return
        checkpoint.save(self.folder / checkpoint.LAST, contents)
        self._saving_took = perf_counter() - start
        self._saved_at = monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint contains besides the network."""
        setup = self.setup
        return {
            "data": setup.data.name,
            "images": list(setup.plan.images),
            "classes": list(setup.data.classes),
            "mean": list(setup.normalisation.mean),
            "std": list(setup.normalisation.std),
            "recipe": setup.recipe.to_yaml(),
            "progress": asdict(self.progress),
            "threads": torch.get_num_threads(),
            **self.engine.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from the state of a checkpoint, whose network this run was made with."""
        self.progress = Progress(**state["progress"])
        self.engine.load_state(state)
