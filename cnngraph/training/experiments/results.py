"""What an experiment found: a table, the curves of every variant, and the files of both."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnngraph.atomic_write import atomic_write_text
from cnngraph.report.html import preformatted, table
from cnngraph.training.experiments.experiment import Experiment
from cnngraph.training.listeners import EpochResult
from cnngraph.training.report import new_figure, save_figure

BOOK = "book (Fashion-MNIST)"
CURVES, TABLE, REPORT = "curves.png", "results.csv", "results.md"


@dataclass(frozen=True)
class Result:
    """The run of a variant.

    Attributes:
        name: of the variant.
        parameters: of the network.
        history: the figures of each epoch.
        book: the accuracy on Fashion-MNIST that the textbook prints.
        diverged: the message, if the loss was not finite and the run ended early.
    """

    name: str
    parameters: int
    history: tuple[EpochResult, ...]
    book: float | None = None
    diverged: str | None = None

    @property
    def last(self) -> EpochResult | None:
        """The figures of the last epoch; None if the run diverged in the first."""
        return self.history[-1] if self.history else None

    def row(self) -> dict[str, str]:
        """The cells of the variant's row, by column; empty for what is not known."""
        last = self.last
        measured = {
            "epochs": str(len(self.history)),
            "train loss": f"{last.train_loss:.4f}" if last else "",
            "train accuracy": f"{last.train_accuracy:.3f}" if last else "",
            "val loss": f"{last.val_loss:.4f}" if last else "",
            "val accuracy": f"{last.val_accuracy:.3f}" if last else "",
            "seconds": f"{sum(result.seconds for result in self.history):.0f}",
        }
        if self.diverged is not None:
            measured["val accuracy"] = "diverged"
        return {
            "variant": self.name,
            "parameters": f"{self.parameters}",
            **measured,
            BOOK: "" if self.book is None else f"{self.book:.3f}",
        }


@dataclass(frozen=True)
class Results:
    """The runs of an experiment on one source of data."""

    experiment: Experiment
    data: str
    results: tuple[Result, ...]

    def rows(self) -> list[dict[str, str]]:
        """The table: a row for each variant, without columns that are empty throughout."""
        rows = [result.row() for result in self.results]
        used = [column for column in rows[0] if any(row[column] for row in rows)]
        return [{column: row[column] for column in used} for row in rows]

    def _repr_html_(self) -> str:
        rows = self.rows()
        first, *others = rows[0]
        text = f"{self.experiment.question}\nData: {self.data}."
        return preformatted(text) + table((first,), others, [(*row.values(),) for row in rows])

    def to_markdown(self) -> str:
        """The question, the table and the picture, as a page of Markdown."""
        rows = self.rows()
        columns = list(rows[0])
        lines = [f"# {self.experiment.name}", "", self.experiment.question, ""]
        lines += [f"Data: {self.data}.", ""]
        lines += [_line(columns), _line(["---"] + ["---:"] * (len(columns) - 1))]
        lines += [_line(row.values()) for row in rows]
        return "\n".join([*lines, "", f"![Loss and accuracy of each epoch]({CURVES})", ""])

    def write(self, folder: Path) -> None:
        """Writes `results.csv`, `results.md` and `curves.png`.

        Raises:
            CnngraphError: a file cannot be written.
        """
        rows = self.rows()
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        atomic_write_text(folder / TABLE, text.getvalue())
        atomic_write_text(folder / REPORT, self.to_markdown())
        draw_comparison(self.results, folder / CURVES)


def draw_comparison(results: Sequence[Result], path: Path) -> None:
    """Draws the training loss and the validation accuracy of every variant."""
    figure = new_figure(10, 4)
    parts: Any = figure.subplots(1, 2)
    titles = {"train_loss": "train loss", "val_accuracy": "val accuracy"}
    for axes, (key, title) in zip(parts, titles.items(), strict=True):
        for result in results:
            epochs = [epoch.epoch for epoch in result.history]
            values = [getattr(epoch, key) for epoch in result.history]
            axes.plot(epochs, values, label=result.name, marker="." if len(epochs) < 30 else "")
        axes.set(xlabel="epoch", ylabel=title)
        axes.grid(alpha=0.3)
    parts[0].set_yscale("log")
    figure.legend(*parts[0].get_legend_handles_labels(), loc="outside right center")
    save_figure(figure, path)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
