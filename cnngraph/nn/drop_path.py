"""Stochastic depth."""

from __future__ import annotations

from torch import Tensor, nn


class DropPath(nn.Module):
    """Zeroes each image of a batch with probability `p`, and scales the rest by 1 / (1 - p).

    Input and output are `(N, ...)`. In evaluation it is the identity.

    Source: Huang et al., Deep Networks with Stochastic Depth, https://arxiv.org/abs/1603.09382.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return input
        kept = 1.0 - self.p
        mask = input.new_empty((len(input), *(1,) * (input.dim() - 1))).bernoulli_(kept)
        return input * (mask / kept if kept else mask)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"
