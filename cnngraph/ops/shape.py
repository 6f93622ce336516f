"""Ops that arrange the same values in another shape."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Annotated

from annotated_types import Ge

from cnngraph.ops.fields import Count
from cnngraph.ops.op import Op, ShapePreserving, indivisible, require_map
from cnngraph.ops.reach import Reach, transposed_window, window
from cnngraph.ops.registry import register
from cnngraph.ops.saved import NOTHING, UNCHANGED
from cnngraph.shape import ShapeError, TensorShape


@register
class Identity(ShapePreserving):
    """The value itself, `torch.nn.Identity`."""

    kind = "identity"
    module_class = "torch.nn.Identity"
    saved = UNCHANGED


@register
class Flatten(Op):
    """A map as a flat vector of channels * height * width features, `torch.nn.Flatten`.

    With `start_dim: 2` the channels stay: CxHxW becomes Cx(H*W). Dimension 0 is the batch.
    """

    kind = "flatten"
    module_class = "torch.nn.Flatten"
    sets_channels = True
    saved = UNCHANGED

    start_dim: Annotated[int, Ge(1)] = 1

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if self.start_dim > len(shape):
            raise _no_dimension(self, shape, self.start_dim)
        first = self.start_dim - 1
        return TensorShape((*shape[:first], prod(shape[first:])))


@register
class Unflatten(Op):
    """A dimension as several, such as features as a map, `torch.nn.Unflatten`; 0 is the batch."""

    kind = "unflatten"
    module_class = "torch.nn.Unflatten"
    main = "unflattened_size"
    sets_channels = True
    saved = UNCHANGED

    unflattened_size: tuple[Count, ...]
    dim: Annotated[int, Ge(1)] = 1

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if self.dim > len(shape):
            raise _no_dimension(self, shape, self.dim)
        own = shape[self.dim - 1]
        if prod(self.unflattened_size) != own or not self.unflattened_size:
            sizes = " * ".join(map(str, self.unflattened_size))
            raise ShapeError(
                f"unflatten makes {sizes} = {prod(self.unflattened_size)} values of "
                f"dimension {self.dim} of {shape}, which has {own}",
                code="E204",
                help=f"the sizes must multiply to {own}",
            )
        return _checked_rank(
            self, (*shape[: self.dim - 1], *self.unflattened_size, *shape[self.dim :])
        )


@register
class Permute(Op):
    """The dimensions in another order, `torch.permute`; dimension 0, the batch, stays first."""

    kind = "permute"
    module_class = "cnngraph.nn.Permute"
    main = "dims"
    sets_channels = True
    saved = UNCHANGED

    dims: tuple[Annotated[int, Ge(0)], ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if sorted(self.dims) != [*range(len(shape) + 1)] or self.dims[0] != 0:
            order = ", ".join(map(str, range(len(shape) + 1)))
            raise ShapeError(
                f"permute needs each dimension of its input once, but has {[*self.dims]} for "
                f"{shape}",
                code="E204",
                help=f"order the dimensions {order}; the batch, 0, stays first",
            )
        return TensorShape(shape[dim - 1] for dim in self.dims[1:])


@register
class Transpose(Op):
    """Two dimensions exchanged, `torch.transpose`; dimension 0 is the batch, which stays."""

    kind = "transpose"
    module_class = "cnngraph.nn.Transpose"
    sets_channels = True
    saved = UNCHANGED

    dim0: Annotated[int, Ge(1)]
    dim1: Annotated[int, Ge(1)]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        for dim in (self.dim0, self.dim1):
            if dim > len(shape):
                raise _no_dimension(self, shape, dim)
        sizes = [*shape]
        first, second = self.dim0 - 1, self.dim1 - 1
        sizes[first], sizes[second] = sizes[second], sizes[first]
        return TensorShape(sizes)


def _no_dimension(op: Op, shape: TensorShape, dim: int) -> ShapeError:
    return ShapeError(
        f"{op.kind} names the dimension {dim}, but its input {shape} has 1 to {len(shape)}",
        code="E204",
        help="dimension 0 is the batch, 1 the channels",
    )


def _checked_rank(op: Op, sizes: Sequence[int]) -> TensorShape:
    if len(sizes) > _MOST_DIMENSIONS:
        raise ShapeError(
            f"the result of {op.kind} would have {len(sizes)} dimensions",
            code="E204",
            help=f"a value has at most {_MOST_DIMENSIONS}, without the batch",
        )
    return TensorShape(sizes)


_MOST_DIMENSIONS = 4


@register
class PixelShuffle(Op):
    """Channels become pixels: (C*r*r)xHxW to Cx(H*r)x(W*r), `torch.nn.PixelShuffle`."""

    kind = "pixel_shuffle"
    module_class = "torch.nn.PixelShuffle"
    main = "upscale_factor"
    sets_channels = True
    saved = NOTHING

    upscale_factor: Count

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        factor = self.upscale_factor
        if shape.channels % factor**2:
            raise indivisible(self, shape, "a number of channels", factor**2)
        return TensorShape((shape.channels // factor**2, shape[1] * factor, shape[2] * factor))

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        factor = self.upscale_factor
        return (transposed_window(factor, factor),) * 2


@register
class PixelUnshuffle(Op):
    """Pixels become channels: Cx(H*r)x(W*r) to (C*r*r)xHxW, `torch.nn.PixelUnshuffle`."""

    kind = "pixel_unshuffle"
    module_class = "torch.nn.PixelUnshuffle"
    main = "downscale_factor"
    sets_channels = True
    saved = NOTHING

    downscale_factor: Count

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        factor = self.downscale_factor
        if any(size % factor for size in shape.spatial):
            raise indivisible(self, shape, "a height and width", factor)
        return TensorShape((shape.channels * factor**2, shape[1] // factor, shape[2] // factor))

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        factor = self.downscale_factor
        return (window(factor, factor),) * 2
