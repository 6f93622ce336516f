"""Activations. They work on maps and flat values alike; none works in place, that is for the compiler to decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from cnngraph.ops.fields import Count, Number, PositiveNumber
from cnngraph.ops.op import Op, ShapePreserving
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, OUTPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn


@register
class ReLU(ShapePreserving):
    """max(x, 0), `torch.nn.ReLU`."""

    kind = "relu"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return OUTPUT


@register
class ReLU6(ShapePreserving):
    """min(max(x, 0), 6), `torch.nn.ReLU6`."""

    kind = "relu6"


@register
class LeakyReLU(ShapePreserving):
    """x where positive, else `negative_slope` * x, `torch.nn.LeakyReLU`."""

    kind = "leaky_relu"
    main = "negative_slope"

    negative_slope: Number = 0.01


@register
class PReLU(ShapePreserving):
    """Leaky ReLU with a learned slope, or one per channel (`${in_channels}`), `torch.nn.PReLU`."""

    kind = "prelu"
    main = "num_parameters"

    num_parameters: Count = 1
    init: Number = 0.25

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if self.num_parameters not in (1, shape.channels):
            raise ShapeError(
                f"prelu has {self.num_parameters} slopes for {shape.channels} channels",
                code="E204",
                help="leave `num_parameters` out for one slope, or write `${in_channels}` for one per channel",
            )
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.num_parameters,)}


@register
class ELU(ShapePreserving):
    """x where positive, else `alpha` * (exp(x) - 1), `torch.nn.ELU`."""

    kind = "elu"

    alpha: Number = 1.0


@register
class SELU(ShapePreserving):
    """Scaled ELU that normalizes itself, `torch.nn.SELU`; its dropout is `alpha_dropout`."""

    kind = "selu"


@register
class CELU(ShapePreserving):
    """ELU with a continuous derivative, `torch.nn.CELU`."""

    kind = "celu"

    alpha: PositiveNumber = 1.0


@register
class GELU(ShapePreserving):
    """x times the normal distribution's probability of less than x, `torch.nn.GELU`."""

    kind = "gelu"

    approximate: Literal["none", "tanh"] = "none"


@register
class SiLU(ShapePreserving):
    """x * sigmoid(x), also known as swish, `torch.nn.SiLU`."""

    kind = "silu"


@register
class Mish(ShapePreserving):
    """x * tanh(softplus(x)), `torch.nn.Mish`."""

    kind = "mish"


@register
class Sigmoid(ShapePreserving):
    """1 / (1 + exp(-x)), `torch.nn.Sigmoid`."""

    kind = "sigmoid"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return OUTPUT


@register
class Tanh(ShapePreserving):
    """The hyperbolic tangent, `torch.nn.Tanh`."""

    kind = "tanh"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return OUTPUT


@register
class Softplus(ShapePreserving):
    """log(1 + exp(`beta` * x)) / `beta`, linear above `threshold`, `torch.nn.Softplus`."""

    kind = "softplus"

    beta: PositiveNumber = 1.0
    threshold: Number = 20.0


@register
class Hardswish(ShapePreserving):
    """x * relu6(x + 3) / 6, `torch.nn.Hardswish`."""

    kind = "hardswish"


@register
class Hardsigmoid(ShapePreserving):
    """relu6(x + 3) / 6, `torch.nn.Hardsigmoid`."""

    kind = "hardsigmoid"


@register
class Hardtanh(ShapePreserving):
    """x clamped to `min_val` .. `max_val`, `torch.nn.Hardtanh`."""

    kind = "hardtanh"

    min_val: Number = -1.0
    max_val: Number = 1.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        if self.min_val >= self.max_val:
            raise ShapeError(
                f"hardtanh has nothing between `min_val` {self.min_val:g} and `max_val` {self.max_val:g}",
                code="E204",
                help="give it a `max_val` above its `min_val`",
            )
        return inputs[0]


@register
class Softmax(ShapePreserving):
    """Softmax over the channels, or the features, `torch.nn.Softmax`."""

    kind = "softmax"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return OUTPUT

    def module(self, *inputs: TensorShape) -> nn.Module:
        from torch import nn

        return nn.Softmax(dim=1)


@register
class LogSoftmax(ShapePreserving):
    """Logarithm of the softmax over the channels, or the features, `torch.nn.LogSoftmax`."""

    kind = "log_softmax"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return OUTPUT

    def module(self, *inputs: TensorShape) -> nn.Module:
        from torch import nn

        return nn.LogSoftmax(dim=1)


@register
class GLU(Op):
    """The first half of the channels times the sigmoid of the second, `torch.nn.GLU`."""

    kind = "glu"
    sets_channels = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % 2:
            raise ShapeError(
                f"glu splits its channels into two halves, but there are {shape.channels}",
                code="E204",
                help="give it an even number of channels",
            )
        return shape.with_channels(shape.channels // 2)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return INPUT

    def module(self, *inputs: TensorShape) -> nn.Module:
        from torch import nn

        return nn.GLU(dim=1)


FUSED_WITH_BATCH_NORM = (
    ReLU, ReLU6, LeakyReLU, ELU, GELU, SiLU, Mish, Sigmoid, Tanh, Hardswish, Hardsigmoid, Hardtanh,
)  # fmt: skip
"""The activations that the `batch_norm_act` kernel computes."""
