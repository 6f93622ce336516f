"""Convolutions and pools with TensorFlow's padding `SAME`, which depends on the input's size.

The result has ceil(size / stride) positions along each axis; what is added is the same before and
after the input, or one more after it. Sizes may differ from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def pad_same(
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    value: float = 0.0,
    mode: str = "constant",
) -> Tensor:
    """`input`, `(N, C, ...)`, with the padding that TensorFlow's `SAME` adds to it."""
    sides: list[Any] = []
    windows = zip(kernel_size, stride, dilation, strict=True)
    for axis, (kernel, step, apart) in enumerate(windows, start=2):
        # The last window starts (size - 1) % step positions before the end.
        reach = apart * (kernel - 1)
        total: Any = reach - (input.shape[axis] - 1) % step  # symbolic, if the size is
        if reach < step - 1:
            total = torch.sym_max(0, total)
        sides = [total // 2, total - total // 2, *sides]
    if all(type(side) is int and not side for side in sides):
        return input
    return functional.pad(input, sides, mode, value if mode == "constant" else None)


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


class _ConvSame(nn.modules.conv._ConvNd):
    def padded(self, input: Tensor) -> Tensor:
        """`input` as the convolution, which itself adds no padding, reads it."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return pad_same(input, self.kernel_size, self.stride, self.dilation, mode=mode)

    def forward(self, input: Tensor) -> Tensor:
        convolution: Any = getattr(functional, f"conv{len(self.kernel_size)}d")
        return convolution(
            self.padded(input), self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )


class Conv1dSame(_ConvSame, nn.Conv1d):  # pyright: ignore
    """`torch.nn.Conv1d` with the padding `SAME`, for `(N, C, L)`."""


class Conv2dSame(_ConvSame, nn.Conv2d):  # pyright: ignore
    """`torch.nn.Conv2d` with the padding `SAME`, for `(N, C, H, W)`."""


class Conv3dSame(_ConvSame, nn.Conv3d):  # pyright: ignore
    """`torch.nn.Conv3d` with the padding `SAME`, for `(N, C, D, H, W)`."""


class _MaxPoolSame(nn.Module):
    _rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, dilation: Any = 1) -> None:
        super().__init__()
        self.kernel_size = _tuple(kernel_size, self._rank)
        self.stride = _tuple(kernel_size if stride is None else stride, self._rank)
        self.dilation = _tuple(dilation, self._rank)

    def forward(self, input: Tensor) -> Tensor:
        least = float("-inf")
        padded = pad_same(input, self.kernel_size, self.stride, self.dilation, least)
        pool: Any = getattr(functional, f"max_pool{self._rank}d")
        return pool(padded, self.kernel_size, self.stride, 0, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, dilation={self.dilation}"


class MaxPool1dSame(_MaxPoolSame):
    """`torch.nn.MaxPool1d` with the padding `SAME`, for `(N, C, L)`."""

    _rank = 1


class MaxPool2dSame(_MaxPoolSame):
    """`torch.nn.MaxPool2d` with the padding `SAME`, for `(N, C, H, W)`."""

    _rank = 2


class MaxPool3dSame(_MaxPoolSame):
    """`torch.nn.MaxPool3d` with the padding `SAME`, for `(N, C, D, H, W)`."""

    _rank = 3


class _AvgPoolSame(nn.Module):
    """With `count_include_pad=False`, TensorFlow's rule: the mean of the input's own values."""

    _rank: int

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__()
        self.kernel_size = _tuple(kernel_size, self._rank)
        self.stride = _tuple(kernel_size if stride is None else stride, self._rank)
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        result = self._mean(input)
        if self.count_include_pad or self.divisor_override is not None:
            return result
        return result / self._mean(torch.ones_like(input[:1, :1]))

    def _mean(self, input: Tensor) -> Tensor:
        padded = pad_same(input, self.kernel_size, self.stride, (1,) * self._rank)
        pool: Any = getattr(functional, f"avg_pool{self._rank}d")
        divisor = {} if self._rank == 1 else {"divisor_override": self.divisor_override}
        return pool(padded, self.kernel_size, self.stride, **divisor)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, "
            f"count_include_pad={self.count_include_pad}"
        )


class AvgPool1dSame(_AvgPoolSame):
    """`torch.nn.AvgPool1d` with the padding `SAME`, for `(N, C, L)`."""

    _rank = 1


class AvgPool2dSame(_AvgPoolSame):
    """`torch.nn.AvgPool2d` with the padding `SAME`, for `(N, C, H, W)`."""

    _rank = 2


class AvgPool3dSame(_AvgPoolSame):
    """`torch.nn.AvgPool3d` with the padding `SAME`, for `(N, C, D, H, W)`."""

    _rank = 3
