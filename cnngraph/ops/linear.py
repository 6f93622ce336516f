"""Linear layers over flat values, and over the channels of a map."""

from __future__ import annotations

from cnngraph.ops.fields import Count
from cnngraph.ops.op import Op, require_map
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT
from cnngraph.shape import ShapeError, TensorShape


@register
class Linear(Op):
    """Fully connected layer, `torch.nn.Linear`; the input's features are inferred."""

    kind = "linear"
    module_class = "torch.nn.Linear"
    channels_argument = "in_features"
    main = "out_features"
    sets_channels = True
    saved = INPUT

    out_features: Count
    bias: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.spatial:
            raise ShapeError(
                f"linear needs a flat vector, but its input is a map of {shape}",
                code="E203",
                help=f"put `flatten` before it ({shape.elements} features), "
                f"or `global_avg_pool2d` and then `flatten` ({shape.channels})",
            )
        return TensorShape((self.out_features,))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        weight = {"weight": (self.out_features, inputs[0].channels)}
        return weight | ({"bias": (self.out_features,)} if self.bias else {})

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return inputs[0].channels * self.out_features


@register
class Linear2d(Op):
    """`linear` over the channels of each pixel: a 1x1 convolution whose weight is a matrix."""

    kind = "linear2d"
    pointwise = True
    module_class = "cnngraph.nn.Linear2d"
    channels_argument = "in_features"
    main = "out_features"
    sets_channels = True
    saved = INPUT

    out_features: Count
    bias: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        return TensorShape((self.out_features, *shape.spatial))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        weight = {"weight": (self.out_features, inputs[0].channels)}
        return weight | ({"bias": (self.out_features,)} if self.bias else {})

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return inputs[0].channels * output.elements
