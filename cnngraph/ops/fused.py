"""Ops that passes put in the place of several. No spec can name them; their modules are those of their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnngraph.graph import TensorShape
from cnngraph.ops.op import Op

if TYPE_CHECKING:
    from torch import fx


class BatchNormAct(Op):
    """An activation of a batch norm: one read of the statistics, one of the input, one write."""

    kind = "batch_norm_act"

    batch_norm: Op
    activation: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.activation.infer(self.batch_norm.infer(*inputs))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.batch_norm.parameters(*inputs)

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.batch_norm.buffers(*inputs)

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import batch_norm_act

        return graph.call_function(batch_norm_act, (*map(graph.get_attr, modules), *inputs))

    def __str__(self) -> str:
        return f"{self.kind}[{self.batch_norm}, {self.activation}]"


class ChannelsLast(Op):
    """The same map, laid out channels last in memory."""

    kind = "channels_last"

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import channels_last

        return graph.call_function(channels_last, tuple(inputs))
