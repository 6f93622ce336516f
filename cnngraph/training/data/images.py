"""Sets of labelled images, as batches of one shape: what every source of data becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cnngraph.errors import CnngraphError
from cnngraph.shape import TensorShape

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in Pillow


class Images(Protocol):
    """Labelled images of one shape.

    Attributes:
        labels: int64, one per image.
    """

    labels: Tensor

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Images `(N, C, H, W)`: uint8, or floating point between 0 and 1."""
        ...

    def name(self, index: int) -> str:
        """What an image is called in messages, such as its path."""
        ...


@dataclass(frozen=True)
class Data:
    """Images to train on and to evaluate on.

    Attributes:
        name: the source, for messages.
        train: the images to train on.
        val: the images to evaluate on.
        classes: the name of each class, in the order of the labels.
        skipped: names of files that cannot be read and are left out.
    """

    name: str
    train: Images
    val: Images
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class TensorImages:
    """Images in memory, in a tensor `(N, C, H, W)`; batches have the given shape."""

    def __init__(
        self, images: Tensor, labels: Tensor, shape: TensorShape, names: Sequence[str] = ()
    ) -> None:
        self.images = images
        self.labels = labels
        self.shape = shape
        self.names = names
        if labels.numel() * shape.elements * images.element_size() <= MOST_RESIZED:
            self.images = resized(images, shape)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """See `Images`."""
        return resized(self.images[torch.as_tensor(indices)], self.shape)

    def name(self, index: int) -> str:
        """See `Images`."""
        return self.names[index] if self.names else f"image {index}"


MOST_RESIZED = 1 << 29
"""Bytes of the largest set that is resized once, and not batch by batch."""


class DatasetImages:
    """A `Dataset` of Python, whose items are an image and a label."""

    def __init__(self, dataset: Any, labels: Tensor, shape: TensorShape) -> None:
        self.dataset = dataset
        self.labels = labels
        self.shape = shape

    def batch(self, indices: Sequence[int]) -> Tensor:
        """See `Images`."""
        images = [as_image(self.dataset[index][0]) for index in indices]
        return torch.cat([resized(image[None], self.shape) for image in images])

    def name(self, index: int) -> str:
        """See `Images`."""
        return f"image {index}"


def as_image(value: Any) -> Tensor:
    """A Pillow image or an array as a tensor `(C, H, W)`."""
    if isinstance(value, Tensor):
        return value[None] if value.ndim == 2 else value
    import numpy

    array = torch.from_numpy(numpy.array(value))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


def resized(images: Tensor, shape: TensorShape) -> Tensor:
    """Images `(N, C, H, W)` in another shape and the same dtype.

    They are cropped around the centre to the shape's aspect ratio, resized (bilinear, with
    antialiasing), and converted from colour to grey or from grey to colour.

    Raises:
        CnngraphError: there is no conversion between these numbers of channels.
    """
    if tuple(images.shape[1:]) == tuple(shape):
        return images
    height, width = images.shape[-2:]
    scale = min(height / shape[1], width / shape[2])
    rows, columns = round(shape[1] * scale), round(shape[2] * scale)
    top, left = (height - rows) // 2, (width - columns) // 2
    images = images[..., top : top + rows, left : left + columns]
    exact = images.float() if images.dtype == torch.uint8 else images
    exact = _with_channels(exact, shape.channels)
    if exact.shape[-2:] != shape.spatial:
        exact = F.interpolate(exact, shape.spatial, mode="bilinear", antialias=True)
    return exact.round().clamp(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else exact


def _with_channels(images: Tensor, channels: int) -> Tensor:
    given = images.shape[1]
    if given == channels:
        return images
    if given == 1:
        return images.expand(-1, channels, -1, -1)
    if given == 3 and channels == 1:
        weights = torch.tensor(_LUMINANCE, dtype=images.dtype).view(1, 3, 1, 1)
        return (images * weights).sum(1, keepdim=True)
    raise CnngraphError(
        f"the images have {given} channels, the network's input has {channels}: only grey and"
        " colour images are converted"
    )


def scaled(images: Tensor) -> Tensor:
    """Images of a batch as floating point numbers between 0 and 1."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def split(labels: Tensor, share: float = 0.2) -> tuple[list[int], list[int]]:
    """Indices to train on and to evaluate on: a random share of each class, always the same."""
    generator = torch.Generator().manual_seed(0)
    val: set[int] = set()
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        val |= set(members[order[: round(share * len(members))]].tolist())
    return [index for index in range(len(labels)) if index not in val], sorted(val)


def class_names(found: int, folder_names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The names in a `classes.txt`, or the numbers. Raises `CnngraphError` if they are too few."""
    if folder_names is None:
        return tuple(map(str, range(found)))
    if len(folder_names) < found:
        raise CnngraphError(f"{where} has {found} classes, its classes.txt {len(folder_names)}")
    return tuple(folder_names)


def require_labels(labels: Tensor, classes: int, where: str) -> None:
    """Raises `CnngraphError` if a label is not the number of a class."""
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        index = int(wrong[0])
        raise CnngraphError(
            f"{where}: the label {int(labels[index])} of image {index} is out of range: there are"
            f" {classes} classes, numbered from 0"
        )
