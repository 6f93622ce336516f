"""A convolution that takes the fastest of several ways, as its gradients do: where it runs, and what torch must know of it.

The operators, their autograd and their autocast live in csrc/conv2d.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from cnngraph import kernels


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`torch.nn.functional.conv2d` of (N, C, H, W), the same to within rounding; where `runs` says so."""
    return torch.ops.cnngraph.conv2d.default(input, weight, bias, stride, padding, dilation, groups)


def winograd_weight(weight: Tensor) -> Tensor:
    """The weight of a 3x3 convolution as `winograd_conv2d` takes it. There is no derivative."""
    return torch.ops.cnngraph.winograd_weight(weight)


def winograd_conv2d(
    input: Tensor,
    transformed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    padding: Sequence[int],
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """relu(conv2d(input) + residual), of a 3x3 kernel without stride; float32 on the CPU. There is no derivative."""
    return torch.ops.cnngraph.winograd_conv2d(input, transformed_weight, channels, bias, padding, residual, relu)


LEAST_TILES, LEAST_CHANNELS = 32, 16
"""Of a convolution that gains by Winograd's filtering once its weight is transformed: tiles of 2x2 results, and channels."""


def winograd_pays(input: Tensor, weight: Tensor, geometry: tuple[Any, ...]) -> bool:
    """Whether `winograd_conv2d` takes these, and is the faster way. The geometry is padding, stride, dilation, groups."""
    padding, stride, dilation, groups = geometry
    if kernels.extension is None or input.device.type != "cpu" or input.dtype is not torch.float32:
        return False
    if weight.shape[2:] != (3, 3) or (stride, dilation, groups) != ((1, 1), (1, 1), 1) or max(padding) > 2:
        return False
    rows, columns = ((size + 2 * pad - 1) // 2 for size, pad in zip(input.shape[2:], padding, strict=True))
    return (
        input.shape[1] == weight.shape[1]
        and min(weight.shape[:2]) >= LEAST_CHANNELS
        and input.shape[0] * rows * columns >= LEAST_TILES
        and input.is_contiguous(memory_format=torch.channels_last)
    )


LEAST_MACS = 10_000_000
"""Of a float32 convolution that gains more than the operator's own calls take."""


def runs(input: Tensor, weight: Tensor) -> bool:
    """Whether the compiled operator takes these, and may be the faster one: else torch's own must.

    Of a linear layer both are matrices: maps and kernels of one pixel.
    """
    if (
        input.dtype is torch.float32
        and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
        and (input.dim() < 2 or input.numel() * weight.numel() < LEAST_MACS * max(1, input.shape[1]))
    ):
        return False
    return (
        kernels.extension is not None
        and input.device.type == weight.device.type == "cpu"
        and input.dim() == weight.dim()
        and weight.dtype in (torch.float32, torch.bfloat16)
        and input.dtype in (torch.float32, torch.bfloat16)
        and (input.dtype is weight.dtype or torch.is_autocast_enabled("cpu"))
    )


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return torch.ops.aten.convolution(input, weight, bias, stride, padding, dilation, False, [0, 0], groups)


def _fake_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    given = (input, weight, input.new_empty(weight.shape[0]))
    dinput, dweight, dbias = (
        torch.empty_like(of) if wanted else input.new_empty(0) for of, wanted in zip(given, output_mask, strict=True)
    )
    return dinput, dweight, dbias


def _fake_winograd_weight(weight: Tensor) -> Tensor:
    channels, depth = weight.shape[:2]
    return weight.new_empty(16 * (depth * -(-channels // 32) * 32 + 16), dtype=torch.float32)


def _fake_winograd_conv2d(
    input: Tensor,
    transformed_weight: Tensor,
    channels: int,
    bias: Tensor | None,
    padding: Sequence[int],
    residual: Tensor | None,
    relu: bool,
) -> Tensor:
    height, width = (size + 2 * pad - 2 for size, pad in zip(input.shape[2:], padding, strict=True))
    result = input.new_empty(input.shape[0], channels, height, width)
    return result.to(memory_format=torch.channels_last)


def _flops(input: Any, weight: Any, bias: Any, *geometry: Any, out_shape: Any, **others: Any) -> int:
    return conv_flop_count(input, weight, out_shape)


def _flops_winograd(
    input: Any, transformed_weight: Any, channels: int, *others: Any, out_shape: Any, **more: Any
) -> int:
    return conv_flop_count(input, [channels, input[1], 3, 3], out_shape)


def _flops_backward(
    grad_output: Any,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    output_mask: Sequence[bool],
    **others: Any,
) -> int:
    return sum(output_mask[:2]) * conv_flop_count(input, weight, grad_output)


if kernels.extension is not None:
    torch.library.register_fake("cnngraph::conv2d", _fake)
    torch.library.register_fake("cnngraph::conv2d_backward", _fake_backward)
    torch.library.register_fake("cnngraph::winograd_weight", _fake_winograd_weight)
    torch.library.register_fake("cnngraph::winograd_conv2d", _fake_winograd_conv2d)
    register_flop_formula(torch.ops.cnngraph.conv2d)(_flops)
    register_flop_formula(torch.ops.cnngraph.winograd_conv2d)(_flops_winograd)
    register_flop_formula(torch.ops.cnngraph.conv2d_backward)(_flops_backward)
