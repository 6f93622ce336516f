"""A small network that most fused operators take part in, and its training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cnngraph

SPEC = """\
cnngraph: 1
name: small
input: [3, 16, 16]
blocks:
  unit:
    params: {channels: ~}
    body:
      - conv2d: {name: conv, out_channels: "${channels}", kernel_size: 3, padding: 1, bias: false}
      - batch_norm: {name: bn}
      - relu
graph:
  - unit: {name: stem, channels: 8}
  - max_pool2d: {kernel_size: 3, stride: 2, padding: 1}
  - residual: {name: block, body: [unit: {name: a, channels: 8}, unit: {name: b, channels: 8}]}
  - dense: {name: dense, layers: 2, body: [unit: {name: "layer${i}", channels: 4}]}
  - parallel: {name: mixed, left: {unit: {channels: 8}}, right: {unit: {channels: 8}}}
  - aux: {name: side, body: [global_avg_pool2d, flatten, linear: {name: fc, out_features: 10}]}
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 10}
"""


class Training:
    """Steps on random images whose class is the brightest of ten patches."""

    def __init__(self, backend: Any = "fused", seed: int = 0, batch_size: int = 16) -> None:
        self.images = torch.Generator().manual_seed(seed)
        self.batch_size = batch_size
        self.network: nn.Module = cnngraph.compile(SPEC, backend=backend)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.05, momentum=0.9)

    def batch(self) -> tuple[Tensor, Tensor]:
        x = torch.randn(self.batch_size, 3, 16, 16, generator=self.images)
        patches = x[:, 0, :10].mean(2)
        return x, patches.argmax(1)

    def step(self) -> float:
        """The loss before one step."""
        x, classes = self.batch()
        results = self.network(x)
        loss = cross_entropy(results["logits"], classes)
        loss = loss + 0.3 * cross_entropy(results["side"], classes)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()
