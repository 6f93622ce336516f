"""The inverse of a max pool, as in SegNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value, value)


class MaxUnpool2d(nn.Module):
    """Puts each value of `input` where a max pool found the largest value of its window.

    Like `torch.nn.MaxUnpool2d`, but the positions are found in `like`, the map that the max pool
    read. The result has the height and width of `like`, and zeros at all other positions.

    Source: Badrinarayanan et al., SegNet, https://arxiv.org/abs/1511.00561.

    Args:
        kernel_size, stride, padding: those of the max pool.
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        self.kernel_size = _pair(kernel_size)
        self.stride = _pair(kernel_size if stride is None else stride)
        self.padding = _pair(padding)

    def forward(self, input: Tensor, like: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding)
        _, indices = functional.max_pool2d(like.detach(), *window, return_indices=True)
        # The function of torch.nn also checks the size, which export cannot decide for any size.
        return torch.ops.aten.max_unpool2d(input, indices, like.shape[2:])

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
