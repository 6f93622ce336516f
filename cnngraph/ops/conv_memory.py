"""Temporary memory of torch's convolutions on a CPU, as measured with oneDNN on AVX2.

oneDNN computes in layouts of its own, with blocks of 8 channels. Where the weight is not in such a
layout, it is copied into one, and its gradient out of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

_BLOCK = 8
_UNBLOCKED = (1, 3)
"""Numbers of input channels that layouts of the weight have without padding."""


def forward_values(weight: Sequence[int]) -> int:
    """Values of the copy of a weight of `(out, in / groups, *kernel)`. Backward has one too."""
    return prod(weight) if max(weight[2:]) > 1 else 0


def weight_gradient_values(weight: Sequence[int], groups: int, height: int) -> int:
    """Temporary values of the gradient of a weight of `(out, in / groups, *kernel)`.

    Args:
        weight: its shape.
        groups: the groups of the convolution.
        height: the height of the input; 1 for maps of one dimension.
    """
    out_channels, in_channels, *kernel = weight
    values = prod(weight)
    if max(kernel) == 1:
        return 0
    if height < (kernel[0] if len(kernel) > 1 else 1):
        return 4 * values  # a general implementation, in two layouts of its own
    return values + _blocked_values(out_channels // groups, in_channels, groups, kernel)


def _blocked_values(outputs: int, inputs: int, groups: int, kernel: Sequence[int]) -> int:
    """The values of a weight whose channels in each group are filled up to whole blocks."""
    exact = groups * outputs * inputs * prod(kernel)
    if groups > 1 and outputs == inputs == 1 and tuple(kernel) == (3, 3):
        return exact  # depthwise convolutions have blocks of groups
    if groups == 1 and inputs in _UNBLOCKED and outputs % _BLOCK == 0:
        return exact
    return groups * _whole_blocks(outputs) * _whole_blocks(inputs) * prod(kernel)


def _whole_blocks(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK
