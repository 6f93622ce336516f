"""From the images of a batch to what the network reads: augmentation and normalisation."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.errors import CnngraphError
from cnngraph.shape import TensorShape
from cnngraph.training.data.images import Images, scaled
from cnngraph.training.extras import require
from cnngraph.training.recipe import Augmentation

_MOST_MEASURED = 10_000
_CHUNK = 256


class Normalisation(NamedTuple):
    """The mean and standard deviation of each channel, of values between 0 and 1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Targets(NamedTuple):
    """What a batch should be classified as: `share` of `labels`, and the rest of `others`."""

    labels: Tensor
    others: Tensor
    share: float


def measure(images: Images) -> Normalisation:
    """The normalisation of a set, from at most 10,000 images evenly spread over it."""
    count = min(len(images.labels), _MOST_MEASURED)
    indices = torch.linspace(0, len(images.labels) - 1, count).long().tolist()
    total, squares, pixels = torch.zeros(1), torch.zeros(1), 0
    for start in range(0, count, _CHUNK):
        batch = scaled(images.batch(indices[start : start + _CHUNK])).double()
        total = total + batch.sum((0, 2, 3))
        squares = squares + batch.square().sum((0, 2, 3))
        pixels += batch.numel() // batch.shape[1]
    mean = total / pixels
    std = (squares / pixels - mean.square()).clamp(min=0).sqrt().clamp(min=1e-3)
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


class Transform(nn.Module):
    """Normalises the images of a batch, and augments those to train on.

    Random choices depend on torch's global generator alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, normalisation: Normalisation, augmentation: Augmentation, shape: TensorShape
    ) -> None:
        super().__init__()
        for name, values in normalisation._asdict().items():
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        self.augmentation = augmentation
        self.geometry, self.erasing = _kornia(augmentation, shape)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images, for evaluation."""
        return (scaled(images) - self.mean) / self.std

    def augmented(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Targets]:
        """Augmented and normalised images, and what they should be classified as."""
        exact = scaled(images)
        if self.geometry is not None:
            exact = self.geometry(exact)
        exact = (exact - self.mean) / self.std
        if self.erasing is not None:
            exact = self.erasing(exact)
        return mixed(exact, labels, self.augmentation.mixup, self.augmentation.cutmix)

    def restored(self, images: Tensor) -> Tensor:
        """Normalised images as values between 0 and 1, to look at."""
        return (images * self.std + self.mean).clamp(0, 1)


def _kornia(augmentation: Augmentation, shape: TensorShape) -> tuple[Any, Any]:
    """The augmentations of the pixels, and the erasing of rectangles; None where there is none."""
    if augmentation == Augmentation(mixup=augmentation.mixup, cutmix=augmentation.cutmix):
        return None, None
    library = require("kornia.augmentation")
    size = tuple(shape.spatial)
    steps: list[Any] = []
    if crop := augmentation.random_resized_crop:
        steps.append(library.RandomResizedCrop(size, scale=crop.scale, ratio=crop.ratio))
    if augmentation.crop_padding:
        steps.append(library.RandomCrop(size, padding=augmentation.crop_padding))
    if augmentation.rotation:
        steps.append(library.RandomRotation(augmentation.rotation, p=1.0))
    if augmentation.horizontal_flip:
        steps.append(library.RandomHorizontalFlip(p=augmentation.horizontal_flip))
    if augmentation.vertical_flip:
        steps.append(library.RandomVerticalFlip(p=augmentation.vertical_flip))
    if jitter := augmentation.color_jitter:
        if shape.channels != 3 and (jitter.saturation or jitter.hue):
            raise CnngraphError(
                f"`saturation` and `hue` change colours, but the network's input has"
                f" {shape.channels} channels: remove them from `color_jitter`"
            )
        steps.append(library.ColorJiggle(**jitter.model_dump(), p=1.0))
    erasing = augmentation.random_erasing
    return (
        library.AugmentationSequential(*steps, data_keys=["input"]) if steps else None,
        library.RandomErasing(p=erasing) if erasing else None,
    )


def mixed(images: Tensor, labels: Tensor, mixup: float, cutmix: float) -> tuple[Tensor, Targets]:
    """Images mixed with others of the batch, by mixup or cutmix, whose alphas are given."""
    if mixup and cutmix:
        mixup, cutmix = (mixup, 0.0) if torch.rand(()) < 0.5 else (0.0, cutmix)
    alpha = mixup or cutmix
    if not alpha:
        return images, Targets(labels, labels, 1.0)
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images), device="cpu").to(images.device)
    others = labels[order]
    if mixup:
        return images.lerp(images[order], 1 - share), Targets(labels, others, share)
    height, width = images.shape[-2:]
    rows, columns = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
    top = int(torch.randint(height - rows + 1, ()))
    left = int(torch.randint(width - columns + 1, ()))
    images = images.clone()
    cut = (..., slice(top, top + rows), slice(left, left + columns))
    images[cut] = images[order][cut]
    return images, Targets(labels, others, 1 - rows * columns / (height * width))


def cross_entropy(logits: Tensor, targets: Targets, smoothing: float) -> Tensor:
    """The cross entropy of a batch of logits `(N, classes)`, averaged over the images."""
    loss = F.cross_entropy(logits, targets.labels, label_smoothing=smoothing)
    if targets.share == 1.0:
        return loss
    other = F.cross_entropy(logits, targets.others, label_smoothing=smoothing)
    return targets.share * loss + (1 - targets.share) * other
