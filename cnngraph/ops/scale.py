"""Multiplication by constants and by learned factors."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnngraph.ops.fields import Number, PositiveNumber
from cnngraph.ops.op import Op, require_map
from cnngraph.ops.registry import register
from cnngraph.ops.saved import NOTHING, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx, nn


@register
class Scale(Op):
    """Multiplication by a constant `factor`."""

    kind = "scale"
    pointwise = True
    main = "factor"
    saved = NOTHING

    factor: Number

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return graph.call_function(operator.mul, (inputs[0], self.factor))


@register
class LayerScale(Op):
    """Multiplication of each channel by a learned factor, as in ConvNeXt: a bare parameter."""

    kind = "layer_scale"
    pointwise = True
    main = "init_value"

    init_value: Number = 1e-6

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {"": (inputs[0].channels, *(1 for _ in inputs[0].spatial))}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(
            inputs=(0,), backward=batch.bytes_of(output)
        )  # the gradient of the factors, before it is summed

    def module(self, *inputs: TensorShape) -> nn.Parameter:
        import torch
        from torch import nn

        return nn.Parameter(torch.full(self.parameters(*inputs)[""], self.init_value))

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return graph.call_function(operator.mul, (inputs[0], graph.get_attr(modules[0])))


@register
class ChannelBias(Op):
    """Addition of a learned value to each channel: a bare parameter, zero at first."""

    kind = "channel_bias"
    pointwise = True
    main = "init_value"
    saved = Saved(passes_gradient=(0,))

    init_value: Number = 0.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {"": (inputs[0].channels, *(1 for _ in inputs[0].spatial))}

    def module(self, *inputs: TensorShape) -> nn.Parameter:
        import torch
        from torch import nn

        return nn.Parameter(torch.full(self.parameters(*inputs)[""], self.init_value))

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return graph.call_function(operator.add, (inputs[0], graph.get_attr(modules[0])))


@register
class Normalize(Op):
    """(x - mean) / std of each channel by constants, which are not part of the `state_dict`."""

    kind = "normalize"
    pointwise = True
    module_class = "cnngraph.nn.Normalize"

    mean: tuple[Number, ...]
    std: tuple[PositiveNumber, ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != shape.channels:
                raise ShapeError(
                    f"normalize has a `{name}` of {len(values)} for {shape.channels} channels",
                    code="E204",
                    help="give `mean` and `std` one number for each channel",
                )
        return shape

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(forward=batch.bytes_of(output))
