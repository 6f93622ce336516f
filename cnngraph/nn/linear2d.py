"""A linear layer over the channels at each position of a map."""

from __future__ import annotations

from torch import Tensor, nn


class Linear2d(nn.Linear):
    """`torch.nn.Linear` over the channels: `(N, C, H, W)` to `(N, out_features, H, W)`.

    Source: Liu et al., A ConvNet for the 2020s, https://arxiv.org/abs/2201.03545.
    """

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)
