"""The batches of an epoch. Their order and random state follow from the seed and the position."""

from __future__ import annotations

import random
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cnngraph.training.data.images import Images

Item = tuple[int, list[int]]
"""The seed of a batch, and the indices of its images."""


def seed_of(*parts: int) -> int:
    """A seed of 63 bits that depends on every part: the run's seed, the epoch, the batch."""
    digest = blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_everything(seed: int) -> None:
    """Sets the random state of torch, NumPy and Python."""
    torch.manual_seed(seed)
    numpy.random.seed(seed % 2**32)
    random.seed(seed)


class Order(Sampler[Item]):
    """The batches of an epoch, from `start` on: images in a random order that the seed determines.

    A last batch that is too small for batch norms, or for a part on every device, is left out.

    Attributes:
        epoch, start: the epoch and batch that the next iteration begins with.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, *, rank: int = 0, devices: int = 1
    ) -> None:
        self.count = count
        self.batch_size = min(batch_size, count)
        self.seed = seed
        self.rank = rank
        self.devices = devices
        self.epoch = 0
        self.start = 0
        rest = count % self.batch_size
        self.batches = count // self.batch_size + (rest >= max(2, devices))

    def size_of(self, batch: int) -> int:
        """The number of images in a batch, of all devices together."""
        return min(self.batch_size, self.count - batch * self.batch_size)

    def __iter__(self) -> Iterator[Item]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch))
        order = torch.randperm(self.count, generator=generator).tolist()
        for batch in range(self.start, self.batches):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield (
                seed_of(self.seed, self.epoch, batch, self.rank),
                indices[self.rank :: self.devices],
            )

    def __len__(self) -> int:
        return self.batches - self.start


class _Batches(Dataset[tuple[int, Tensor, Tensor]]):
    def __init__(self, images: Images) -> None:
        self.images = images

    def __getitem__(self, index: Any) -> tuple[int, Tensor, Tensor]:
        seed, indices = index
        seed_everything(seed)  # in a worker, for datasets that choose at random
        return seed, self.images.batch(indices), self.images.labels[indices]


def loader_of(images: Images, order: Order, workers: int) -> DataLoader[Any]:
    """Yields `(seed, images, labels)` for the batches of `order`."""
    return DataLoader(
        _Batches(images),
        sampler=order,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
