"""The layout that a network's maps have in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from cnngraph.nn.watched import is_traced


def channels_last(input: Tensor) -> Tensor:
    """The same batch of maps with the channels of a pixel side by side in memory; other tensors as they are."""
    if is_traced() or input.dim() != 4:
        return input
    return input.contiguous(memory_format=torch.channels_last)
