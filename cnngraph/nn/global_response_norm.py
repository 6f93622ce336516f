"""Competition between the channels of a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GlobalResponseNorm(nn.Module):
    """x + weight * x * g / (mean of g over the channels + eps) + bias, for `(N, C, ...)`.

    g is the L2 norm of each channel over its positions. `weight` and `bias`, of shape `(C,)`, are
    zero at first, so that the module does nothing. `rank` is the number of spatial dimensions.

    Source: Woo et al., ConvNeXt V2, section 3.1, https://arxiv.org/abs/2301.00808.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6, rank: int = 2) -> None:
        super().__init__()
        self.num_channels = num_channels
        self.eps = eps
        self.rank = rank
        self.weight = nn.Parameter(torch.zeros(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, input: Tensor) -> Tensor:
        positions = [*range(2, 2 + self.rank)]
        norm = torch.linalg.vector_norm(input, dim=positions, keepdim=True)
        share = norm / (norm.mean(1, keepdim=True) + self.eps)
        channels = (-1, *(1,) * self.rank)
        factor = 1 + self.weight.view(channels) * share
        return input * factor + self.bias.view(channels)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}"
