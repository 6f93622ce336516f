"""A convolution with faster kernels than torch's, computed with an ordinary module's weights."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.same import Conv2dSame
from cnngraph.nn.watched import is_traced, is_transformed, is_watched

Geometry = tuple[Any, tuple[int, ...], tuple[int, ...], int]
"""Padding, stride, dilation and groups."""


def conv2d(conv: nn.Module, input: Tensor) -> Tensor:
    """Computes conv(input) and its gradients with the fastest of several kernels.

    `input` is `(N, C, H, W)` or `(C, H, W)`. If the operator cannot replace the module exactly, the
    module runs. Raises the module's errors.
    """
    if (
        not isinstance(conv, nn.Conv2d)
        or type(conv) not in (nn.Conv2d, Conv2dSame)
        or is_watched(conv)
        or conv.padding_mode != "zeros"
        or _has_any_global_hook()
        or is_traced()
        or (geometry := geometry_of(conv)) is None
    ):
        return conv(input)
    padding, stride, dilation, groups = geometry
    same = type(conv) is Conv2dSame
    if same:
        input = conv.padded(input)
    arguments = (input, conv.weight, conv.bias, stride, padding, dilation, groups)
    if kernel.is_unsafe(input, conv.weight, stride, padding, dilation):
        return kernel.safe_conv2d(*arguments)
    if kernel.runs(input, conv.weight) and not is_transformed():
        return kernel.conv2d(*arguments)
    return functional.conv2d(*arguments) if same else conv(input)


def geometry_of(conv: nn.Conv2d) -> Geometry | None:
    """Padding, stride, dilation and groups; None if the padding of two opposite sides differs."""
    if conv.padding == "valid":
        padding = (0, 0)
    elif conv.padding == "same":
        spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        if any(span % 2 for span in spans):
            return None
        padding = tuple(span // 2 for span in spans)
    else:
        padding = conv.padding
    return padding, conv.stride, conv.dilation, conv.groups
