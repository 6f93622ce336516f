"""Tiny networks and data for the tests of training."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="needs cnngraph[train]")
pytest.importorskip("kornia", reason="needs cnngraph[train]")

from cnngraph.shape import TensorShape
from cnngraph.training import Data
from cnngraph.training.data.images import TensorImages

TINY = """
cnngraph: 1
name: tiny
input: [1, 8, 8]
params: {num_classes: 3}
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1}
  - batch_norm: {name: bn}
  - relu
  - dropout: 0.2
  - max_pool2d: 2
  - flatten
  - linear: {name: fc, out_features: "${num_classes}"}
"""
"""A convolution, a batch norm and a dropout, so that a run depends on the random state."""


def images(count: int, seed: int = 0, classes: int = 3) -> TensorImages:
    """Noise with a bright row that shows the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    pixels = torch.randint(0, 128, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), 0, 2 * labels] = 255
    return TensorImages(pixels, labels, TensorShape((1, 8, 8)))


def data(train: int = 20, val: int = 9) -> Data:
    """The images of `images`, to train on and to evaluate on."""
    return Data("stripes", images(train), images(val, seed=1), ("top", "middle", "bottom"))
