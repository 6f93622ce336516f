"""Ops that change the height and width of a map: to a factor, to a size, or to that of a map."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from cnngraph.ops.fields import Number, Pair, ScalePair, Sides
from cnngraph.ops.op import Op, new_module, require_map, too_small
from cnngraph.ops.reach import Reach, resized, window
from cnngraph.ops.registry import register
from cnngraph.ops.saved import NOTHING, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn

_TARGETS = ("scale_factor", "size", "like")
LIKE = Saved(no_gradient=(1,))
"""Nothing is kept; of the second input only the size counts."""


def _sized(op: Upsample | Crop, inputs: Sequence[TensorShape]) -> TensorShape:
    """The first input with the height and width of `size`, or of the second input."""
    if op.size is not None:
        return TensorShape((inputs[0].channels, *op.size))
    require_like(op, *inputs)
    return TensorShape((inputs[0].channels, *inputs[1].spatial))


def require_like(op: Op, shape: TensorShape, like: TensorShape) -> None:
    """Raises `ShapeError` unless the value called `like` is a map, as the input is."""
    if len(like) != len(shape):
        raise ShapeError(
            f"`like` of {op.kind} must name a map, but the value is a flat vector of {like}",
            code="E203",
            help="name a value before the `flatten`",
        )


def _sides_to(op: Pad, inputs: Sequence[TensorShape]) -> tuple[int, int, int, int]:
    """The padding of each side that gives the first input the size of the second."""
    shape, like = inputs
    require_like(op, shape, like)
    height, width = (wanted - own for own, wanted in zip(shape[1:], like[1:], strict=True))
    if min(height, width) < 0:
        raise ShapeError(
            f"the input of pad is too large: {shape} cannot be padded to the size of "
            f"`{op.like}`, {like}",
            code="E204",
            help="use `crop` to make it smaller, or `upsample` to resize it",
        )
    return width // 2, width - width // 2, height // 2, height - height // 2


@register
class Upsample(Op):
    """Resizing by `scale_factor`, to `size`, or to the size of the value called `like`.

    `torch.nn.Upsample`; a `scale_factor` below 1 shrinks.
    """

    kind = "upsample"
    module_class = "torch.nn.Upsample"
    main = "scale_factor"
    references = ("like",)

    scale_factor: ScalePair | None = None
    size: Pair | None = None
    like: str | None = None
    mode: Literal["nearest", "nearest-exact", "bilinear", "bicubic"] = "nearest"
    align_corners: bool | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = inputs[0]
        require_map(self, shape)
        if self.align_corners is not None and self.mode.startswith("nearest"):
            raise ShapeError(
                f"`align_corners` has no meaning for the mode {self.mode}",
                code="E204",
                help="leave it out, or use the mode `bilinear` or `bicubic`",
            )
        given = [name for name in _TARGETS if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none of them"
            raise ShapeError(
                f"upsample needs one of `scale_factor`, `size` and `like`, but has {found}",
                code="E204",
                help="`scale_factor: 2` doubles height and width, `size: [56, 56]` is the size "
                "itself, and `like: stem` takes the size of another map",
            )
        if self.scale_factor is None:
            return _sized(self, inputs)
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

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        factors = self.scale_factor or (None, None)
        sizes = zip(inputs[0].spatial, output.spatial, factors, strict=True)
        return tuple(self._resized(*axis) for axis in sizes)

    def _resized(self, length: int, count: int, factor: float | None) -> Reach:
        if self.align_corners:
            scale, shift = Fraction(length - 1, max(1, count - 1)), Fraction(0)
        else:
            scale = Fraction(length, count)
            if factor is not None:
                scale = 1 / Fraction(factor).limit_denominator(1000)
            shift = Fraction(0) if self.mode == "nearest" else (scale - 1) / 2
        if self.mode == "nearest-exact":
            shift = scale / 2
        before, after = {"bilinear": (0, 1), "bicubic": (1, 2)}.get(self.mode, (0, 0))
        return resized(scale, shift, before, after)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return LIKE if self.like is not None else NOTHING

    def module(self, *inputs: TensorShape) -> nn.Module:
        if self.like is None:
            fields = self.model_dump(exclude={"like"})
            return new_module(self.module_class, fields)
        fields = {"mode": self.mode, "align_corners": self.align_corners}
        return new_module("cnngraph.nn.UpsampleLike", fields)


@register
class Crop(Op):
    """The centre of a map, of a `size` or of the size of the value called `like`, as in U-Net."""

    kind = "crop"
    main = "size"
    references = ("like",)

    size: Pair | None = None
    like: str | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = inputs[0]
        require_map(self, shape)
        if (self.size is None) == (self.like is None):
            raise ShapeError(
                "crop needs either `size` or `like`, but has "
                f"{'neither' if self.size is None else 'both'}",
                code="E204",
                help="`size: [56, 56]` is the size itself; `like: up` takes that of another map",
            )
        result = _sized(self, inputs)
        if any(own < wanted for own, wanted in zip(shape, result, strict=True)):
            raise ShapeError(
                f"the input of crop is too small: {result} cannot be cropped from {shape}",
                code="E202",
                help="use `pad` to enlarge a map, or `upsample` to resize it",
            )
        return result

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        sizes = zip(inputs[0].spatial, output.spatial, strict=True)
        return tuple(window(1, 1, -((own - wanted) // 2)) for own, wanted in sizes)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(view=True, no_gradient=LIKE.no_gradient if self.like is not None else ())

    def module(self, *inputs: TensorShape) -> nn.Module:
        if self.like is not None:
            return new_module("cnngraph.nn.CropLike", {})
        return new_module("cnngraph.nn.Crop", {"size": self.size})


@register
class Pad(Op):
    """Padding of each side, `torch.nn.functional.pad`; negative ones crop (mode constant only).

    With `like`, it pads to the size of another map, evenly on both sides; if the difference is
    odd, with one more row below and one more column on the right.
    """

    kind = "pad"
    main = "padding"
    references = ("like",)

    padding: Sides | None = None
    like: str | None = None
    mode: Literal["constant", "reflect", "replicate", "circular"] = "constant"
    value: Number = 0.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = inputs[0]
        require_map(self, shape)
        if (self.padding is None) == (self.like is None):
            raise ShapeError(
                "pad needs either `padding` or `like`, but has "
                f"{'neither' if self.padding is None else 'both'}",
                code="E204",
                help="`padding: 1` pads every side; `like: skip` pads to the size of another map",
            )
        padding = self.padding or _sides_to(self, inputs)
        if self.mode != "constant" and (self.value or min(padding) < 0):
            what = "`value`" if self.value else "a negative padding"
            raise ShapeError(
                f"{what} has no meaning for the mode {self.mode}",
                code="E204",
                help="only the mode `constant` has it",
            )
        left, right, top, bottom = padding
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

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        left, _, top, _ = self.padding or _sides_to(self, inputs)
        return window(1, 1, top), window(1, 1, left)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        kept = (0,) if self.mode in ("reflect", "replicate") else ()
        return Saved(inputs=kept, no_gradient=LIKE.no_gradient if self.like is not None else ())

    def module(self, *inputs: TensorShape) -> nn.Module:
        if self.like is not None:
            return new_module("cnngraph.nn.PadLike", {"mode": self.mode, "value": self.value})
        classes = {
            "constant": "ConstantPad2d",
            "reflect": "ReflectionPad2d",
            "replicate": "ReplicationPad2d",
            "circular": "CircularPad2d",
        }
        value = {"value": self.value} if self.mode == "constant" else {}
        return new_module(f"torch.nn.{classes[self.mode]}", {"padding": self.padding, **value})
