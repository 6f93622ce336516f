"""Normalization over a batch, an image, a group of channels, or a position."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from cnngraph.ops.fields import Count, Fraction, Number, PositiveNumber
from cnngraph.ops.op import Op, new_module, require_map
from cnngraph.ops.registry import register
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import nn


def _running_statistics(channels: int) -> dict[str, tuple[int, ...]]:
    return {"running_mean": (channels,), "running_var": (channels,), "num_batches_tracked": ()}


def _weight_and_bias(channels: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (channels,), "bias": (channels,)}


@register
class BatchNorm(Op):
    """Batch norm: `torch.nn.BatchNorm2d` on maps, `torch.nn.BatchNorm1d` on flat values.

    On signals it is `torch.nn.BatchNorm1d` and on volumes `torch.nn.BatchNorm3d`.
    """

    kind = "batch_norm"
    pointwise = True
    channels_argument = "num_features"

    eps: PositiveNumber = 1e-5
    momentum: Fraction | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _weight_and_bias(inputs[0].channels) if self.affine else {}

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _running_statistics(inputs[0].channels) if self.track_running_stats else {}

    def needs_batch(self, *inputs: TensorShape) -> bool:
        return prod(inputs[0].spatial) == 1

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(inputs=(0,), extra=2 * inputs[0].channels * batch.accumulated)

    def module(self, *inputs: TensorShape) -> nn.Module:
        rank = max(1, len(inputs[0].spatial))
        return new_module(f"torch.nn.BatchNorm{rank}d", self.arguments(*inputs))


@register
class LayerNorm(Op):
    """Layer norm over the features, or over the channels of each pixel of a map, as in ConvNeXt."""

    kind = "layer_norm"
    pointwise = True
    channels_argument = "normalized_shape"

    eps: PositiveNumber = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        if not self.elementwise_affine:
            return {}
        shape = (inputs[0].channels,)
        return {"weight": shape, "bias": shape} if self.bias else {"weight": shape}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        positions = output.elements // output.channels
        return Saved(inputs=(0,), extra=2 * batch.size * positions * batch.accumulated)

    def module(self, *inputs: TensorShape) -> nn.Module:
        name = "cnngraph.nn.LayerNorm2d" if inputs[0].spatial else "torch.nn.LayerNorm"
        return new_module(name, self.arguments(*inputs))


@register
class GroupNorm(Op):
    """Group norm, `torch.nn.GroupNorm`: over each of `num_groups` groups of an image's channels."""

    kind = "group_norm"
    module_class = "torch.nn.GroupNorm"
    channels_argument = "num_channels"
    main = "num_groups"

    num_groups: Count
    eps: PositiveNumber = 1e-5
    affine: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % self.num_groups:
            raise ShapeError(
                f"group_norm has {self.num_groups} groups, "
                f"but {shape.channels} channels cannot be split into them evenly",
                code="E204",
                help=f"give it a divisor of {shape.channels}, "
                f"or make the channels a multiple of {self.num_groups}",
            )
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _weight_and_bias(inputs[0].channels) if self.affine else {}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(inputs=(0,), extra=2 * batch.size * self.num_groups * batch.accumulated)


@register
class InstanceNorm(Op):
    """Instance norm, `torch.nn.InstanceNorm2d`: over each channel of an image; `affine: false`."""

    kind = "instance_norm"
    channels_argument = "num_features"

    eps: PositiveNumber = 1e-5
    momentum: Fraction | None = 0.1
    affine: bool = False
    track_running_stats: bool = False

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, None)
        if prod(shape.spatial) == 1:
            raise ShapeError(
                f"the input of instance_norm is too small: {shape} has one value per channel, "
                "so nothing to average",
                code="E202",
                help="use a larger `input` or fewer strides before it, "
                "or `layer_norm` in its place",
            )
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _weight_and_bias(inputs[0].channels) if self.affine else {}

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _running_statistics(inputs[0].channels) if self.track_running_stats else {}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """Torch converts the input to channels first, and keeps the copy."""
        statistics = 2 * batch.size * output.channels * batch.accumulated
        return Saved(extra=batch.bytes_of(output) + statistics, backward=batch.bytes_of(output))

    def module(self, *inputs: TensorShape) -> nn.Module:
        rank = len(inputs[0].spatial)
        return new_module(f"torch.nn.InstanceNorm{rank}d", self.arguments(*inputs))


@register
class GlobalResponseNorm(Op):
    """Competition between the channels of a map, as in ConvNeXt V2 (arXiv:2301.00808, 3.1).

    With g the norms of the channels over height and width, x + weight * x * g / (mean(g) + eps)
    + bias.
    """

    kind = "global_response_norm"
    module_class = "cnngraph.nn.GlobalResponseNorm"
    channels_argument = "num_channels"

    eps: PositiveNumber = 1e-6

    def infer(self, *inputs: TensorShape) -> TensorShape:
        require_map(self, inputs[0], None)
        return inputs[0]

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return _weight_and_bias(inputs[0].channels)

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {**super().arguments(*inputs), "rank": len(inputs[0].spatial)}

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The norms, their shares and the factors of the channels."""
        small = (3 * output.channels + 1) * batch.size * batch.itemsize
        return Saved(inputs=(0,), extra=small, backward=batch.bytes_of(output, output))


@register
class LocalResponseNorm(Op):
    """AlexNet's normalization over neighbouring channels, `torch.nn.LocalResponseNorm`."""

    kind = "local_response_norm"
    pointwise = True
    module_class = "torch.nn.LocalResponseNorm"
    main = "size"

    size: Count
    alpha: Number = 1e-4
    beta: Number = 0.75
    k: Number = 1.0

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        return shape

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        whole = batch.bytes_of(output)
        neighbours = output.with_channels(output.channels + self.size - 1)
        return Saved(inputs=(0,), extra=batch.bytes_of(neighbours) + 2 * whole, backward=3 * whole)
