"""A convolution that computes its result and gradients by the fastest of several implementations.

The operators, their autograd and their autocast are in csrc/conv2d.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
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
    """`torch.nn.functional.conv2d` of (N, C, H, W) up to rounding, where `runs`."""
    return torch.ops.cnngraph.conv2d.default(input, weight, bias, stride, padding, dilation, groups)


LEAST_MACS = 10_000_000
"""Smaller float32 convolutions gain less than the calls of the operator cost."""


def runs(input: Tensor, weight: Tensor) -> bool:
    """Whether the compiled operator supports these and may be faster than torch's function.

    For a linear layer, both are matrices.
    """
    if (
        input.dtype is torch.float32
        and not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
        and (
            input.dim() < 2 or input.numel() * weight.numel() < LEAST_MACS * max(1, input.shape[1])
        )
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


def is_unsafe(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether torch's convolution on the CPU may crash, hang or corrupt memory for these.

    `input` is (N, C, H, W). See `safe_conv2d`, which computes these convolutions.
    """
    return _strides_few_channels(input, weight, stride) or _reads_only_padding(
        input, weight, stride, padding, dilation
    )


def safe_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """`torch.nn.functional.conv2d` of (N, C, H, W), without two faults of oneDNN in channels_last.

    - The weight gradient of a strided 1x1 kernel over fewer channels (per group) than a vector has
      writes past its memory (https://github.com/uxlfoundation/oneDNN/issues/6035). The same pixels
      are read with stride 1 instead.
    - With a bias, the forward segfaults if no window of the convolution reaches a column of the
      map, as for `[k, 1]` kernels with stride 2 and padding 1 over maps of width 1. The bias is
      added to the result instead.

    Equal to torch's function for any other convolution.
    """
    geometry = (stride, padding, dilation, groups)
    if _strides_few_channels(input, weight, stride):
        vertical, horizontal = padding
        if vertical or horizontal:
            input = functional.pad(input, (horizontal, horizontal, vertical, vertical))
        pixels = input[:, :, :: stride[0], :: stride[1]]
        return functional.conv2d(pixels, weight, bias, groups=groups)
    if bias is not None and _reads_only_padding(input, weight, stride, padding, dilation):
        return functional.conv2d(input, weight, None, *geometry) + bias.view(-1, 1, 1)
    return functional.conv2d(input, weight, bias, *geometry)


def _strides_few_channels(input: Tensor, weight: Tensor, stride: Sequence[int]) -> bool:
    return (
        weight.shape[2:] == (1, 1)
        and tuple(stride) != (1, 1)
        and weight.shape[1] < 16
        and input.dim() == 4
        and input.device.type == "cpu"
    )


def _reads_only_padding(
    input: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> bool:
    """Whether no window reaches a pixel of the map, along either axis.

    A window does if the map is at least as large as the stride and the dilation.
    """
    if input.dim() != 4 or input.device.type != "cpu":
        return False
    height, width = input.shape[2:]
    if height >= max(stride[0], dilation[0]) and width >= max(stride[1], dilation[1]):
        return False
    axes = zip(input.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    for size, kernel, step, pad, spread in axes:
        is_known = isinstance(size, int)  # pyright: ignore[reportUnnecessaryIsInstance]  # not a SymInt
        if pad == 0 or not is_known or size >= max(step, spread):
            continue
        starts = range(-pad, size + pad - spread * (kernel - 1), step)
        taps = range(0, spread * kernel, spread)
        if not any(0 <= start + tap < size for start in starts for tap in taps):
            return True
    return False


def _fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return torch.ops.aten.convolution(
        input, weight, bias, stride, padding, dilation, False, [0, 0], groups
    )


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
        torch.empty_like(of) if wanted else input.new_empty(0)
        for of, wanted in zip(given, output_mask, strict=True)
    )
    return dinput, dweight, dbias


def _flops(
    input: Any, weight: Any, bias: Any, *geometry: Any, out_shape: Any, **others: Any
) -> int:
    return conv_flop_count(input, weight, out_shape)


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
    register_flop_formula(torch.ops.cnngraph.conv2d)(_flops)
    register_flop_formula(torch.ops.cnngraph.conv2d_backward)(_flops_backward)
