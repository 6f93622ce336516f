"""Convolutions for inference, with weights that are transformed or packed once.

The operators are in csrc/conv2d, where choice.cpp decides which of them is the fastest.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from cnngraph import kernels


def winograd_weight(weight: Tensor, tile: int) -> Tensor:
    """The transformed weight of a 3x3 convolution, for `winograd_conv2d`. Not differentiable.

    A `tile` has 2x2 or 4x4 results.
    """
    return torch.ops.cnngraph.winograd_weight(weight, tile)


def winograd_conv2d(
    input: Tensor,
    transformed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    padding: Sequence[int],
    residual: Tensor | None = None,
    low: float = -inf,
    high: float = inf,
) -> Tensor:
    """clamp(conv2d(input) + residual, low, high) on the CPU, with a 3x3 kernel and stride 1.

    Not differentiable. `channels` are those of the result, `padding` is at most 2, and the residual
    has the result's shape.
    """
    return torch.ops.cnngraph.winograd_conv2d.default(
        input, transformed_weight, channels, bias, padding, residual, low, high
    )


def pointwise_weight(weight: Tensor) -> Tensor:
    """The packed weight of a 1x1 convolution, for `pointwise_conv2d`. Not differentiable."""
    return torch.ops.cnngraph.pointwise_weight(weight)


def pointwise_conv2d(
    input: Tensor,
    packed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    residual: Tensor | None = None,
    low: float = -inf,
    high: float = inf,
) -> Tensor:
    """clamp(conv2d(input) + residual, low, high) on the CPU in float32, with a 1x1 kernel.

    Not differentiable. `channels` are those of the result, and the residual has its shape.
    """
    return torch.ops.cnngraph.pointwise_conv2d.default(
        input, packed_weight, channels, bias, residual, low, high
    )


def batch_norm_relu_pointwise_conv2d(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    packed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    low: float = -inf,
    high: float = inf,
) -> Tensor:
    """`pointwise_conv2d` of relu(batch norm of the input), which is never stored.

    Not differentiable. The batch norm is by constant statistics of the input's channels. The input
    may be a slice of the channels of channels_last maps.
    """
    return torch.ops.cnngraph.batch_norm_relu_pointwise_conv2d.default(
        input, mean, var, gamma, beta, eps, packed_weight, channels, bias, low, high
    )


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    residual: Tensor | None = None,
    low: float = -inf,
    high: float = inf,
) -> Tensor:
    """clamp(conv2d(input) + residual, low, high) on the CPU in float32, channel by channel.

    Not differentiable. `weight` is `(kernel height, kernel width, C)`, and the residual has the
    result's shape.
    """
    return torch.ops.cnngraph.depthwise_conv2d.default(
        input, weight, bias, stride, padding, dilation, residual, low, high
    )


def constant_kernel(input: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> str:
    """The name of the fastest kernel for a constant weight: see csrc/conv2d/choice.h.

    `geometry` is (padding, stride, dilation, groups).
    """
    if (
        kernels.extension is None
        or input.device.type != "cpu"
        or input.dtype is not torch.float32
        or input.shape[1] != weight.shape[1] * geometry[3]
        or not input.is_contiguous(memory_format=torch.channels_last)
    ):
        return "library"
    padding, stride, dilation, groups = geometry
    sizes = list(input.shape), list(weight.shape)
    return kernels.extension.conv_kernel(
        "constant_output", *sizes, stride, padding, dilation, groups
    )


def _fake_winograd_weight(weight: Tensor, tile: int) -> Tensor:
    channels, depth = weight.shape[:2]
    return weight.new_empty(
        (tile + 2) ** 2 * (depth * -(-channels // 32) * 32 + 16), dtype=torch.float32
    )


def _fake_winograd_conv2d(
    input: Tensor,
    transformed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    padding: Sequence[int],
    *others: Any,
) -> Tensor:
    height, width = (size + 2 * pad - 2 for size, pad in zip(input.shape[2:], padding, strict=True))
    result = input.new_empty(input.shape[0], channels, height, width)
    return result.to(memory_format=torch.channels_last)


def _fake_pointwise_weight(weight: Tensor) -> Tensor:
    channels, depth = weight.shape[:2]
    return weight.new_empty(depth * (-(-channels // 32) * 32))


def _fake_pointwise_conv2d(
    input: Tensor, packed_weight: Tensor, channels: int, *others: Any
) -> Tensor:
    result = input.new_empty(input.shape[0], channels, *input.shape[2:])
    return result.to(memory_format=torch.channels_last)


def _fake_batch_norm_relu_pointwise_conv2d(
    input: Tensor,
    mean: Tensor,
    var: Tensor,
    gamma: Tensor | None,
    beta: Tensor | None,
    eps: float,
    packed_weight: Tensor,
    channels: int,
    *others: Any,
) -> Tensor:
    return _fake_pointwise_conv2d(input, packed_weight, channels)


def _fake_depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    *others: Any,
) -> Tensor:
    axes = zip(input.shape[2:], weight.shape, stride, padding, dilation, strict=False)
    size = [
        (length + 2 * pad - spread * (taps - 1) - 1) // step + 1
        for length, taps, step, pad, spread in axes
    ]
    result = input.new_empty(*input.shape[:2], *size)
    return result.to(memory_format=torch.channels_last)


def _flops_winograd(
    input: Any, transformed_weight: Any, channels: int, *others: Any, out_shape: Any, **more: Any
) -> int:
    return conv_flop_count(input, [channels, input[1], 3, 3], out_shape)


def _flops_pointwise(
    input: Any, packed_weight: Any, channels: int, *others: Any, out_shape: Any, **more: Any
) -> int:
    return conv_flop_count(input, [channels, input[1], 1, 1], out_shape)


def _flops_normalised(
    input: Any,
    mean: Any,
    var: Any,
    gamma: Any,
    beta: Any,
    eps: float,
    packed_weight: Any,
    channels: int,
    *others: Any,
    out_shape: Any,
    **more: Any,
) -> int:
    return conv_flop_count(input, [channels, input[1], 1, 1], out_shape)


def _flops_depthwise(input: Any, weight: Any, *others: Any, out_shape: Any, **more: Any) -> int:
    return conv_flop_count(input, [input[1], 1, *weight[:2]], out_shape)


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::winograd_weight", _fake_winograd_weight)
    torch.library.register_fake("cnngraph::winograd_conv2d", _fake_winograd_conv2d)
    torch.library.register_fake("cnngraph::pointwise_weight", _fake_pointwise_weight)
    torch.library.register_fake("cnngraph::pointwise_conv2d", _fake_pointwise_conv2d)
    torch.library.register_fake(
        "cnngraph::batch_norm_relu_pointwise_conv2d", _fake_batch_norm_relu_pointwise_conv2d
    )
    torch.library.register_fake("cnngraph::depthwise_conv2d", _fake_depthwise_conv2d)
    register_flop_formula(torch.ops.cnngraph.winograd_conv2d)(_flops_winograd)
    register_flop_formula(torch.ops.cnngraph.pointwise_conv2d)(_flops_pointwise)
    register_flop_formula(torch.ops.cnngraph.batch_norm_relu_pointwise_conv2d)(_flops_normalised)
    register_flop_formula(torch.ops.cnngraph.depthwise_conv2d)(_flops_depthwise)
