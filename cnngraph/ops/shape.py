"""Ops that rearrange, resize or pad a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge

from cnngraph.ops.fields import Count, Number, Pair, ScalePair, Sides
from cnngraph.ops.op import Op, ShapePreserving, new_module, require_map, too_small
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, NOTHING, UNCHANGED, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn


@register
class Identity(ShapePreserving):
    """The value itself, `torch.nn.Identity`."""

    kind = "identity"
    module_class = "torch.nn.Identity"
    saved = UNCHANGED


@register
class Flatten(Op):
    """A map as a flat vector of channels * height * width features, `torch.nn.Flatten`."""

    kind = "flatten"
    module_class = "torch.nn.Flatten"
    sets_channels = True
    saved = UNCHANGED

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return TensorShape((inputs[0].elements,))


@register
class Upsample(Op):
    """Resizing by `scale_factor` (below 1 to shrink) or to `size`, `torch.nn.Upsample`."""

    kind = "upsample"
    module_class = "torch.nn.Upsample"
    main = "scale_factor"
    saved = NOTHING

    scale_factor: ScalePair | None = None
    size: Pair | None = None
    mode: Literal["nearest", "nearest-exact", "bilinear", "bicubic"] = "nearest"
    align_corners: bool | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        if self.align_corners is not None and self.mode.startswith("nearest"):
            raise ShapeError(
                f"`align_corners` has no meaning for the mode {self.mode}",
                code="E204",
                help="leave it out, or use the mode `bilinear` or `bicubic`",
            )
        if (self.size is None) == (self.scale_factor is None):
            raise ShapeError(
                "upsample needs either `scale_factor` or `size`, but has "
                f"{'neither' if self.size is None else 'both'}",
                code="E204",
                help="`scale_factor: 2` doubles height and width; "
                "`size: [56, 56]` is the size itself",
            )
        if self.scale_factor is None:
            return TensorShape((shape.channels, *(self.size or ())))
        size = [
            int(own * factor) for own, factor in zip(shape.spatial, self.scale_factor, strict=True)
        ]
        if min(size) < 1:
            raise ShapeError(
                f"the input of upsample is too small: nothing is left of {shape}",
                code="E202",
                help="use a larger `input`, a larger `scale_factor`, or `size`",
            )
        return TensorShape((shape.channels, *size))


@register
class Pad(Op):
    """Padding of each side, `torch.nn.functional.pad`; negative ones crop (mode constant only)."""

    kind = "pad"
    main = "padding"

    padding: Sides
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: Number = 0.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        if self.mode != "constant" and (self.value or min(self.padding) < 0):
            what = "`value`" if self.value else "a negative padding"
            raise ShapeError(
                f"{what} has no meaning for the mode {self.mode}",
                code="E204",
                help="only the mode `constant` has it",
            )
        left, right, top, bottom = self.padding
        size: list[int] = []
        for own, sides in zip(shape.spatial, ((top, bottom), (left, right)), strict=True):
            if self.mode == "reflect" and max(sides) >= own:
                raise too_small(self, shape, f"reflecting {max(sides)} rows or columns")
            if self.mode == "circular" and max(sides) > own:
                raise too_small(self, shape, f"wrapping {max(sides)} rows or columns")
            size.append(own + sum(sides))
            cropped = -sum(min(side, 0) for side in sides)
            if cropped > own or size[-1] < 1:
                raise ShapeError(
                    f"the input of pad is too small: {cropped} rows or columns "
                    f"cannot be cropped from {shape}",
                    code="E202",
                    help="use a larger `input`, fewer strides before it, or crop less",
                )
        return TensorShape((shape.channels, *size))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return INPUT if self.mode in ("reflect", "replicate") else NOTHING

    def module(self, *inputs: TensorShape) -> nn.Module:
        classes = {
            "constant": "ConstantPad2d",
            "reflect": "ReflectionPad2d",
            "replicate": "ReplicationPad2d",
            "circular": "CircularPad2d",
        }
        value = {"value": self.value} if self.mode == "constant" else {}
        return new_module(f"torch.nn.{classes[self.mode]}", {"padding": self.padding, **value})


def _indivisible(op: Op, shape: TensorShape, what: str, divisor: int) -> ShapeError:
    return ShapeError(
        f"{op.kind} needs {what} that {divisor} divides, but its input is {shape}",
        code="E204",
        help=f"make {what} of its input a multiple of {divisor}",
    )


@register
class ChannelShuffle(Op):
    """Interleaves the channels of `groups` groups, as in ShuffleNet, `torch.nn.ChannelShuffle`."""

    kind = "channel_shuffle"
    module_class = "torch.nn.ChannelShuffle"
    main = "groups"
    saved = NOTHING

    groups: Count

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        if shape.channels % self.groups:
            raise _indivisible(self, shape, "a number of channels", self.groups)
        return shape


@register
class Chunk(Op):
    """Part `index` of `chunks` equal parts of the channels, `torch.chunk`."""

    kind = "chunk"
    module_class = "cnngraph.nn.Chunk"
    sets_channels = True
    saved = Saved(view=True)

    chunks: Count
    index: Annotated[int, Ge(0)]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % self.chunks:
            raise _indivisible(self, shape, "a number of channels", self.chunks)
        if self.index >= self.chunks:
            raise ShapeError(
                f"chunk has the `index` {self.index}, "
                f"but {self.chunks} chunks are numbered 0 to {self.chunks - 1}",
                code="E204",
                help="the first chunk has the `index` 0",
            )
        return TensorShape((shape.channels // self.chunks, *shape.spatial))


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
            raise _indivisible(self, shape, "a number of channels", factor**2)
        return TensorShape((shape.channels // factor**2, shape[1] * factor, shape[2] * factor))


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
            raise _indivisible(self, shape, "a height and width", factor)
        return TensorShape((shape.channels * factor**2, shape[1] // factor, shape[2] // factor))
