"""The position of a run, and its figures so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cnngraph.training.listeners import EpochResult


@dataclass
class Progress:
    """The position of a run, and its figures so far. Plain data, for a checkpoint.

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

    def finish_epoch(self, result: EpochResult) -> bool:
        """Moves on to the next epoch. Returns whether this one was the best so far."""

        def quality(found: EpochResult) -> tuple[float, float]:
            return found.val_accuracy, -found.val_loss

        known = self.results()
        best = not known or quality(result) > quality(known[self.best_epoch - 1])
        self.history.append(vars(result).copy())
        self.epoch += 1
        self.batch = self.correct = self.seen = 0
        self.loss = self.seconds = 0.0
        if best:
            self.best_epoch = self.epoch
        return best
