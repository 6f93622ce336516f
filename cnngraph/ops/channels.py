"""Ops that take, mix or reduce the channels of a value."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge

from cnngraph.ops.fields import Count
from cnngraph.ops.op import Op, indivisible, require_map
from cnngraph.ops.registry import register
from cnngraph.ops.saved import NOTHING, OUTPUT, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape


@register
class ChannelShuffle(Op):
    """Interleaves the channels of `groups` groups, as in ShuffleNet, `torch.nn.ChannelShuffle`."""

    kind = "channel_shuffle"
    pointwise = True
    module_class = "torch.nn.ChannelShuffle"
    main = "groups"
    saved = NOTHING

    groups: Count

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape)
        if shape.channels % self.groups:
            raise indivisible(self, shape, "a number of channels", self.groups)
        return shape


@register
class Chunk(Op):
    """Part `index` of `chunks` equal parts of the channels, `torch.chunk`."""

    kind = "chunk"
    pointwise = True
    module_class = "cnngraph.nn.Chunk"
    sets_channels = True
    saved = Saved(view=True)

    chunks: Count
    index: Annotated[int, Ge(0)]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % self.chunks:
            raise indivisible(self, shape, "a number of channels", self.chunks)
        if self.index >= self.chunks:
            raise ShapeError(
                f"chunk has the `index` {self.index}, "
                f"but {self.chunks} chunks are numbered 0 to {self.chunks - 1}",
                code="E204",
                help="the first chunk has the `index` 0",
            )
        return TensorShape((shape.channels // self.chunks, *shape.spatial))


@register
class Split(Op):
    """Part `index` of the channels, split into parts of these sizes, `torch.split`."""

    kind = "split"
    pointwise = True
    module_class = "cnngraph.nn.Split"
    sets_channels = True
    saved = Saved(view=True)

    split_size: tuple[Count, ...]
    index: Annotated[int, Ge(0)]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if sum(self.split_size) != shape.channels:
            raise ShapeError(
                f"the parts of split have {sum(self.split_size)} channels together, "
                f"but its input {shape} has {shape.channels}",
                code="E204",
                help="`split_size` lists the channels of every part; "
                "for equal parts use `chunk`, for some channels `slice`",
            )
        if self.index >= len(self.split_size):
            raise ShapeError(
                f"split has the `index` {self.index}, but its {len(self.split_size)} parts "
                f"are numbered 0 to {len(self.split_size) - 1}",
                code="E204",
                help="the first part has the `index` 0",
            )
        return shape.with_channels(self.split_size[self.index])


@register
class Slice(Op):
    """The channels from `start` up to `end`, `x[:, start:end]`; negative counts from the end."""

    kind = "slice"
    pointwise = True
    module_class = "cnngraph.nn.Slice"
    sets_channels = True
    saved = Saved(view=True)

    start: int = 0
    end: int | None = None

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        channels = len(range(shape.channels)[self.start : self.end])
        outside = max(self.start, self.end or 0) > shape.channels
        if not channels or outside or min(self.start, self.end or 0) < -shape.channels:
            end = "" if self.end is None else self.end
            raise ShapeError(
                f"slice takes the channels {self.start}:{end}, but its input is {shape}",
                code="E204",
                help=f"give it a `start` and `end` between 0 and {shape.channels}",
            )
        return shape.with_channels(channels)


@register
class ChannelMean(Op):
    """Mean over the channels at each position of a map, `x.mean(1, keepdim=True)`, as in CBAM."""

    kind = "channel_mean"
    pointwise = True
    module_class = "cnngraph.nn.ChannelMean"
    sets_channels = True
    saved = NOTHING

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, None)
        return shape.with_channels(1)


@register
class ChannelMax(Op):
    """Largest value of the channels at each position of a map, `x.amax(1, keepdim=True)` (CBAM)."""

    kind = "channel_max"
    pointwise = True
    module_class = "cnngraph.nn.ChannelMax"
    sets_channels = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, None)
        return shape.with_channels(1)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The channel of each largest value, in 8 bytes."""
        return Saved(extra=8 * batch.size * output.elements)


@register
class GroupSoftmax(Op):
    """Softmax across `groups` groups of channels, as in SK networks and ResNeSt.

    Channel c of every group competes with channel c of the others: (groups, C / groups, ...) is
    normalized over its first dimension.
    """

    kind = "group_softmax"
    pointwise = True
    module_class = "cnngraph.nn.GroupSoftmax"
    main = "groups"
    saved = OUTPUT

    groups: Count

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        if shape.channels % self.groups:
            raise indivisible(self, shape, "a number of channels", self.groups)
        return shape
