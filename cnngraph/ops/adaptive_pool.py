"""Pooling to a given size, or to one value per channel."""

from __future__ import annotations

from typing import Any, ClassVar

from cnngraph.ops.fields import OutputSingle, OutputSize, OutputTriple
from cnngraph.ops.op import Op, require_map
from cnngraph.ops.pool import with_indices
from cnngraph.ops.reach import Reach, bins
from cnngraph.ops.registry import register
from cnngraph.ops.saved import INPUT, NOTHING, Batch, Saved
from cnngraph.shape import TensorShape


class AdaptivePool(Op):
    """Pooling to `output_size`."""

    main = "output_size"
    rank: ClassVar[int]

    output_size: tuple[int | None, ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, self.rank)
        wanted = zip(self.output_size, shape.spatial, strict=True)
        return TensorShape((shape.channels, *(size or own for size, own in wanted)))

    def reach(
        self, index: int, output: TensorShape, *inputs: TensorShape
    ) -> tuple[Reach, ...] | None:
        if max(output.spatial) == 1:
            return None
        return tuple(map(bins, inputs[0].spatial, output.spatial))

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        size = self.output_size
        return {"output_size": size[0] if len(size) == 1 else size}


class _AdaptiveMaxPool(AdaptivePool):
    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return with_indices(batch, output)


@register
class AdaptiveAvgPool1d(AdaptivePool):
    """Mean of each of `output_size` windows of any input, `torch.nn.AdaptiveAvgPool1d`."""

    kind = "adaptive_avg_pool1d"
    module_class = "torch.nn.AdaptiveAvgPool1d"
    rank = 1
    saved = INPUT

    output_size: OutputSingle


@register
class AdaptiveAvgPool2d(AdaptivePool):
    """Mean of each of `output_size` windows of any input, `torch.nn.AdaptiveAvgPool2d`."""

    kind = "adaptive_avg_pool2d"
    module_class = "torch.nn.AdaptiveAvgPool2d"
    rank = 2
    saved = INPUT

    output_size: OutputSize


@register
class AdaptiveAvgPool3d(AdaptivePool):
    """Mean of each of `output_size` windows of any input, `torch.nn.AdaptiveAvgPool3d`."""

    kind = "adaptive_avg_pool3d"
    module_class = "torch.nn.AdaptiveAvgPool3d"
    rank = 3
    saved = INPUT

    output_size: OutputTriple


@register
class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """Largest value of each of `output_size` windows of any input, `torch.nn.AdaptiveMaxPool1d`."""

    kind = "adaptive_max_pool1d"
    module_class = "torch.nn.AdaptiveMaxPool1d"
    rank = 1

    output_size: OutputSingle


@register
class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """Largest value of each of `output_size` windows of any input, `torch.nn.AdaptiveMaxPool2d`."""

    kind = "adaptive_max_pool2d"
    module_class = "torch.nn.AdaptiveMaxPool2d"
    rank = 2

    output_size: OutputSize


@register
class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """Largest value of each of `output_size` windows of any input, `torch.nn.AdaptiveMaxPool3d`."""

    kind = "adaptive_max_pool3d"
    module_class = "torch.nn.AdaptiveMaxPool3d"
    rank = 3

    output_size: OutputTriple


class GlobalPool(Op):
    """Pooling of each channel to one value."""

    rank: ClassVar[int]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (shape,) = inputs
        require_map(self, shape, self.rank)
        return TensorShape((shape.channels, *(1 for _ in shape.spatial)))

    def arguments(self, *inputs: TensorShape) -> dict[str, Any]:
        return {"output_size": 1}


class _GlobalMaxPool(GlobalPool):
    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return with_indices(batch, output)


@register
class GlobalAvgPool1d(GlobalPool):
    """Mean of each channel, with output shape Cx1; `flatten` turns it into features."""

    kind = "global_avg_pool1d"
    module_class = "torch.nn.AdaptiveAvgPool1d"
    rank = 1
    saved = NOTHING


@register
class GlobalAvgPool2d(GlobalPool):
    """Mean of each channel, with output shape Cx1x1; `flatten` turns it into features."""

    kind = "global_avg_pool2d"
    module_class = "torch.nn.AdaptiveAvgPool2d"
    rank = 2
    saved = NOTHING


@register
class GlobalAvgPool3d(GlobalPool):
    """Mean of each channel, with output shape Cx1x1x1; `flatten` turns it into features."""

    kind = "global_avg_pool3d"
    module_class = "torch.nn.AdaptiveAvgPool3d"
    rank = 3
    saved = NOTHING


@register
class GlobalMaxPool1d(_GlobalMaxPool):
    """Largest value of each channel, with output shape Cx1; `flatten` turns it into features."""

    kind = "global_max_pool1d"
    module_class = "torch.nn.AdaptiveMaxPool1d"
    rank = 1


@register
class GlobalMaxPool2d(_GlobalMaxPool):
    """Largest value of each channel, with output shape Cx1x1; `flatten` turns it into features."""

    kind = "global_max_pool2d"
    module_class = "torch.nn.AdaptiveMaxPool2d"
    rank = 2


@register
class GlobalMaxPool3d(_GlobalMaxPool):
    """Largest value of each channel, with output shape Cx1x1x1; `flatten` makes features."""

    kind = "global_max_pool3d"
    module_class = "torch.nn.AdaptiveMaxPool3d"
    rank = 3
