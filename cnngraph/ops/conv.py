"""Convolutions over channels x height x width."""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from cnngraph.ops.fields import Count, PaddingPair, Pair, padding_pair
from cnngraph.ops.op import Op, require_map, too_small, window_size
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape


def _conv_padding(value: Any) -> tuple[int, int] | str:
    if value in ("same", "valid"):
        return value
    try:
        return padding_pair(value)
    except ValueError as error:
        raise ValueError(f"{error}, or `same` or `valid`") from None


ConvPadding = Annotated[
    tuple[int, int] | Literal["same", "valid"],
    PlainValidator(_conv_padding),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["same", "valid"]},
                {"type": "integer", "minimum": 0},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "minItems": 2,
                    "maxItems": 2,
                },
            ]
        }
    ),
]


def _require_groups(op: Conv2d | ConvTranspose2d, channels: int) -> None:
    depthwise = "; for a depthwise convolution write `groups: ${in_channels}`" * (op.groups > 1)
    for count, name in ((channels, "input"), (op.out_channels, "output")):
        if count % op.groups:
            raise ShapeError(
                f"{op.kind} has {op.groups} groups, "
                f"but its {count} {name} channels cannot be split into them evenly",
                code="E204",
                help="make both numbers of channels multiples of `groups`" + depthwise,
            )


@register
class Conv2d(Op):
    """2-D convolution, `torch.nn.Conv2d`; the input's channels are inferred."""

    kind = "conv2d"
    module_class = "torch.nn.Conv2d"
    channels_argument = "in_channels"
    sets_channels = True

    out_channels: Count
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: ConvPadding = (0, 0)
    dilation: Pair = (1, 1)
    groups: Count = 1
    bias: bool = True
    padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros"

    def _padding(self, axis: int) -> tuple[int, int]:
        if self.padding == "valid":
            return 0, 0
        if self.padding == "same":
            total = self.dilation[axis] * (self.kernel_size[axis] - 1)
            return total // 2, total - total // 2
        return self.padding[axis], self.padding[axis]  # pyright: ignore[reportReturnType]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        _require_groups(self, shape.channels)
        if self.padding == "same" and self.stride != (1, 1):
            raise ShapeError(
                "`padding: same` is not defined for a stride other than 1",
                code="E204",
                help="write the padding as a number: "
                "`kernel_size // 2` halves the size with stride 2",
            )
        size: list[int] = []
        for axis in (0, 1):
            padding = self._padding(axis)
            if self.padding_mode == "reflect" and max(padding) >= shape[1 + axis]:
                raise too_small(self, shape, f"reflecting {max(padding)} rows or columns")
            if self.padding_mode == "circular" and max(padding) > shape[1 + axis]:
                raise too_small(self, shape, f"wrapping {max(padding)} rows or columns")
            kernel, stride, dilation = (
                self.kernel_size[axis],
                self.stride[axis],
                self.dilation[axis],
            )
            size.append(window_size(shape[1 + axis], kernel, stride, padding, dilation))
        if min(size) < 1:
            raise too_small(self, shape, f"a {'x'.join(map(str, self.kernel_size))} window")
        return TensorShape((self.out_channels, *size))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        weight = (self.out_channels, inputs[0].channels // self.groups, *self.kernel_size)
        return {"weight": weight} | ({"bias": (self.out_channels,)} if self.bias else {})

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        height, width = self.kernel_size
        return output.elements * (inputs[0].channels // self.groups) * height * width

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        weight = prod(self.parameters(*inputs)["weight"]) * batch.accumulated
        # The weight's gradient in oneDNN's layout and in its own.
        relaid = 0 if self.kernel_size == (1, 1) else 2 * weight
        if self.padding_mode == "zeros":
            return Saved(inputs=(0,), backward=relaid)
        height, width = (
            size + sum(self._padding(axis)) for axis, size in enumerate(inputs[0].spatial)
        )
        padded = batch.bytes_of(TensorShape((inputs[0].channels, height, width)))
        own = () if self.padding_mode == "circular" else (0,)
        return Saved(inputs=own, extra=padded, backward=relaid + padded)


@register
class ConvTranspose2d(Op):
    """Transposed 2-D convolution, `torch.nn.ConvTranspose2d`; the input's channels are inferred."""

    kind = "conv_transpose2d"
    module_class = "torch.nn.ConvTranspose2d"
    channels_argument = "in_channels"
    sets_channels = True
    saved = INPUT

    out_channels: Count
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: PaddingPair = (0, 0)
    output_padding: PaddingPair = (0, 0)
    groups: Count = 1
    bias: bool = True
    dilation: Pair = (1, 1)

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        _require_groups(self, shape.channels)
        size: list[int] = []
        for axis in (0, 1):
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
            size.append((shape[1 + axis] - 1) * stride + reach + extra)
        if min(size) < 1:
            raise too_small(self, shape, f"a padding of {max(self.padding)}")
        return TensorShape((self.out_channels, *size))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        weight = (inputs[0].channels, self.out_channels // self.groups, *self.kernel_size)
        return {"weight": weight} | ({"bias": (self.out_channels,)} if self.bias else {})

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        height, width = self.kernel_size
        return inputs[0].elements * (self.out_channels // self.groups) * height * width
