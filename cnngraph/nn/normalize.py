"""Normalization of the channels with constants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Computes (input - mean) / std for each channel of `(N, C, H, W)`.

    The constants are not part of the `state_dict`. They are set again when the module leaves the
    meta device, for example by `to_empty`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self._constants = tuple(mean), tuple(std)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Normalize:
        was_meta = self.mean.is_meta
        super()._apply(fn, recurse)
        if was_meta and not self.mean.is_meta:
            for buffer, values in zip((self.mean, self.std), self._constants, strict=True):
                buffer.copy_(torch.tensor(values, device="cpu").view(-1, 1, 1))
        return self

    def forward(self, input: Tensor) -> Tensor:
        return (input - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"
