"""What a run reports while it runs: a progress bar, lines of text, or lines of JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

from cnngraph.report import terminal
from cnngraph.training.planning import Plan


@dataclass(frozen=True)
class Step:
    """The state of a run after a step. `loss` and `accuracy` are those of the epoch so far."""

    epoch: int
    step: int
    total_steps: int
    loss: float
    accuracy: float
    images_per_second: float


@dataclass(frozen=True)
class EpochResult:
    """The figures of an epoch, counted from 1."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float


class Listener:
    """Hears of what happens in a run; this one stays silent."""

    def on_plan(self, plan: Plan, notes: str = "") -> None:
        """Before the first step. `notes` say what weights were loaded."""

    def on_step(self, step: Step) -> None:
        """After each step of the optimizer."""

    def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
        """After each epoch. `best` says whether the network is better than before."""

    def on_message(self, text: str) -> None:
        """Something that the user should know."""

    def on_end(self) -> None:
        """After the last step, also if it failed."""


class Text(Listener):
    """A line for each epoch on stdout, and a progress bar on stderr if that is a terminal."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._titled = False

    def on_plan(self, plan: Plan, notes: str = "") -> None:
        """See `Listener`."""
        print(terminal.printable(f"{plan}\n{notes}" if notes else str(plan)), flush=True)
        if sys.stderr.isatty():
            self._start(plan)

    def _start(self, plan: Plan) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        console = terminal.console(stderr=True)
        self._bar = Progress(
            *columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()
        )
        self._bar.start()
        self._task = self._bar.add_task("", total=plan.steps * plan.epochs)

    def on_step(self, step: Step) -> None:
        """See `Listener`."""
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=step.step,
                description=f"loss {step.loss:.4f}, accuracy {step.accuracy:.1%},"
                f" {step.images_per_second:,.0f} images/s",
            )

    def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
        """See `Listener`."""
        if not self._titled:
            print(f"\n{'epoch':>7}  train loss  accuracy   val loss  accuracy  images/s")
            self._titled = True
        print(
            f"{result.epoch:>3}/{epochs:<3}  {result.train_loss:>10.4f}"
            f" {result.train_accuracy:>9.2%} {result.val_loss:>10.4f} {result.val_accuracy:>9.2%}"
            f" {result.images_per_second:>9,.0f}{'  best' if best else ''}",
            flush=True,
        )

    def on_message(self, text: str) -> None:
        """See `Listener`."""
        print(terminal.printable(text), flush=True)

    def on_end(self) -> None:
        """See `Listener`."""
        if self._bar is not None:
            self._bar.stop()


class JsonLines(Listener):
    """A JSON object on a line of stdout for the plan and for each epoch."""

    def on_plan(self, plan: Plan, notes: str = "") -> None:
        """See `Listener`."""
        print_line("plan", plan.to_dict())

    def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
        """See `Listener`."""
        print_line("epoch", {**asdict(result), "best": best})

    def on_message(self, text: str) -> None:
        """See `Listener`."""
        print_line("message", {"text": text})


def print_line(event: str, data: dict[str, Any]) -> None:
    """Prints an event of a run as a line of JSON."""
    print(json.dumps({"event": event, **data}), flush=True)


class Several(Listener):
    """Passes everything on to several listeners."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def on_plan(self, plan: Plan, notes: str = "") -> None:
        """See `Listener`."""
        for listener in self.listeners:
            listener.on_plan(plan, notes)

    def on_step(self, step: Step) -> None:
        """See `Listener`."""
        for listener in self.listeners:
            listener.on_step(step)

    def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
        """See `Listener`."""
        for listener in self.listeners:
            listener.on_epoch(result, epochs, best)

    def on_message(self, text: str) -> None:
        """See `Listener`."""
        for listener in self.listeners:
            listener.on_message(text)

    def on_end(self) -> None:
        """See `Listener`."""
        for listener in self.listeners:
            listener.on_end()


class Clock:
    """Images per second since the last restart."""

    def __init__(self) -> None:
        self.start = perf_counter()
        self.images = 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return perf_counter() - self.start

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / max(self.seconds, 1e-9)
