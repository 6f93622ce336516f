"""Layer norm over the channels at each position of a map."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class LayerNorm2d(nn.LayerNorm):
    """`torch.nn.LayerNorm` over the channels at each position of `(N, C, H, W)`.

    Source: Liu et al., A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545.
    """

    def forward(self, input: Tensor) -> Tensor:
        last = input.movedim(1, -1)
        normalized = functional.layer_norm(
            last, self.normalized_shape, self.weight, self.bias, self.eps
        )
        return normalized.movedim(-1, 1)
