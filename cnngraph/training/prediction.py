"""Prediction: the classes of single images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cnngraph.errors import CnngraphError
from cnngraph.report.html import preformatted, table
from cnngraph.shape import TensorShape
from cnngraph.training import checkpoint
from cnngraph.training.data.files import ENDINGS, read_image
from cnngraph.training.evaluation import transform_of
from cnngraph.training.setup import device_of

STDIN = "-"
_BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image, from the most probable on.

    Attributes:
        image: its name.
        classes: pairs of a class and its probability.
    """

    image: str
    classes: tuple[tuple[str, float], ...]

    def _repr_html_(self) -> str:
        rows = [(name, f"{share:.2%}") for name, share in self.classes]
        return preformatted(self.image) + table(("class",), ("probability",), rows)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data, for `--format json`."""
        classes = [{"name": name, "probability": share} for name, share in self.classes]
        return {"image": self.image, "classes": classes}


def predict(
    path: str | Path,
    images: Iterable[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    skip_bad: bool = False,
    allow_code: bool = False,
) -> Iterator[Prediction]:
    """Predicts the classes of images.

    Args:
        path: a checkpoint, or the folder of a run, whose best checkpoint is taken.
        images: image files, folders of them, or `-` for an image on stdin.
        top: the number of classes to name.
        device: `cpu`, `cuda`, or `auto`.
        skip_bad: leave out files that cannot be read as images.
        allow_code: as in `cnngraph.load_compiled`.

    Raises:
        CnngraphError: there is no checkpoint, or a file cannot be read.
    """
    saved = checkpoint.load(path, allow_code=allow_code)
    place = device_of(device)
    net = saved.network.eval().for_inference().to(place)
    transform = transform_of(saved).to(place)
    shape = saved.network.compilation.graph.input
    pairs = _read(images, shape, skip_bad)
    while batch := list(islice(pairs, _BATCH)):
        with torch.inference_mode():
            stacked = torch.stack([image for _, image in batch]).to(place)
            shares = net(transform(stacked)).float().softmax(1).cpu()
        best = shares.topk(min(top, len(saved.classes)))
        for (name, _), values, indices in zip(batch, best.values, best.indices, strict=True):
            named = [
                (saved.classes[index], value)
                for index, value in zip(indices.tolist(), values.tolist(), strict=True)
            ]
            yield Prediction(name, tuple(named))


def _read(
    images: Iterable[str | Path], shape: TensorShape, skip_bad: bool
) -> Iterator[tuple[str, Tensor]]:
    for name in _files(images):
        try:
            yield "stdin" if name == STDIN else str(name), read_image(_opened(name), shape)
        except CnngraphError:
            if not skip_bad:
                raise


def _files(images: Iterable[str | Path]) -> Iterator[str | Path]:
    for item in images:
        path = Path(item)
        if str(item) == STDIN:
            yield STDIN
        elif path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS)
            if not found:
                raise CnngraphError(f"{path} contains no images")
            yield from found
        else:
            yield path


def _opened(name: str | Path) -> Any:
    if name != STDIN:
        return Path(name)
    data = BytesIO(sys.stdin.buffer.read())
    data.name = "stdin"
    if not data.getbuffer().nbytes:
        raise CnngraphError("stdin is empty: expected an image")
    return data
