"""Pooling with a sliding window, over maps of one, two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import PlainValidator, WithJsonSchema

from cnngraph.ops.fields import (
    Count,
    PaddingPair,
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


def _pool_padding(count: int) -> Callable[[Any], Sizes | str]:
    numbers = sizes(count, 0)

    def validated(value: Any) -> Sizes | str:
        if value == "same":
            return value
        try:
            return numbers(value)
        except ValueError as error:
            raise ValueError(f"{error}, or `same`") from None

    return validated


def _pool_padding_schema(count: int) -> dict[str, Any]:
    return {"anyOf": [{"enum": ["same"]}, *sizes_schema(count, 0)["anyOf"]]}


_Padding = Sizes | Literal["same"]
PoolPaddingSingle = Annotated[
    _Padding, PlainValidator(_pool_padding(1)), WithJsonSchema(_pool_padding_schema(1))
]
PoolPadding = Annotated[
    _Padding, PlainValidator(_pool_padding(2)), WithJsonSchema(_pool_padding_schema(2))
]
PoolPaddingTriple = Annotated[
    _Padding, PlainValidator(_pool_padding(3)), WithJsonSchema(_pool_padding_schema(3))
]
_AXES = {1: ("length",), 2: ("height", "width"), 3: ("depth", "height", "width")}


def with_indices(batch: Batch, output: TensorShape) -> Saved:
    """A max pool keeps its input and the position of each result, in 8 bytes."""
    return Saved(inputs=(0,), extra=8 * batch.size * output.elements)


def _steps_over(size: int, windows: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether a window that starts in the padding has no position inside of the input.

    Its positions are `dilation` apart, so that is only possible if `dilation` exceeds the size.
    """
    starts = range(-padding, 0, stride)[:windows] if dilation > size else ()
    return any(start % dilation >= size for start in starts)


class _WindowPool(Op):
    """Pooling with a sliding window; stride is `kernel_size` by default."""

    main = "kernel_size"
    rank: ClassVar[int]
    """The number of spatial dimensions."""

    kernel_size: Sizes
    stride: Sizes | None = None
    padding: _Padding
    ceil_mode: bool

    def _dilation(self, axis: int) -> int:
        return 1

    def padding_of(self, shape: TensorShape) -> list[tuple[int, int]]:
        """What is added before and after each axis of an input."""
        stride = self.stride or self.kernel_size
        if self.padding == "same":
            return [
                same_padding(own, self.kernel_size[axis], stride[axis], self._dilation(axis))
                for axis, own in enumerate(shape.spatial)
            ]
        return [(int(padding), int(padding)) for padding in self.padding]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, self.rank)
        stride = self.stride or self.kernel_size
        if self.padding == "same" and self.ceil_mode:
            raise ShapeError(
                "`ceil_mode` has no meaning with `padding: same`, which leaves nothing to round",
                code="E204",
                help="leave it out",
            )
        paddings = self.padding_of(shape)
        for kernel, padding in zip(self.kernel_size, self.padding, strict=False):
            if self.padding != "same" and int(padding) > kernel // 2:
                raise ShapeError(
                    f"the padding {padding} of {self.kind} is more than half of its kernel size "
                    f"{kernel}, so that some windows would hold nothing but padding",
                    code="E204",
                    help=f"at most {kernel // 2} here; to add more, put a `pad` before it",
                )
        size = [
            window_size(
                own,
                self.kernel_size[axis],
                stride[axis],
                paddings[axis],
                self._dilation(axis),
                self.ceil_mode,
            )
            for axis, own in enumerate(shape.spatial)
        ]
        if min(size) < 1:
            raise too_small(self, shape, f"a {'x'.join(map(str, self.kernel_size))} window")
        for axis, own in enumerate(shape.spatial):
            (before, _), apart = paddings[axis], self._dilation(axis)
            if _steps_over(own, size[axis], stride[axis], before, apart):
                raise ShapeError(
                    f"the positions of a {self.kind} window are {apart} apart, but its input "
                    f"{shape} has {_AXES[self.rank][axis]} {own}: "
                    "some windows would hold nothing but padding",
                    code="E204",
                    help="use a smaller `dilation`, or no padding",
                )
        return TensorShape((shape.channels, *size))

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        strides, paddings = self.stride or self.kernel_size, self.padding_of(inputs[0])
        axes = zip(self.kernel_size, strides, paddings, strict=True)
        return tuple(
            window(kernel, stride, before, self._dilation(axis))
            for axis, (kernel, stride, (before, _)) in enumerate(axes)
        )

    def _padded(self, shape: TensorShape) -> TensorShape:
        sizes = zip(shape.spatial, self.padding_of(shape), strict=True)
        return TensorShape((shape.channels, *(own + sum(padding) for own, padding in sizes)))

    def module(self, *inputs: TensorShape) -> nn.Module:
        arguments = self.arguments(*inputs)
        if self.padding != "same":
            return new_module(self.module_class, arguments)
        del arguments["padding"], arguments["ceil_mode"]
        name = str(self.module_class).rpartition(".")[2]
        return new_module(f"cnngraph.nn.{name}Same", arguments)


class _MaxPool(_WindowPool):
    dilation: Sizes
    ceil_mode: bool = False

    def _dilation(self, axis: int) -> int:
        return self.dilation[axis]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        if self.padding != "same":
            return with_indices(batch, output)
        padded = batch.bytes_of(self._padded(inputs[0]))
        return Saved(extra=padded + 8 * batch.size * output.elements, backward=padded)


@register
class MaxPool1d(_MaxPool):
    """Largest value of each window, `torch.nn.MaxPool1d`; stride is `kernel_size` by default."""

    kind = "max_pool1d"
    module_class = "torch.nn.MaxPool1d"
    rank = 1

    kernel_size: Single
    stride: Single | None = None
    padding: PoolPaddingSingle = (0,)
    dilation: Single = (1,)


@register
class MaxPool2d(_MaxPool):
    """Largest value of each window, `torch.nn.MaxPool2d`; stride is `kernel_size` by default."""

    kind = "max_pool2d"
    module_class = "torch.nn.MaxPool2d"
    rank = 2

    kernel_size: Pair
    stride: Pair | None = None
    padding: PoolPadding = (0, 0)
    dilation: Pair = (1, 1)


@register
class MaxPool3d(_MaxPool):
    """Largest value of each window, `torch.nn.MaxPool3d`; stride is `kernel_size` by default."""

    kind = "max_pool3d"
    module_class = "torch.nn.MaxPool3d"
    rank = 3

    kernel_size: Triple
    stride: Triple | None = None
    padding: PoolPaddingTriple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)


class _AvgPool(_WindowPool):
    ceil_mode: bool = False
    count_include_pad: bool = True

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        if self.padding != "same":
            return INPUT
        padded = batch.bytes_of(self._padded(inputs[0]))
        return Saved(extra=padded, backward=padded)


@register
class AvgPool1d(_AvgPool):
    """Mean of each window, `torch.nn.AvgPool1d`; stride is `kernel_size` by default."""

    kind = "avg_pool1d"
    module_class = "torch.nn.AvgPool1d"
    rank = 1

    kernel_size: Single
    stride: Single | None = None
    padding: PoolPaddingSingle = (0,)


@register
class AvgPool2d(_AvgPool):
    """Mean of each window, `torch.nn.AvgPool2d`; stride is `kernel_size` by default."""

    kind = "avg_pool2d"
    module_class = "torch.nn.AvgPool2d"
    rank = 2

    kernel_size: Pair
    stride: Pair | None = None
    padding: PoolPadding = (0, 0)
    divisor_override: Count | None = None


@register
class AvgPool3d(_AvgPool):
    """Mean of each window, `torch.nn.AvgPool3d`; stride is `kernel_size` by default."""

    kind = "avg_pool3d"
    module_class = "torch.nn.AvgPool3d"
    rank = 3

    kernel_size: Triple
    stride: Triple | None = None
    padding: PoolPaddingTriple = (0, 0, 0)
    divisor_override: Count | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        output = super().infer(*inputs)
        spatial = self._padded(inputs[0]).spatial if self.padding == "same" else inputs[0].spatial
        if any(own < kernel for own, kernel in zip(spatial, self.kernel_size, strict=True)):
            window = "x".join(map(str, self.kernel_size))
            raise too_small(self, inputs[0], f"a {window} window")  # torch's rule in 3-D
        return output


@register
class MaxUnpool2d(Op):
    """Puts each value where the largest value of its window was, `torch.nn.MaxUnpool2d` (SegNet).

    `like` is the map that the max pool read; the result has its size, and zeros elsewhere.
    """

    kind = "max_unpool2d"
    module_class = "cnngraph.nn.MaxUnpool2d"
    references = ("like",)

    like: str
    kernel_size: Pair
    stride: Pair | None = None
    padding: PaddingPair = (0, 0)

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape, like = inputs
        require_map(self, shape)
        require_map(self, like)
        pool = MaxPool2d(kernel_size=self.kernel_size, stride=self.stride, padding=self.padding)
        pooled = pool.infer(like)
        if pooled != shape:
            raise ShapeError(
                f"max_unpool2d needs {pooled}, what a max pool makes of `{self.like}`, {like}, "
                f"but its input is {shape}",
                help="name in `like` the map that the max pool read, with the pool's own "
                "`kernel_size`, `stride` and `padding`",
            )
        return like

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        axes = zip(self.kernel_size, self.stride or self.kernel_size, self.padding, strict=True)
        return tuple(transposed_window(*axis) for axis in axes)

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"kernel_size": self.kernel_size, "stride": self.stride, "padding": self.padding}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The position of each value, in 8 bytes."""
        return Saved(extra=8 * batch.size * inputs[0].elements, no_gradient=(1,))
