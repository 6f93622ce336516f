"""A linear layer with faster kernels than torch's for few rows."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.watched import is_transformed, is_watched


def linear(layer: nn.Module, input: Tensor) -> Tensor:
    """Computes layer(input) as a convolution of maps of one pixel.

    `input` is `(N, in_features)`, and the result `(N, out_features)`. If the operator cannot
    replace the module exactly, the module runs. Raises the module's errors.
    """
    bias: Tensor | None = getattr(layer, "bias", None)
    if (
        type(layer) is not nn.Linear
        or is_watched(layer)
        or _has_any_global_hook()
        or is_transformed()
        or not kernel.runs(input, layer.weight)
        or input.shape[1:] != layer.weight.shape[1:]
        or (bias is not None and bias.shape != layer.weight.shape[:1])  # torch expands it
    ):
        return layer(input)
    maps, weight = (matrix.reshape(*matrix.shape, 1, 1) for matrix in (input, layer.weight))
    return kernel.conv2d(maps, weight, bias, (1, 1), (0, 0), (1, 1), 1).flatten(1)
