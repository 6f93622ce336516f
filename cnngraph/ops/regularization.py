"""Ops that drop values at random while training, and do nothing in evaluation."""

from __future__ import annotations

from typing import ClassVar

from cnngraph.ops.fields import Fraction
from cnngraph.ops.op import ShapePreserving, require_map
from cnngraph.ops.registry import register
from cnngraph.ops.saved import UNCHANGED, Batch, Saved
from cnngraph.shape import TensorShape


@register
class Dropout(ShapePreserving):
    """Zeroes values with probability `p`, `torch.nn.Dropout`."""

    kind = "dropout"
    module_class = "torch.nn.Dropout"
    main = "p"

    p: Fraction = 0.5

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The factor of each value."""
        return Saved(extra=batch.bytes_of(output)) if self.p else UNCHANGED


class _ChannelDropout(ShapePreserving):
    main = "p"
    rank: ClassVar[int]

    p: Fraction = 0.5

    def infer(self, *inputs: TensorShape) -> TensorShape:
        require_map(self, inputs[0], self.rank)
        return inputs[0]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(extra=batch.bytes_of(TensorShape((output.channels,)))) if self.p else UNCHANGED


@register
class Dropout1d(_ChannelDropout):
    """Zeroes whole channels with probability `p`, `torch.nn.Dropout1d`."""

    kind = "dropout1d"
    module_class = "torch.nn.Dropout1d"
    rank = 1


@register
class Dropout2d(_ChannelDropout):
    """Zeroes whole channels with probability `p`, `torch.nn.Dropout2d`."""

    kind = "dropout2d"
    module_class = "torch.nn.Dropout2d"
    rank = 2


@register
class Dropout3d(_ChannelDropout):
    """Zeroes whole channels with probability `p`, `torch.nn.Dropout3d`."""

    kind = "dropout3d"
    module_class = "torch.nn.Dropout3d"
    rank = 3


@register
class AlphaDropout(ShapePreserving):
    """Dropout for `selu` that keeps mean and variance, `torch.nn.AlphaDropout`."""

    kind = "alpha_dropout"
    module_class = "torch.nn.AlphaDropout"
    main = "p"

    p: Fraction = 0.5

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return (
            Saved(extra=batch.bytes_of(output), forward=batch.bytes_of(output))
            if self.p
            else UNCHANGED
        )


@register
class DropPath(ShapePreserving):
    """Zeroes whole images with probability `p`: stochastic depth, at the end of a residual body."""

    kind = "drop_path"
    module_class = "cnngraph.nn.DropPath"
    main = "p"

    p: Fraction

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(extra=batch.size * batch.itemsize) if self.p else UNCHANGED
