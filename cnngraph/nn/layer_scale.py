"""A learned factor for each channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies each channel of (batch, channels, ...) by its own learned factor, small at first.

    Source: Touvron et al., Going deeper with image transformers, https://arxiv.org/abs/2103.17239.
    """

    def __init__(self, channels: int, init_value: float = 1e-6) -> None:
        super().__init__()
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.full((channels,), init_value))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.gamma.view(-1, *(1,) * (input.dim() - 2))

    def extra_repr(self) -> str:
        return f"{self.gamma.numel()}, init_value={self.init_value:g}"
