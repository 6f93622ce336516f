"""Evaluation of a checkpoint: accuracy, the accuracy of each class, and the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.errors import CnngraphError
from cnngraph.report.html import preformatted, table
from cnngraph.training import checkpoint
from cnngraph.training.augmentation import Normalisation, Transform
from cnngraph.training.data import Data, Images
from cnngraph.training.recipe import Augmentation
from cnngraph.training.setup import DataLike, device_of, open_for

_BATCH = 64
_MOST_SHOWN = 40
"""The most classes that a notebook displays."""


def _nan_last(share: float) -> float:
    """A key to sort by that puts classes without images after all others."""
    return inf if isnan(share) else share


@dataclass(frozen=True)
class Evaluation:
    """How well a network classifies a set of images.

    Attributes:
        name: the source of the images.
        classes: the name of each class.
        labels: the class of each image.
        probabilities: `(images, classes)`.
        loss: the mean cross entropy.
    """

    name: str
    classes: tuple[str, ...]
    labels: Tensor
    probabilities: Tensor
    loss: float

    @property
    def top1(self) -> float:
        """The share of images whose class has the highest probability."""
        return self.top(1)

    @property
    def top5(self) -> float:
        """The share of images whose class is among the five most probable."""
        return self.top(5)

    def top(self, count: int) -> float:
        """The share of images whose class is among the `count` most probable."""
        best = self.probabilities.topk(min(count, len(self.classes))).indices
        return (best == self.labels[:, None]).any(1).float().mean().item()

    @property
    def confusion(self) -> Tensor:
        """The number of images by class (rows) and predicted class (columns)."""
        classes = len(self.classes)
        pairs = self.labels * classes + self.probabilities.argmax(1)
        return torch.bincount(pairs, minlength=classes**2).view(classes, classes)

    @property
    def per_class(self) -> list[float]:
        """The share of each class's images that are classified correctly; NaN without images."""
        confusion = self.confusion.double()
        return (confusion.diag() / confusion.sum(1)).tolist()

    @property
    def mistakes(self) -> list[int]:
        """Indices of the misclassified images, from the most confident mistake on."""
        confidence, predicted = self.probabilities.max(1)
        wrong = (predicted != self.labels).nonzero().flatten()
        return wrong[confidence[wrong].argsort(descending=True, stable=True)].tolist()

    def _repr_html_(self) -> str:
        """What notebooks display: the totals, and each class, the worst ones if there are many."""
        confusion, shares = self.confusion, self.per_class
        counts = confusion.sum(1).tolist()
        shown = sorted(range(len(self.classes)), key=lambda index: _nan_last(shares[index]))
        shown = sorted(shown[:_MOST_SHOWN])
        rows = [
            (
                self.classes[index],
                f"{counts[index]:,}",
                f"{shares[index]:.2%}" if counts[index] else "-",
                self._confused_with(confusion[index].tolist(), index),
            )
            for index in shown
        ]
        left_out = len(self.classes) - len(shown)
        more = f"; the {len(shown)} least accurate of {len(self.classes)} classes" * bool(left_out)
        text = (
            f"{self.name}: {len(self.labels):,} images, top-1 {self.top1:.2%},"
            f" top-5 {self.top5:.2%}, loss {self.loss:.4f}{more}"
        )
        titles = ("images", "accuracy", "most often taken for")
        return preformatted(text) + table(("class",), titles, rows)

    def _confused_with(self, predicted: list[int], own: int) -> str:
        """`cat (12)`: the other class that was predicted most often."""
        others = [(count, -index) for index, count in enumerate(predicted) if index != own]
        count, index = max(others, default=(0, 0))
        return f"{self.classes[-index]} ({count:,})" if count else "-"

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for `--format json`."""
        return {
            "data": self.name,
            "images": len(self.labels),
            "loss": self.loss,
            "top1": self.top1,
            "top5": self.top5,
            "per_class": dict(zip(self.classes, self.per_class, strict=True)),
            "confusion": self.confusion.tolist(),
        }


def evaluate(
    path: str | Path,
    data: DataLike | None = None,
    *,
    device: str = "auto",
    skip_bad: bool = False,
    allow_code: bool = False,
) -> Evaluation:
    """Evaluates a checkpoint on the images that its run evaluated on, or on those of other data.

    Args:
        path: a checkpoint, or the folder of a run, whose best checkpoint is taken.
        data: as for `fit`; by default the data of the run.
        device: `cpu`, `cuda`, or `auto`.
        skip_bad: leave out files that cannot be read as images.
        allow_code: as in `cnngraph.load_compiled`.

    Raises:
        CnngraphError: there is no checkpoint, or the data has other classes.
    """
    saved = checkpoint.load(path, allow_code=allow_code)
    opened: Data = open_for(saved.network, data or saved.data, skip_bad)
    if opened.classes != saved.classes:
        raise other_classes(opened.name, opened.classes, saved)
    place = device_of(device)
    net = saved.network.eval().for_inference().to(place)
    transform = transform_of(saved).to(place)
    return evaluation_of(net, transform, opened.val, opened.classes, opened.name)


def other_classes(
    name: str, classes: tuple[str, ...], saved: checkpoint.Checkpoint
) -> CnngraphError:
    """The error for data with other classes than a checkpoint; the caller raises it."""
    there, here = [name for name in saved.classes if name not in classes], len(saved.classes)
    first = f": it has no `{there[0]}`" if there else ""
    return CnngraphError(
        f"{name} has other classes than {saved.path} ({len(classes)} and {here}){first}"
    )


def transform_of(saved: checkpoint.Checkpoint) -> Transform:
    """The normalisation of a checkpoint."""
    mean, std = saved.training["mean"], saved.training["std"]
    shape = saved.network.compilation.graph.input
    return Transform(Normalisation(tuple(mean), tuple(std)), Augmentation(), shape)


@torch.inference_mode()
def evaluation_of(
    net: nn.Module, transform: Transform, images: Images, classes: tuple[str, ...], name: str
) -> Evaluation:
    """Evaluates a network in evaluation mode on a set of images."""
    device = transform.mean.device
    count = len(images.labels)
    parts = [list(range(at, min(at + _BATCH, count))) for at in range(0, count, _BATCH)]
    logits = torch.cat(
        [net(transform(images.batch(part).to(device))).float().cpu() for part in parts]
    )
    loss = F.cross_entropy(logits, images.labels).item()
    return Evaluation(name, classes, images.labels, logits.softmax(1), loss)
