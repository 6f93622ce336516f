"""Activations, of maps and of flat values. None works in place: the compiler decides that."""

from __future__ import annotations

from typing import Any, Literal

from cnngraph.ops.fields import Count, Number, PositiveNumber
from cnngraph.ops.op import Op, ShapePreserving
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, OUTPUT
from cnngraph.shape import ShapeError, TensorShape


@register
class ReLU(ShapePreserving):
    """max(x, 0), `torch.nn.ReLU`."""

    kind = "relu"
    module_class = "torch.nn.ReLU"
    saved = OUTPUT


@register
class ReLU6(ShapePreserving):
    """min(max(x, 0), 6), `torch.nn.ReLU6`."""

    kind = "relu6"
    module_class = "torch.nn.ReLU6"


@register
class LeakyReLU(ShapePreserving):
    """x where positive, else `negative_slope` * x, `torch.nn.LeakyReLU`."""

    kind = "leaky_relu"
    module_class = "torch.nn.LeakyReLU"
    main = "negative_slope"

    negative_slope: Number = 0.01


@register
class PReLU(ShapePreserving):
    """Leaky ReLU with a learned slope, or one per channel (`${in_channels}`), `torch.nn.PReLU`."""

    kind = "prelu"
    module_class = "torch.nn.PReLU"
    main = "num_parameters"

    num_parameters: Count = 1
    init: Number = 0.25

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if self.num_parameters not in (1, shape.channels):
            raise ShapeError(
                f"prelu has {self.num_parameters} slopes for {shape.channels} channels",
                code="E204",
                help="leave `num_parameters` out for one slope, "
                "or write `${in_channels}` for one per channel",
            )
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {"weight": (self.num_parameters,)}


@register
class ELU(ShapePreserving):
    """x where positive, else `alpha` * (exp(x) - 1), `torch.nn.ELU`."""

    kind = "elu"
    module_class = "torch.nn.ELU"

    alpha: Number = 1.0


@register
class SELU(ShapePreserving):
    """Self-normalizing scaled ELU, `torch.nn.SELU`; its dropout is `alpha_dropout`."""

    kind = "selu"
    module_class = "torch.nn.SELU"


@register
class CELU(ShapePreserving):
    """ELU with a continuous derivative, `torch.nn.CELU`."""

    kind = "celu"
    module_class = "torch.nn.CELU"

    alpha: PositiveNumber = 1.0


@register
class GELU(ShapePreserving):
    """x * P(X < x) for a standard normal X, `torch.nn.GELU`."""

    kind = "gelu"
    module_class = "torch.nn.GELU"

    approximate: Literal["none", "tanh"] = "none"


@register
class SiLU(ShapePreserving):
    """x * sigmoid(x), also known as swish, `torch.nn.SiLU`."""

    kind = "silu"
    module_class = "torch.nn.SiLU"


@register
class Mish(ShapePreserving):
    """x * tanh(softplus(x)), `torch.nn.Mish`."""

    kind = "mish"
    module_class = "torch.nn.Mish"


@register
class Sigmoid(ShapePreserving):
    """1 / (1 + exp(-x)), `torch.nn.Sigmoid`."""

    kind = "sigmoid"
    module_class = "torch.nn.Sigmoid"
    saved = OUTPUT


@register
class Tanh(ShapePreserving):
    """The hyperbolic tangent, `torch.nn.Tanh`."""

    kind = "tanh"
    module_class = "torch.nn.Tanh"
    saved = OUTPUT


@register
class Softplus(ShapePreserving):
    """log(1 + exp(`beta` * x)) / `beta`, linear above `threshold`, `torch.nn.Softplus`."""

    kind = "softplus"
    module_class = "torch.nn.Softplus"

    beta: PositiveNumber = 1.0
    threshold: Number = 20.0


@register
class Hardswish(ShapePreserving):
    """x * relu6(x + 3) / 6, `torch.nn.Hardswish`."""

    kind = "hardswish"
    module_class = "torch.nn.Hardswish"


@register
class Hardsigmoid(ShapePreserving):
    """relu6(x + 3) / 6, `torch.nn.Hardsigmoid`."""

    kind = "hardsigmoid"
    module_class = "torch.nn.Hardsigmoid"


@register
class Hardtanh(ShapePreserving):
    """x clamped to `min_val` .. `max_val`, `torch.nn.Hardtanh`."""

    kind = "hardtanh"
    module_class = "torch.nn.Hardtanh"

    min_val: Number = -1.0
    max_val: Number = 1.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        if self.min_val >= self.max_val:
            raise ShapeError(
                f"hardtanh has an empty range: `min_val` {self.min_val:g}, "
                f"`max_val` {self.max_val:g}",
                code="E204",
                help="give it a `max_val` above its `min_val`",
            )
        return inputs[0]


@register
class Softmax(ShapePreserving):
    """Softmax over the channels or features, `torch.nn.Softmax`."""

    kind = "softmax"
    module_class = "torch.nn.Softmax"
    saved = OUTPUT

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"dim": 1}


@register
class LogSoftmax(ShapePreserving):
    """Logarithm of the softmax over the channels or features, `torch.nn.LogSoftmax`."""

    kind = "log_softmax"
    module_class = "torch.nn.LogSoftmax"
    saved = OUTPUT

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"dim": 1}


@register
class GLU(Op):
    """The first half of the channels times the sigmoid of the second, `torch.nn.GLU`."""

    kind = "glu"
    pointwise = True
    module_class = "torch.nn.GLU"
    sets_channels = True
    saved = INPUT

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % 2:
            raise ShapeError(
                f"glu splits its channels into two halves, but there are {shape.channels}",
                code="E204",
                help="give it an even number of channels",
            )
        return shape.with_channels(shape.channels // 2)

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"dim": 1}


FUSED_WITH_BATCH_NORM = (
    ReLU, ReLU6, LeakyReLU, ELU, GELU, SiLU, Mish, Sigmoid, Tanh, Hardswish, Hardsigmoid, Hardtanh,
)  # fmt: skip
"""The activations that the `batch_norm_act` kernel computes."""
