"""A part of a set of images: some of its classes, and the first images of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cnngraph.errors import CnngraphError
from cnngraph.training.data.images import Data, Images


class Selection:
    """Some images of a set, with the labels given for them."""

    def __init__(self, images: Images, indices: Tensor, labels: Tensor) -> None:
        self.images = images
        self.indices = indices
        self.labels = labels

    def batch(self, indices: Sequence[int]) -> Tensor:
        """See `Images`."""
        return self.images.batch(self.indices[torch.as_tensor(indices)].tolist())

    def name(self, index: int) -> str:
        """See `Images`."""
        return self.images.name(int(self.indices[index]))


def select(
    data: Data,
    classes: Sequence[int] | None = None,
    train_per_class: int | None = None,
    val_per_class: int | None = None,
) -> Data:
    """A part of the data.

    Args:
        classes: the numbers of the classes to keep, which become 0, 1 and so on; by default all.
        train_per_class, val_per_class: how many images of each class to train on, and to evaluate
            on: the first ones. By default all.

    Raises:
        CnngraphError: there is no such class.
    """
    kept = list(range(len(data.classes)) if classes is None else classes)
    if wrong := [number for number in kept if not 0 <= number < len(data.classes)]:
        raise CnngraphError(
            f"{data.name} has no class {wrong[0]}: there are {len(data.classes)}, numbered from 0"
        )
    return Data(
        data.name,
        _first(data.train, kept, train_per_class),
        _first(data.val, kept, val_per_class),
        tuple(data.classes[number] for number in kept),
        data.skipped,
    )


def _first(images: Images, classes: Sequence[int], count: int | None) -> Selection:
    members = [(images.labels == number).nonzero().flatten()[:count] for number in classes]
    labels = [torch.full_like(found, number) for number, found in enumerate(members)]
    return Selection(images, torch.cat(members), torch.cat(labels))
