"""Pooling over height and width."""

from __future__ import annotations

from typing import Any

from cnngraph.ops.fields import Count, OutputSize, PaddingPair, Pair
from cnngraph.ops.op import Op, require_map, too_small, window_size
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, NOTHING, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape


def _pooled(
    op: MaxPool2d | AvgPool2d, shape: TensorShape, dilation: tuple[int, int]
) -> TensorShape:
    """The output shape of pooling with a sliding window."""
    require_map(op, shape)
    stride = op.stride or op.kernel_size
    size: list[int] = []
    for axis in (0, 1):
        kernel, padding = op.kernel_size[axis], op.padding[axis]
        if padding > kernel // 2:
            raise ShapeError(
                f"the padding {padding} of {op.kind} is more than half of its kernel size "
                f"{kernel}, so that some windows would hold nothing but padding",
                code="E204",
                help=f"at most {kernel // 2} here; to add more, put a `pad` before it",
            )
        own, sides = shape[1 + axis], (padding, padding)
        size.append(window_size(own, kernel, stride[axis], sides, dilation[axis], op.ceil_mode))
    if min(size) < 1:
        raise too_small(op, shape, f"a {'x'.join(map(str, op.kernel_size))} window")
    for axis in (0, 1):
        padding, apart = op.padding[axis], dilation[axis]
        if _steps_over(shape[1 + axis], size[axis], stride[axis], padding, apart):
            raise ShapeError(
                f"the positions of a {op.kind} window are {apart} apart, but its input {shape} has "
                f"{'height' if axis == 0 else 'width'} {shape[1 + axis]}: "
                "some windows would hold nothing but padding",
                code="E204",
                help="use a smaller `dilation`, or no padding",
            )
    return TensorShape((shape.channels, *size))


def _indices(batch: Batch, output: TensorShape) -> Saved:
    """A max pool keeps its input and the position of each result, in 8 bytes."""
    return Saved(inputs=(0,), extra=8 * batch.size * output.elements)


def _steps_over(size: int, windows: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether a window that starts in the padding has no position inside of the input.

    Its positions are `dilation` apart, so that is only possible if `dilation` exceeds the size.
    """
    starts = range(-padding, 0, stride)[:windows] if dilation > size else ()
    return any(start % dilation >= size for start in starts)


@register
class MaxPool2d(Op):
    """Largest value of each window, `torch.nn.MaxPool2d`; stride is `kernel_size` by default."""

    kind = "max_pool2d"
    module_class = "torch.nn.MaxPool2d"
    main = "kernel_size"

    kernel_size: Pair
    stride: Pair | None = None
    padding: PaddingPair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return _pooled(self, inputs[0], self.dilation)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return _indices(batch, output)


@register
class AvgPool2d(Op):
    """Mean of each window, `torch.nn.AvgPool2d`; stride is `kernel_size` by default."""

    kind = "avg_pool2d"
    module_class = "torch.nn.AvgPool2d"
    main = "kernel_size"
    saved = INPUT

    kernel_size: Pair
    stride: Pair | None = None
    padding: PaddingPair = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: Count | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return _pooled(self, inputs[0], (1, 1))


def _adapted(op: AdaptiveAvgPool2d | AdaptiveMaxPool2d, shape: TensorShape) -> TensorShape:
    require_map(op, shape)
    wanted = zip(op.output_size, shape.spatial, strict=True)
    return TensorShape((shape.channels, *(size or own for size, own in wanted)))


@register
class AdaptiveAvgPool2d(Op):
    """Mean of each of `output_size` windows of any input, `torch.nn.AdaptiveAvgPool2d`."""

    kind = "adaptive_avg_pool2d"
    module_class = "torch.nn.AdaptiveAvgPool2d"
    main = "output_size"
    saved = INPUT

    output_size: OutputSize

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return _adapted(self, inputs[0])


@register
class AdaptiveMaxPool2d(Op):
    """Largest value of each of `output_size` windows of any input, `torch.nn.AdaptiveMaxPool2d`."""

    kind = "adaptive_max_pool2d"
    module_class = "torch.nn.AdaptiveMaxPool2d"
    main = "output_size"

    output_size: OutputSize

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return _adapted(self, inputs[0])

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return _indices(batch, output)


class _GlobalPool(Op):
    def infer(self, *inputs: TensorShape) -> TensorShape:
        require_map(self, inputs[0])
        return TensorShape((inputs[0].channels, 1, 1))

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"output_size": 1}


@register
class GlobalAvgPool2d(_GlobalPool):
    """Mean of each channel, with output shape Cx1x1; `flatten` turns it into features."""

    kind = "global_avg_pool2d"
    module_class = "torch.nn.AdaptiveAvgPool2d"
    saved = NOTHING


@register
class GlobalMaxPool2d(_GlobalPool):
    """Largest value of each channel, with output shape Cx1x1; `flatten` turns it into features."""

    kind = "global_max_pool2d"
    module_class = "torch.nn.AdaptiveMaxPool2d"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return _indices(batch, output)
