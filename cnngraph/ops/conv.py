"""Convolutions over maps of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import PlainValidator, WithJsonSchema

from cnngraph.ops.conv_memory import forward_values, weight_gradient_values
from cnngraph.ops.fields import (
    MOST,
    Count,
    PaddingPair,
    PaddingSingle,
    PaddingTriple,
    Pair,
    Single,
    Sizes,
    Triple,
    sizes,
    sizes_schema,
)
from cnngraph.ops.op import Op, new_module, require_map, same_padding, too_small, window_size
from cnngraph.ops.reach import Reach, transposed_window, window
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn


def _conv_padding(count: int) -> Callable[[Any], Sizes | str]:
    numbers = sizes(count, 0)

    def validated(value: Any) -> Sizes | str:
        if value in ("same", "valid"):
            return value
        try:
            return numbers(value)
        except ValueError as error:
            raise ValueError(f"{error}, or `same` or `valid`") from None

    return validated


def _conv_padding_schema(count: int) -> dict[str, Any]:
    return {"anyOf": [{"enum": ["same", "valid"]}, *sizes_schema(count, 0)["anyOf"]]}


_Padding = Sizes | Literal["same", "valid"]
ConvPaddingSingle = Annotated[
    _Padding, PlainValidator(_conv_padding(1)), WithJsonSchema(_conv_padding_schema(1))
]
ConvPadding = Annotated[
    _Padding, PlainValidator(_conv_padding(2)), WithJsonSchema(_conv_padding_schema(2))
]
ConvPaddingTriple = Annotated[
    _Padding, PlainValidator(_conv_padding(3)), WithJsonSchema(_conv_padding_schema(3))
]


class _Convolution(Op):
    """What convolutions of every rank share."""

    channels_argument = "in_channels"
    sets_channels = True
    rank: ClassVar[int]
    """The number of spatial dimensions."""

    out_channels: Count
    kernel_size: Sizes
    stride: Sizes
    padding: Any
    dilation: Sizes
    groups: Count = 1
    bias: bool = True

    def _require(self, shape: TensorShape) -> None:
        require_map(self, shape, self.rank)
        depthwise = "; for a depthwise convolution write `groups: ${in_channels}`"
        for count, name in ((shape.channels, "input"), (self.out_channels, "output")):
            if count % self.groups:
                raise ShapeError(
                    f"{self.kind} has {self.groups} groups, "
                    f"but its {count} {name} channels cannot be split into them evenly",
                    code="E204",
                    help="make both numbers of channels multiples of `groups`"
                    + depthwise * (self.groups > 1),
                )

    def _weight(self, *channels: int) -> dict[str, tuple[int, ...]]:
        weight = {"weight": (*channels, *self.kernel_size)}
        return weight | ({"bias": (self.out_channels,)} if self.bias else {})


_SMALL = 20_480
"""Values of an image up to which torch's own convolution is faster than oneDNN's."""


class _Conv(_Convolution):
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"

    @property
    def pads_by_size(self) -> bool:
        """Whether the padding depends on the size of the input: `same` with a stride."""
        return self.padding == "same" and max(self.stride) > 1

    def _padding(self, axis: int, size: int) -> tuple[int, int]:
        """What is added before and after an axis of this size."""
        if self.padding == "valid":
            return 0, 0
        if self.padding == "same":
            return same_padding(
                size, self.kernel_size[axis], self.stride[axis], self.dilation[axis]
            )
        return self.padding[axis], self.padding[axis]  # pyright: ignore[reportReturnType]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        self._require(shape)
        size: list[int] = []
        for axis, own in enumerate(shape.spatial):
            padding = self._padding(axis, own)
            if max(padding) > MOST:
                raise ShapeError(
                    f"`same` pads by {max(padding)} rows or columns here",
                    code="E204",
                    help=f"at most {MOST} are supported: use a smaller kernel or dilation",
                )
            if self.padding_mode == "reflect" and max(padding) >= own:
                raise too_small(self, shape, f"reflecting {max(padding)} rows or columns")
            if self.padding_mode == "circular" and max(padding) > own:
                raise too_small(self, shape, f"wrapping {max(padding)} rows or columns")
            kernel, stride, dilation = (
                self.kernel_size[axis],
                self.stride[axis],
                self.dilation[axis],
            )
            size.append(window_size(own, kernel, stride, padding, dilation))
        if min(size) < 1:
            raise too_small(self, shape, f"a {'x'.join(map(str, self.kernel_size))} window")
        return TensorShape((self.out_channels, *size))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self._weight(self.out_channels, inputs[0].channels // self.groups)

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return output.elements * (inputs[0].channels // self.groups) * prod(self.kernel_size)

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        return tuple(
            window(kernel, stride, self._padding(axis, size)[0], dilation)
            for axis, (kernel, stride, dilation, size) in enumerate(
                zip(self.kernel_size, self.stride, self.dilation, inputs[0].spatial, strict=True)
            )
        )

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        weight = self.parameters(*inputs)["weight"]
        height = inputs[0].spatial[0] if self.rank > 1 else 1
        copied = forward_values(weight) * batch.accumulated
        relaid = weight_gradient_values(weight, self.groups, height) * batch.accumulated
        size = (own + sum(self._padding(axis, own)) for axis, own in enumerate(inputs[0].spatial))
        whole = TensorShape((inputs[0].channels, *size))
        columns = self.columns(batch, output, inputs[0])
        forward = columns or copied
        copies = whole != inputs[0] if self.pads_by_size else self.padding_mode != "zeros"
        if not copies:
            weights = max(relaid, columns)
            return Saved(inputs=(0,), forward=forward, backward=forward, weights=weights)
        padded = batch.bytes_of(whole)
        own = (0,) if self.padding_mode in ("reflect", "replicate") else ()
        return Saved(
            inputs=own,
            extra=padded,
            forward=forward,
            backward=forward + padded,
            weights=max(relaid, columns) + padded,
        )

    def columns(self, batch: Batch, output: TensorShape, shape: TensorShape) -> int:
        """The bytes of the windows of a single small image, which torch writes out on a CPU."""
        small = batch.size == 1 and shape.elements <= _SMALL and self.groups == 1
        if not small or self.rank > 2 or max(self.dilation) > 1 or min(self.kernel_size) > 3:
            return 0
        if max(self.kernel_size) == 1:
            return 0
        return batch.bytes_of(output.with_channels(shape.channels * prod(self.kernel_size)))

    def module(self, *inputs: TensorShape) -> nn.Module:
        if not self.pads_by_size:
            return new_module(self.module_class, self.arguments(*inputs))
        arguments = self.arguments(*inputs)
        del arguments["padding"]
        return new_module(f"cnngraph.nn.Conv{self.rank}dSame", arguments)


@register
class Conv1d(_Conv):
    """1-D convolution, `torch.nn.Conv1d`, of channels x length."""

    kind = "conv1d"
    module_class = "torch.nn.Conv1d"
    rank = 1

    kernel_size: Single
    stride: Single = (1,)
    padding: ConvPaddingSingle = (0,)
    dilation: Single = (1,)


@register
class Conv2d(_Conv):
    """2-D convolution, `torch.nn.Conv2d`; the input's channels are inferred."""

    kind = "conv2d"
    module_class = "torch.nn.Conv2d"
    rank = 2

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: ConvPadding = (0, 0)
    dilation: Pair = (1, 1)


@register
class Conv3d(_Conv):
    """3-D convolution, `torch.nn.Conv3d`, of channels x depth x height x width."""

    kind = "conv3d"
    module_class = "torch.nn.Conv3d"
    rank = 3

    kernel_size: Triple
    stride: Triple = (1, 1, 1)
    padding: ConvPaddingTriple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)


CONVOLUTIONS: dict[int, type[Conv1d | Conv2d | Conv3d]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
"""Number of spatial dimensions -> the convolution of maps of that rank."""


class _ConvTranspose(_Convolution):
    saved = INPUT

    padding: Sizes
    output_padding: Sizes

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        self._require(shape)
        size: list[int] = []
        for axis, own in enumerate(shape.spatial):
            stride, dilation, extra = (
                self.stride[axis],
                self.dilation[axis],
                self.output_padding[axis],
            )
            if extra >= max(stride, dilation):
                raise ShapeError(
                    f"`output_padding` {extra} must be smaller than the stride or the dilation",
                    code="E204",
                    help=f"at most {max(stride, dilation) - 1} here",
                )
            reach = dilation * (self.kernel_size[axis] - 1) + 1 - 2 * self.padding[axis]
            size.append((own - 1) * stride + reach + extra)
        if min(size) < 1:
            raise too_small(self, shape, f"a padding of {max(self.padding)}")
        return TensorShape((self.out_channels, *size))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self._weight(inputs[0].channels, self.out_channels // self.groups)

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        axes = zip(self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        return tuple(transposed_window(*axis) for axis in axes)

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return inputs[0].elements * (self.out_channels // self.groups) * prod(self.kernel_size)


@register
class ConvTranspose1d(_ConvTranspose):
    """Transposed 1-D convolution, `torch.nn.ConvTranspose1d`, of channels x length."""

    kind = "conv_transpose1d"
    module_class = "torch.nn.ConvTranspose1d"
    rank = 1

    kernel_size: Single
    stride: Single = (1,)
    padding: PaddingSingle = (0,)
    output_padding: PaddingSingle = (0,)
    dilation: Single = (1,)


@register
class ConvTranspose2d(_ConvTranspose):
    """Transposed 2-D convolution, `torch.nn.ConvTranspose2d`; the input's channels are inferred."""

    kind = "conv_transpose2d"
    module_class = "torch.nn.ConvTranspose2d"
    rank = 2

    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: PaddingPair = (0, 0)
    output_padding: PaddingPair = (0, 0)
    dilation: Pair = (1, 1)


@register
class ConvTranspose3d(_ConvTranspose):
    """Transposed 3-D convolution, `torch.nn.ConvTranspose3d`, of a volume."""

    kind = "conv_transpose3d"
    module_class = "torch.nn.ConvTranspose3d"
    rank = 3

    kernel_size: Triple
    stride: Triple = (1, 1, 1)
    padding: PaddingTriple = (0, 0, 0)
    output_padding: PaddingTriple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
