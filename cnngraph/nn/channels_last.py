"""Conversion of a network's input to the channels_last memory format."""

from __future__ import annotations

import torch
from torch import Tensor

from cnngraph.nn.watched import is_transformed


def channels_last(input: Tensor) -> Tensor:
    """Converts `(N, C, H, W)` to `torch.channels_last`; returns tensors of other ranks unchanged.

    While a network is traced or transformed, it returns every tensor unchanged: `vmap` has no rule
    for this format.
    """
    if is_transformed() or input.dim() != 4:
        return input
    return input.contiguous(memory_format=torch.channels_last)
