"""The batch that a network is probed with."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.shape import TensorShape

RANDOM = "random"
_DIGITS = 10


class Batch(NamedTuple):
    """Images of each input, and the class of each image if the network is a classifier."""

    name: str
    images: list[Tensor]
    labels: Tensor | None


def batch_for(graph: Graph, source: str | None, size: int, seed: int) -> Batch:
    """A batch for a network.

    Args:
        source: as of `cnngraph train --data`, or `random` for normal random values and classes;
            None for `digits` if the network can classify them, otherwise `random`.
        size: the number of images, or of all there are if these are fewer.
        seed: chooses images and random values.

    Raises:
        CnngraphError: there is no such data, or the network does not fit it.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = _classes(graph)
    if source is None:
        source = "digits" if _reads_digits(graph, classes) else RANDOM
    if source != RANDOM:
        return _of_data(graph, source, classes, size, generator)
    images = [torch.randn(size, *shape, generator=generator) for shape in graph.inputs.values()]
    labels = torch.randint(classes, (size,), generator=generator) if classes else None
    return Batch("normal random values", images, labels)


def _classes(graph: Graph) -> int | None:
    """The number of classes of a classifier; None for other networks."""
    paths = [*(graph.features.values() or [graph.output]), *graph.aux.values()]
    shapes: set[TensorShape] = {graph.shape_of(path) for path in paths}
    (shape,) = shapes if len(shapes) == 1 else (None,)
    return shape.channels if shape is not None and len(shape) == 1 else None


def _reads_digits(graph: Graph, classes: int | None) -> bool:
    image = len(graph.inputs) == 1 and len(graph.input) == 3 and graph.input.channels in (1, 3)
    return image and (classes or 0) >= _DIGITS and find_spec("sklearn") is not None


def _of_data(
    graph: Graph, source: str, classes: int | None, size: int, generator: torch.Generator
) -> Batch:
    from cnngraph.training.augmentation import measure
    from cnngraph.training.data import open_data
    from cnngraph.training.data.images import scaled

    if len(graph.inputs) != 1 or classes is None:
        raise CnngraphError(f"`{graph.name}` is no classifier of images: probe it with `{RANDOM}`")
    data = open_data(source, graph.input)
    if len(data.classes) > classes:
        counts = f"{data.name} has {len(data.classes)} classes, `{graph.name}` {classes}"
        raise CnngraphError(f"{counts}: set num_classes")
    order = torch.randperm(len(data.train.labels), generator=generator)[:size]
    images, (mean, std) = scaled(data.train.batch(order.tolist())), measure(data.train)
    images = (images - _by_channel(mean)) / _by_channel(std)
    return Batch(data.name, [images], data.train.labels[order])


def _by_channel(values: Mapping[int, float] | tuple[float, ...]) -> Tensor:
    return torch.tensor(values).view(1, -1, 1, 1)
