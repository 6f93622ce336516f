"""The training loop. What it computes follows from the seed and the position, not from when it was
saved or resumed."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from cnngraph.errors import CnngraphError
from cnngraph.nn.sync_batch_norm import plain_batch_norms, sync_batch_norms
from cnngraph.training import checkpoint
from cnngraph.training.augmentation import Targets, Transform, cross_entropy
from cnngraph.training.data.loader import Order, loader_of, seed_everything, seed_of
from cnngraph.training.distributed import (
    LostProcessError,
    is_loss_of_process,
    processes,
    processes_here,
)
from cnngraph.training.extras import require
from cnngraph.training.fine_tuning import apply_freezing
from cnngraph.training.listeners import Clock, EpochResult, Listener, Step
from cnngraph.training.nonfinite import all_finite, first_nonfinite
from cnngraph.training.optimization import (
    moving_average,
    optimizer_of,
    rate_factor,
    set_rates,
)
from cnngraph.training.setup import Setup

_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}
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


def _strategy() -> Any:
    """How several processes work together. All have the same statistics of batch norms already."""
    if processes() == 1:
        return "auto"
    return require("lightning_fabric.strategies").DDPStrategy(broadcast_buffers=False)


@dataclass
class Progress:
    """The position of a run, and its figures so far.

    Attributes:
        epoch, batch: finished epochs, and finished batches of the current one.
        step: finished steps of the optimizer.
        loss, correct, seen: sums over the images of the current epoch.
        history: the figures of each finished epoch.
        best_epoch: the epoch with the highest validation accuracy; ties go to the lower loss.
        seconds: time spent in the current epoch.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def results(self) -> list[EpochResult]:
        """The figures of each finished epoch."""
        return [EpochResult(**row) for row in self.history]

    def waited(self, min_delta: float) -> int:
        """Epochs since the validation loss last improved by more than `min_delta`."""
        best, at = math.inf, 0
        for result in self.results():
            if result.val_loss < best - min_delta:
                best, at = result.val_loss, result.epoch
        return self.epoch - at


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
        fabric_module = require("lightning_fabric")
        self.fabric: Any = fabric_module.Fabric(
            accelerator=setup.device.type,
            devices=processes_here(),
            num_nodes=processes() // processes_here(),
            strategy=_strategy(),
            precision=_PRECISIONS[recipe.precision],
        )
        if processes() > 1:
            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
            self.fabric.launch()
            sync_batch_norms(setup.net)
        self.order = Order(
            len(setup.data.train.labels),
            recipe.batch_size,
            recipe.seed,
            rank=self.fabric.global_rank,
            devices=self.fabric.world_size,
        )
        self.batches = self.order.batches
        self.steps_per_epoch = -(-self.batches // recipe.accumulate)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.net: nn.Module = setup.net
        optimizer = optimizer_of(self.net, recipe)
        with warnings.catch_warnings():  # torch 2.13 renames it, torch 2.11 has no other name
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
            self.model, self.optimizer = self.fabric.setup(self.net, optimizer)
        self.average = None if recipe.ema is None else moving_average(self.net, recipe.ema)
        self.transform = Transform(
            setup.normalisation, recipe.augment, setup.net.compilation.graph.input
        ).to(self.fabric.device)
        self.loader = loader_of(setup.data.train, self.order, workers)
        self.progress = Progress()
        self.interrupted = False
        self._asked = False
        self._saved_at = monotonic()
        self._saving_took = 0.0

    # --- the run --------------------------------------------------------------------------------

    @property
    def best_net(self) -> nn.Module:
        """The network that is evaluated and kept: the averages, if the recipe has `ema`."""
        return self.net if self.average is None else self.average.module

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
            with self._signals():
                while not self.done:
                    self._train_epoch()
                    self._finish_epoch(*self.validate())
        except RuntimeError as error:
            if processes() == 1 or not is_loss_of_process(error):
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
        apply_freezing(self.net, recipe, progress.epoch)
        self.model.train()
        self.order.epoch, self.order.start = progress.epoch, progress.batch
        clock, before = Clock(), progress.seconds
        for seed, images, labels in self.loader:
            seed_everything(seed)
            images, labels = self.fabric.to_device((images, labels))
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
        inputs, targets = self.transform.augmented(images, labels)
        with self.fabric.no_backward_sync(self.model, enabled=not last):
            loss, logits = self._loss(self.model, inputs, targets)
            correct = (logits.argmax(1) == labels).sum()
            summed, correct, asked = self._summed(loss * len(labels), correct, self._asked)
            self.interrupted = asked > 0
            seen = self.order.size_of(progress.batch)
            if not math.isfinite(summed):
                self._fail(f"the loss is {summed}", images, labels)
            # Processes average their gradients, and the last batch is not divided equally.
            share = len(labels) * self.order.devices / seen
            self.fabric.backward(loss * (share / group))
        progress.loss += summed
        progress.correct += int(correct)
        progress.seen += seen
        progress.batch += 1
        if last:
            self._update(images, labels)

    def _summed(self, *values: Any) -> list[float]:
        """The sum of each value over all processes."""
        found = torch.stack([torch.as_tensor(value).detach().double().cpu() for value in values])
        if processes() > 1:
            found = self.fabric.all_reduce(found.to(self.fabric.device), reduce_op="sum")
        return found.tolist()

    def _loss(self, model: nn.Module, inputs: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """The loss of a batch, side heads included, and the logits."""
        recipe = self.setup.recipe
        result = model(inputs)
        heads: dict[str, Tensor] = result if isinstance(result, dict) else {"logits": result}
        losses = {
            name: cross_entropy(value, targets, recipe.label_smoothing)
            for name, value in heads.items()
        }
        loss = losses.pop("logits")
        for other in losses.values():
            loss = loss + recipe.aux_weight * other
        return loss, heads["logits"]

    def _update(self, images: Tensor, labels: Tensor) -> None:
        recipe, progress = self.setup.recipe, self.progress
        set_rates(
            self.optimizer,
            rate_factor(recipe.schedule, progress.step, self.steps_per_epoch, self.total_steps),
        )
        scaled = recipe.precision == "float16"  # its scaler skips steps that are not finite
        gradients = (value.grad for value in self.net.parameters() if value.grad is not None)
        if not scaled and not all_finite(gradients):
            progress.batch -= 1
            self._fail("a gradient is not finite", images, labels)
        if recipe.clip_gradient_norm is not None:
            self.fabric.clip_gradients(
                self.model,
                self.optimizer,
                max_norm=recipe.clip_gradient_norm,
                error_if_nonfinite=False,
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update_parameters(self.net)
        progress.step += 1

    def _fail(self, what: str, images: Tensor, labels: Tensor) -> None:
        """Raises, after repeating the batch with a look at every layer."""
        progress, recipe = self.progress, self.setup.recipe
        seed_everything(seed_of(recipe.seed, progress.epoch, progress.batch, self.order.rank))
        plain_batch_norms(self.net)  # processes may stop at different layers
        inputs, targets = self.transform.augmented(images, labels)
        with self.fabric.autocast():
            found = first_nonfinite(self.net, lambda: self._loss(self.net, inputs, targets)[0])
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

    # --- evaluation -----------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> tuple[float, float]:
        """The loss and the accuracy of the images to evaluate on."""
        images, model = self.setup.data.val, self.best_net.eval()
        count, size = len(images.labels), self.order.batch_size
        sums = torch.zeros(2, dtype=torch.float64)
        for start in range(size * self.order.rank, count, size * self.order.devices):
            indices = list(range(start, min(start + size, count)))
            labels = images.labels[indices].to(self.fabric.device)
            inputs = self.transform(images.batch(indices).to(self.fabric.device))
            with self.fabric.autocast():
                logits = model(inputs).float()
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            correct = (logits.argmax(1) == labels).sum()
            sums += torch.stack([loss.double(), correct.double()]).cpu()
        loss, correct = self._summed(*sums)
        return loss / max(1, count), correct / max(1, count)

    def _finish_epoch(self, loss: float, accuracy: float) -> None:
        progress = self.progress
        group = self.optimizer.param_groups[-1]
        result = EpochResult(
            epoch=progress.epoch + 1,
            step=progress.step,
            lr=group["lr"],
            train_loss=progress.loss / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            val_loss=loss,
            val_accuracy=accuracy,
            seconds=progress.seconds,
            images_per_second=progress.seen / max(progress.seconds, 1e-9),
        )
        known = progress.results()
        best = progress.best_epoch == 0 or (accuracy, -loss) > (
            known[progress.best_epoch - 1].val_accuracy,
            -known[progress.best_epoch - 1].val_loss,
        )
        progress.history.append(asdict(result))
        progress.epoch += 1
        progress.batch = progress.correct = progress.seen = 0
        progress.loss = progress.seconds = 0.0
        if best:
            progress.best_epoch = progress.epoch
        self.listener.on_epoch(result, self.setup.recipe.epochs, best)
        due = monotonic() - self._saved_at > _SHARE_OF_SAVING * self._saving_took
        if best or due or self.done or self.interrupted:
            self.save()
            if best and self.folder is not None and not self.order.rank:
                checkpoint.keep_as_best(self.folder / checkpoint.LAST)
        self._stop_if_interrupted()

    # --- saving ---------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        waited = monotonic() - self._saved_at
        counted = self.save_every is not None and self.progress.step % self.save_every == 0
        timed = waited > max(_SECONDS_BETWEEN_SAVES, _SHARE_OF_SAVING * self._saving_took)
        if counted or timed or self.interrupted:
            self.save()
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if not self.interrupted:
            return
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
        if not all_finite(value.detach() for value in self.net.parameters()):
            raise NotFiniteError(
                f"a weight is not finite after step {self.progress.step}; the last good checkpoint"
                f" is {self.folder / checkpoint.LAST}. A lower learning rate (--lr) may help",
                self.progress.results(),
            )
        if self.order.rank:
            return
        start = perf_counter()
        checkpoint.save(self.folder / checkpoint.LAST, self.best_net, self.state())
        self._saving_took = perf_counter() - start
        self._saved_at = monotonic()

    def state(self) -> dict[str, Any]:
        """What a checkpoint contains besides the network."""
        setup = self.setup
        average = self.average
        return {
            "data": setup.data.name,
            "images": list(setup.plan.images),
            "classes": list(setup.data.classes),
            "mean": list(setup.normalisation.mean),
            "std": list(setup.normalisation.std),
            "recipe": setup.recipe.to_yaml(),
            "progress": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": None
            if average is None
            else {"updates": int(average.n_averaged), "weights": self.net.state_dict()},
            "threads": torch.get_num_threads(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from the state of a checkpoint, whose network this run was made with."""
        self.progress = Progress(**state["progress"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        if self.average is not None:
            self.average.module.load_state_dict(self.net.state_dict())
            self.average.n_averaged.fill_(state["average"]["updates"])
            self.net.load_state_dict(state["average"]["weights"])

    @contextmanager
    def _signals(self) -> Generator[None]:
        """Ctrl-C and SIGTERM save at the next step; the second Ctrl-C stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: dict[int, Any] = {}

        def interrupt(number: int, frame: Any) -> None:
            self._asked = True
            self.interrupted = processes() == 1  # several stop at the same step
            signal.signal(number, previous[number])
            self.listener.on_message("stopping after this step; once more stops without saving")

        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, interrupt)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
