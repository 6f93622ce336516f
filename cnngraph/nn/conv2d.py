"""A convolution that trains faster than torch's, run over the ordinary module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from cnngraph.kernels import conv2d as kernel
from cnngraph.nn.batch_norm_act import is_transformed, is_watched

Geometry = tuple[Any, tuple[int, ...], tuple[int, ...], int]


def conv2d(conv: nn.Module, input: Tensor) -> Tensor:
    """conv(input), whose weight gradient is computed by the faster of two ways. Whatever else a module does, it does."""
    if (
        type(conv) is not nn.Conv2d
        or conv.padding_mode != "zeros"
        or is_watched(conv)
        or _has_any_global_hook()
        or not kernel.runs(input, conv.weight)
        or is_transformed()
    ):
        return conv(input)
    geometry = geometry_of(conv)
    if geometry is None:
        return conv(input)
    padding, stride, dilation, groups = geometry
    return kernel.conv2d(input, conv.weight, conv.bias, stride, padding, dilation, groups)


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
