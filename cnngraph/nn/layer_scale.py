"""A learned factor for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies each channel of (batch, channels, ...) by its own learned factor, small at first.

    The factors have a 1 for each of `spatial` dimensions: (channels, 1, 1) on maps, as torchvision's ConvNeXt keeps them.

    Source: Touvron et al., Going deeper with image transformers, https://arxiv.org/abs/2103.17239.
    """

    def __init__(self, channels: int, init_value: float = 1e-6, spatial: int = 2) -> None:
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((channels, *(1,) * spatial), init_value))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.gamma

    def extra_repr(self) -> str:
        return f"{self.gamma.numel()}, init_value={self.init_value:g}"
