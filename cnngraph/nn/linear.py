"""A linear layer over few rows that trains faster than torch's, run over the ordinary module."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.watched import is_transformed, is_watched


def linear(layer: nn.Module, input: Tensor) -> Tensor:
    """layer(input), computed as a convolution of maps of one pixel. Whatever else a module does, it does."""
    if (
        type(layer) is not nn.Linear
        or is_watched(layer)
        or _has_any_global_hook()
        or is_transformed()
        or not kernel.runs(input, layer.weight)
        or input.shape[1] != layer.in_features
    ):
        return layer(input)
    maps, weight = (matrix.reshape(*matrix.shape, 1, 1) for matrix in (input, layer.weight))
    return kernel.conv2d(maps, weight, layer.bias, (1, 1), (0, 0), (1, 1), 1).flatten(1)
