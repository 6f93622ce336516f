"""Ops that passes put in the place of several. No spec can name them; their modules are those of their parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cnngraph.ops.activation import ReLU
from cnngraph.ops.merge import Concat
from cnngraph.ops.op import Op
from cnngraph.ops.saved import NOTHING, UNCHANGED, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx


class BatchNormAct(Op):
    """A batch norm to which another value is added, or its activation, or both: one read of each, and one write."""

    kind = "batch_norm_act"

    batch_norm: Op
    activation: Op | None
    residual: bool = False

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = self.batch_norm.infer(inputs[0])
        _check_residual(self.residual, shape, inputs)
        return shape if self.activation is None else self.activation.infer(shape)

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.batch_norm.parameters(inputs[0])

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.batch_norm.buffers(inputs[0])

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """Of a sum's ReLU the result tells backward all it needs; without an activation it needs nothing of the sum."""
        statistics = 2 * inputs[0].channels * batch.accumulated
        if not self.residual:
            return Saved(inputs=(0,), extra=statistics)
        if self.activation is None:
            return Saved(inputs=(0,), extra=statistics, passes_gradient=(1,))
        from_output = isinstance(self.activation, ReLU)
        return Saved(inputs=(0,) if from_output else (0, 1), output=from_output, extra=statistics)

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import batch_norm_act

        held = list(map(graph.get_attr, modules))
        return graph.call_function(
            batch_norm_act, (*held, *([] if self.activation else [None]), *inputs)
        )

    def __str__(self) -> str:
        parts = [self.batch_norm, "add" if self.residual else None, self.activation]
        return f"{self.kind}[{', '.join(str(part) for part in parts if part is not None)}]"


class CatBatchNormAct(Op):
    """A concatenation of which each branch's batch norm, activation, or both write their result where it belongs."""

    kind = "cat_batch_norm_act"

    branches: tuple[Op | None, ...]
    """A `BatchNormAct`, a ReLU, or none, by input."""

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return Concat().infer(*(shape for _, shape in self._with_shapes(*inputs)))

    def _with_shapes(self, *inputs: TensorShape) -> Iterator[tuple[Op | None, TensorShape]]:
        for branch, shape in zip(self.branches, inputs, strict=True):
            yield branch, shape if branch is None else branch.infer(shape)

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Names of the branches' own may be the same: each is told by its branch."""
        return {
            f"{index}.{name}": value
            for index, (branch, shape) in enumerate(self._with_shapes(*inputs))
            if branch is not None
            for name, value in branch.parameters(shape).items()
        }

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {
            f"{index}.{name}": value
            for index, (branch, shape) in enumerate(self._with_shapes(*inputs))
            if branch is not None
            for name, value in branch.buffers(shape).items()
        }

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """Of a ReLU alone the result tells backward all it needs."""
        saved = [
            UNCHANGED if branch is None else branch.saves(batch, shape, shape)
            for branch, shape in self._with_shapes(*inputs)
        ]
        return Saved(
            inputs=tuple(index for index, own in enumerate(saved) if own.inputs),
            output=any(own.output for own in saved),
            extra=sum(own.extra for own in saved),
            passes_gradient=tuple(index for index, own in enumerate(saved) if own.view),
        )

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import cat_batch_norm_act

        held = map(graph.get_attr, modules)
        branches = []
        for branch, value in zip(self.branches, inputs, strict=True):
            norm = next(held) if isinstance(branch, BatchNormAct) else None
            alone = branch is None or (
                isinstance(branch, BatchNormAct) and branch.activation is None
            )
            branches.append((norm, None if alone else next(held), value))
        return graph.call_function(cat_batch_norm_act, tuple(branches))

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(str(branch or 'identity') for branch in self.branches)}]"


class BatchNormActConv(Op):
    """A convolution of an activation of a batch norm, of which backward needs the batch norm's input alone."""

    kind = "batch_norm_act_conv"

    batch_norm_act: Op
    conv: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.conv.infer(self.batch_norm_act.infer(*inputs))

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Names of the parts' own may be the same: each is told by its part."""
        held = {
            f"batch_norm.{name}": shape
            for name, shape in self.batch_norm_act.parameters(*inputs).items()
        }
        return held | {
            f"conv.{name}": shape for name, shape in self.conv.parameters(*inputs).items()
        }

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.batch_norm_act.buffers(*inputs)

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return self.conv.macs(output, *inputs)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        shape = self.batch_norm_act.infer(*inputs)
        first, then = (
            self.batch_norm_act.saves(batch, shape, *inputs),
            self.conv.saves(batch, output, shape),
        )
        activation = batch.bytes_of(shape)
        return Saved(
            inputs=(0,), extra=first.extra, forward=activation, backward=activation + then.backward
        )

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import batch_norm_act_conv

        return graph.call_function(batch_norm_act_conv, (*map(graph.get_attr, modules), *inputs))

    def __str__(self) -> str:
        return f"{self.kind}[{self.batch_norm_act}, {self.conv}]"


class _Faster(Op):
    """An op that runs in another way than its module where that is faster: chosen by size."""

    op: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.op.infer(*inputs)

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return self.op.parameters(*inputs)

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return self.op.macs(output, *inputs)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return self.op.saves(batch, output, *inputs)

    def __str__(self) -> str:
        return f"{self.kind}[{self.op}]"


class Convolution(_Faster):
    """A convolution that is computed, as its gradients are, by the fastest of several ways."""

    kind = "convolution"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The weight's gradient is made in its own layout, so nothing is in use for another's."""
        return dataclasses.replace(super().saves(batch, output, *inputs), backward=0)

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import conv2d

        return graph.call_function(conv2d, (*map(graph.get_attr, modules), *inputs))


class FullyConnected(_Faster):
    """A linear layer whose products over few rows are computed by the faster of two ways."""

    kind = "fully_connected"

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import linear

        return graph.call_function(linear, (*map(graph.get_attr, modules), *inputs))


class DenseBlock(Op):
    """Layers of which each adds channels to all before it: in one buffer, with the statistics of each map taken once.

    A layer is one step or more; a step is a batch norm, its activation, and the convolution that alone reads it.
    """

    kind = "dense_block"

    layers: tuple[tuple[tuple[BatchNormAct, Op], ...], ...]
    keep_activations: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (maps,) = inputs
        for layer in self.layers:
            shape = self._shapes(maps, layer)[-1]
            if shape.spatial != maps.spatial:
                raise ShapeError(f"a layer of a dense block gives {shape} for {maps}")
            maps = maps.with_channels(maps.channels + shape.channels)
        return maps

    def _shapes(
        self, maps: TensorShape, layer: Sequence[tuple[BatchNormAct, Op]]
    ) -> list[TensorShape]:
        """What a layer's steps read, and at last its result."""
        shapes = [maps]
        for norm, conv in layer:
            shapes.append(conv.infer(norm.infer(shapes[-1])))
        return shapes

    def steps(
        self, maps: TensorShape
    ) -> Iterator[tuple[str, BatchNormAct, Op, TensorShape, TensorShape]]:
        """Each step's name, ops, input and result."""
        for index, layer in enumerate(self.layers):
            shapes = self._shapes(maps, layer)
            for step, (norm, conv) in enumerate(layer):
                yield f"{index}.{step}", norm, conv, shapes[step], shapes[step + 1]
            maps = maps.with_channels(maps.channels + shapes[-1].channels)

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Names of the parts' own may be the same: each is told by its part."""
        held = {}
        for name, norm, conv, shape, _ in self.steps(*inputs):
            held |= {
                f"{name}.batch_norm.{key}": value for key, value in norm.parameters(shape).items()
            }
            held |= {f"{name}.conv.{key}": value for key, value in conv.parameters(shape).items()}
        return held

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {
            f"{name}.{key}": value
            for name, norm, _, shape, _ in self.steps(*inputs)
            for key, value in norm.buffers(shape).items()
        }

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return sum(conv.macs(result, shape) for _, _, conv, shape, result in self.steps(*inputs))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The buffer, and the maps between a layer's convolutions; what these read, unless that is computed again."""
        again = not self.keep_activations
        extra = forward = backward = 0
        for name, norm, conv, shape, result in self.steps(*inputs):
            activation, own = batch.bytes_of(shape), batch.bytes_of(result)
            step = int(name.partition(".")[2])
            if step == 0 and self._is_multiplied(batch, conv, shape, result):
                activation = 0
            last = step + 1 == len(self.layers[0])
            extra += (
                norm.saves(batch, shape, shape).extra
                + (0 if last else own)
                + (0 if again else activation)
            )
            forward = max(forward, own + activation * again)
            # The gradients of what the convolution read and made; the one on its way to the buffer has the buffer's size.
            backward = max(
                backward, own + activation * (1 + again) + conv.saves(batch, result, shape).backward
            )
        return Saved(
            inputs=(0,),
            output=True,
            extra=extra,
            forward=forward,
            backward=batch.bytes_of(output) + backward,
        )

    def _is_multiplied(
        self, batch: Batch, conv: Op, shape: TensorShape, result: TensorShape
    ) -> bool:
        """Whether the kernel makes a layer's first convolution with its norm: what it reads is then never there."""
        wide = min(shape.channels, result.channels) >= 32
        parameters = conv.parameters(shape)
        return (
            wide
            and batch.itemsize == 4
            and parameters == {"weight": (result.channels, shape.channels, 1, 1)}
        )

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import dense_block

        held = map(graph.get_attr, modules)
        layers = tuple(
            tuple((next(held), next(held), next(held)) for _ in layer) for layer in self.layers
        )
        return graph.call_function(dense_block, (*inputs, layers, self.keep_activations))

    def __str__(self) -> str:
        steps = ", ".join(f"{norm}, {conv}" for norm, conv in self.layers[0])
        return f"{self.kind}[{len(self.layers)} x ({steps})]"


class FusedMaxPool2d(Op):
    """A max pool, of a ReLU or not, that keeps neither's input for backward."""

    kind = "fused_max_pool2d"

    relu: Op | None
    pool: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.pool.infer(*inputs)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(
            extra=batch.size * output.elements
        )  # where in its window each result was found, in a byte

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import max_pool2d

        held = list(map(graph.get_attr, modules))
        return graph.call_function(max_pool2d, (*([] if self.relu else [None]), *held, *inputs))

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(str(part) for part in (self.relu, self.pool) if part is not None)}]"


class FoldedConv(Op):
    """A convolution with what follows it: a batch norm, the addition of another value, an activation, each or none."""

    kind = "folded_conv"

    conv: Op
    batch_norm: Op | None
    activation: Op | None
    residual: bool

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = self.conv.infer(inputs[0])
        _check_residual(self.residual, shape, inputs)
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        """Names of the parts' own may be the same: each is told by its part."""
        shape = self.conv.infer(inputs[0])
        held = {f"conv.{name}": value for name, value in self.conv.parameters(inputs[0]).items()}
        if self.batch_norm is not None:
            held |= {
                f"batch_norm.{name}": value
                for name, value in self.batch_norm.parameters(shape).items()
            }
        return held

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return (
            {} if self.batch_norm is None else self.batch_norm.buffers(self.conv.infer(inputs[0]))
        )

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return self.conv.macs(output, inputs[0])

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """In training the parts run as they are."""
        kept = (
            self.activation.saves(batch, output, output) if self.activation is not None else Saved()
        )
        extra = len(kept.inputs) * batch.bytes_of(output)
        if self.batch_norm is not None:
            extra += batch.bytes_of(output) + self.batch_norm.saves(batch, output, output).extra
        conv = self.conv.saves(batch, output, inputs[0])
        return Saved(
            inputs=conv.inputs, output=kept.output, extra=conv.extra + extra, backward=conv.backward
        )

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import folded_conv

        held = map(graph.get_attr, modules)
        conv = next(held)
        batch_norm = next(held) if self.batch_norm is not None else None
        activation = next(held) if self.activation is not None else None
        return graph.call_function(folded_conv, (conv, batch_norm, activation, *inputs))

    def __str__(self) -> str:
        parts = [self.conv, self.batch_norm, "add" if self.residual else None, self.activation]
        return f"{self.kind}[{', '.join(str(part) for part in parts if part is not None)}]"


def _check_residual(residual: bool, shape: TensorShape, inputs: Sequence[TensorShape]) -> None:
    if residual and inputs[1:] != (shape,):
        raise ShapeError(f"{inputs[1]} cannot be added to {shape}")


class ChannelsLast(Op):
    """The same map, laid out channels last in memory."""

    kind = "channels_last"

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return NOTHING

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph.nn import channels_last

        return graph.call_function(channels_last, tuple(inputs))
