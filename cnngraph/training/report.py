"""What a run leaves in its folder: the recipe, figures, pictures, and TensorBoard's events."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnngraph.atomic_write import atomic_write, atomic_write_text
from cnngraph.training import checkpoint
from cnngraph.training.augmentation import Transform
from cnngraph.training.data.images import scaled
from cnngraph.training.data.loader import Order, loader_of, seed_everything
from cnngraph.training.evaluation import Evaluation, evaluation_of, transform_of
from cnngraph.training.extras import require
from cnngraph.training.listeners import EpochResult, Listener
from cnngraph.training.setup import Setup

_MOST_MISTAKES = 25
_MOST_NAMED_CLASSES = 40


class Figures(Listener):
    """Writes the figures of each epoch to `metrics.csv`, and to TensorBoard's events.

    Args:
        folder: of the run.
        history: the epochs that are finished already.
    """

    def __init__(self, folder: Path, history: Sequence[EpochResult] = ()) -> None:
        self.folder = folder
        self.history = list(history)
        board: Any = require("torch.utils.tensorboard")
        self.writer = board.SummaryWriter(
            str(folder / "tensorboard"), purge_step=len(self.history) + 1
        )

    def on_epoch(self, result: EpochResult, epochs: int, best: bool) -> None:
        """See `Listener`."""
        self.history.append(result)
        write_metrics(self.folder, self.history)
        for name, value in asdict(result).items():
            if name not in ("epoch", "step", "seconds"):
                self.writer.add_scalar(name.replace("_", "/", 1), value, result.epoch)

    def on_end(self) -> None:
        """See `Listener`."""
        self.writer.close()


def write(folder: Path, setup: Setup, history: Sequence[EpochResult]) -> None:
    """Writes `curves.png`, `confusion.png` and `mistakes.png` of a run.

    Raises:
        CnngraphError: a file cannot be written.
    """
    draw_curves(history, folder / "curves.png")
    saved = checkpoint.load(folder, allow_code=setup.net.compilation.spec.allows_code)
    net, transform = saved.network.eval().for_inference(), transform_of(saved)
    images = setup.data.val
    found = evaluation_of(net, transform, images, setup.data.classes, setup.data.name)
    draw_confusion(found, folder / "confusion.png")
    worst = found.mistakes[:_MOST_MISTAKES]
    if worst:
        predicted = found.probabilities.argmax(1)
        titles = [
            f"{found.classes[int(found.labels[index])]} as {found.classes[int(predicted[index])]}"
            for index in worst
        ]
        draw_grid(images.batch(worst), titles, folder / "mistakes.png")


def write_metrics(folder: Path, history: Sequence[EpochResult]) -> None:
    """Writes `metrics.csv`: one row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(EpochResult)])
    writer.writeheader()
    writer.writerows(map(asdict, history))
    atomic_write_text(folder / "metrics.csv", text.getvalue())


def draw_curves(history: Sequence[EpochResult], path: Path) -> None:
    """Draws the loss and the accuracy of each epoch."""
    figure = new_figure(9, 3.5)
    epochs = [result.epoch for result in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            values = [getattr(result, f"{part}_{name}") for result in history]
            axes.plot(epochs, values, label=label, marker="." if len(epochs) < 30 else "")
        axes.set(xlabel="epoch", ylabel=name)
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(figure, path)


def draw_confusion(found: Evaluation, path: Path) -> None:
    """Draws the confusion matrix: a row for each class, a column for each predicted class."""
    classes = len(found.classes)
    named = classes <= _MOST_NAMED_CLASSES
    side = 2.5 + 0.35 * min(classes, _MOST_NAMED_CLASSES)
    figure = new_figure(side, side)
    axes = figure.add_subplot()
    confusion = found.confusion
    shares = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="class", title=f"accuracy {found.top1:.2%}")
    if named:
        axes.set_xticks(range(classes), found.classes, rotation=90)
        axes.set_yticks(range(classes), found.classes)
    if classes <= 20:
        for row in range(classes):
            for column in range(classes):
                count = int(confusion[row, column])
                colour = "white" if shares[row, column] > 0.5 else "black"
                if count:
                    axes.text(column, row, count, ha="center", va="center", color=colour, size=8)
    save_figure(figure, path)


def draw_grid(images: Tensor, titles: Sequence[str], path: Path) -> None:
    """Draws images `(N, C, H, W)`, uint8 or between 0 and 1, with a title above each."""
    columns = max(1, min(8, len(images)))
    rows = -(-len(images) // columns)
    height, width = images.shape[-2:]
    gap = max(1, height // 4)  # above each image, for its title
    board = torch.ones(rows, height + gap, columns, width + 2, images.shape[1])
    for index, image in enumerate(scaled(images)):
        board[index // columns, gap:, index % columns, :width] = image.permute(1, 2, 0)
    pixels: Any = board.view(rows * (height + gap), columns * (width + 2), -1).numpy()
    gray = images.shape[1] == 1
    size = (1.5 * columns, 1.5 * columns * pixels.shape[0] / pixels.shape[1])
    figure = require("matplotlib.figure").Figure(size)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(
        pixels[..., 0] if gray else pixels[..., :3], cmap="gray" if gray else None, vmin=0, vmax=1
    )
    for index, title in enumerate(titles):
        left, top = index % columns * (width + 2), index // columns * (height + gap)
        axes.text(left + width / 2, top + gap / 2, title, ha="center", va="center", size=7)
    save_figure(figure, path)


def draw_batch(setup: Setup, path: Path) -> None:
    """Draws the first batch as the network will see it, augmented, with the names of its classes.

    Raises:
        CnngraphError: the file cannot be written.
    """
    data, recipe = setup.data, setup.recipe
    order = Order(len(data.train.labels), min(recipe.batch_size, 64), recipe.seed)
    transform = Transform(setup.normalisation, recipe.augment, setup.net.compilation.graph.input)
    seed, images, labels = next(iter(loader_of(data.train, order, 0)))
    seed_everything(seed)
    augmented, targets = transform.augmented(images, labels)
    titles = [data.classes[int(label)] for label in labels]
    if targets.share < 1:
        others = [data.classes[int(label)] for label in targets.others]
        titles = [
            f"{targets.share:.2f} {name} + {1 - targets.share:.2f} {other}"
            for name, other in zip(titles, others, strict=True)
        ]
    draw_grid(transform.restored(augmented), titles, path)


def new_figure(width: float, height: float) -> Any:
    return require("matplotlib.figure").Figure((width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    ending = path.suffix.lstrip(".") or "png"
    atomic_write(path, lambda file: figure.savefig(file, format=ending, dpi=120), (ValueError,))
