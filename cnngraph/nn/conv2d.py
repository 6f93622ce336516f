"""A convolution that trains faster than torch's, run over the ordinary module."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.batch_norm_act import is_transformed, is_watched

Geometry = tuple[Any, tuple[int, ...], tuple[int, ...], int]


def conv2d(conv: nn.Module, input: Tensor) -> Tensor:
    """conv(input), computed by the fastest of several ways, as its gradients are. Whatever else a module does, it does."""
    if type(conv) is not nn.Conv2d or is_watched(conv):
        return conv(input)
    strided = _onednn_overruns(conv, input)
    pixels = input[:, :, :: conv.stride[0], :: conv.stride[1]] if strided else input
    runs = kernel.runs(pixels, conv.weight)
    if (
        not (strided or runs)
        or conv.padding_mode != "zeros"
        or _has_any_global_hook()
        or (geometry := geometry_of(conv)) is None
    ):
        return conv(input)
    padding, stride, dilation, groups = geometry
    if runs and not is_transformed():
        return kernel.conv2d(pixels, conv.weight, conv.bias, (1, 1) if strided else stride, padding, dilation, groups)
    return F.conv2d(pixels, conv.weight, conv.bias) if strided else conv(input)


def _onednn_overruns(conv: nn.Conv2d, input: Tensor) -> bool:
    """Whether oneDNN's weight gradient writes past its memory in channels_last: a 1x1 kernel's that strides over few channels.

    As many as a vector has, or more, are safe, and so are the same pixels without a stride.
    Source: https://github.com/uxlfoundation/oneDNN/issues/6035.
    """
    return (
        conv.kernel_size == (1, 1)
        and conv.stride != (1, 1)
        and conv.padding in ((0, 0), "valid")
        and conv.groups == 1
        and conv.in_channels < 16
        and input.dim() == 4
        and input.device.type == "cpu"
    )


def geometry_of(conv: nn.Conv2d) -> Geometry | None:
    """Padding, stride, dilation and groups; None where the padding is not the same on both sides."""
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
