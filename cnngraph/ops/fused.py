"""Ops that passes put in place of several nodes. Specs cannot name them.

Their modules, parameters, buffers and multiply-accumulates are those of the nodes they replace: see
`graph.cost`. These classes only add their shape rule, what backward keeps, and the call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

from cnngraph.ops.activation import ReLU
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.merge import Concat
from cnngraph.ops.op import Op
from cnngraph.ops.saved import NOTHING, UNCHANGED, Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx


class FusedOp(Op):
    """An op that calls a function of `cnngraph.nn` with the modules of the nodes it replaces."""

    function: ClassVar[str]
    """The function's name."""

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        """The function's arguments; by default the modules, then the inputs."""
        return (*modules, *inputs)

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        from cnngraph import nn

        arguments = self.call(list(map(graph.get_attr, modules)), inputs)
        return graph.call_function(getattr(nn, self.function), arguments)

    def described(self) -> Sequence[Op | str | None]:
        """What the op's text lists in brackets, without None."""
        return ()

    def __str__(self) -> str:
        parts = [str(part) for part in self.described() if part is not None]
        return f"{self.kind}[{', '.join(parts)}]" if parts else self.kind


class BatchNormAct(FusedOp):
    """A batch norm, with the addition of another value (`residual`), an activation, or both."""

    kind = "batch_norm_act"
    function = "batch_norm_act"

    batch_norm: Op
    activation: Op | None
    residual: bool = False

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = self.batch_norm.infer(inputs[0])
        _check_residual(self.residual, shape, inputs)
        return shape if self.activation is None else self.activation.infer(shape)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """A ReLU of a sum needs only its output; without an activation the sum is not needed."""
        statistics = 2 * inputs[0].channels * batch.accumulated
        if not self.residual:
            return Saved(inputs=(0,), extra=statistics)
        if self.activation is None:
            return Saved(inputs=(0,), extra=statistics, passes_gradient=(1,))
        from_output = isinstance(self.activation, ReLU)
        return Saved(inputs=(0,) if from_output else (0, 1), output=from_output, extra=statistics)

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        return (*modules, *([] if self.activation else [None]), *inputs)

    def described(self) -> Sequence[Op | str | None]:
        return self.batch_norm, "add" if self.residual else None, self.activation


class CatBatchNormAct(FusedOp):
    """A concatenation whose branches write the results of batch norms and activations into it.

    Attributes:
        branches: for each input a `BatchNormAct`, a ReLU, or None.
    """

    kind = "cat_batch_norm_act"
    function = "cat_batch_norm_act"

    branches: tuple[Op | None, ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return Concat().infer(*(shape for _, shape in self._with_shapes(*inputs)))

    def _with_shapes(self, *inputs: TensorShape) -> Iterator[tuple[Op | None, TensorShape]]:
        for branch, shape in zip(self.branches, inputs, strict=True):
            yield branch, shape if branch is None else branch.infer(shape)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """A ReLU without a batch norm needs only its output."""
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

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        """A (batch norm, activation, value) for each branch."""
        remaining = iter(modules)
        branches: list[tuple[fx.Node | None, fx.Node | None, fx.Node]] = []
        for branch, value in zip(self.branches, inputs, strict=True):
            norm = next(remaining) if isinstance(branch, BatchNormAct) else None
            plain = branch is None or (
                isinstance(branch, BatchNormAct) and branch.activation is None
            )
            branches.append((norm, None if plain else next(remaining), value))
        return tuple(branches)

    def described(self) -> Sequence[Op | str | None]:
        return [branch or "identity" for branch in self.branches]


class BatchNormActConv(FusedOp):
    """A convolution of a batch norm's activation, which backward recomputes."""

    kind = "batch_norm_act_conv"
    function = "batch_norm_act_conv"

    batch_norm_act: Op
    conv: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.conv.infer(self.batch_norm_act.infer(*inputs))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        shape = self.batch_norm_act.infer(*inputs)
        statistics = self.batch_norm_act.saves(batch, shape, *inputs).extra
        activation = batch.bytes_of(shape)
        conv = self.conv.saves(batch, output, shape)
        return Saved(
            inputs=(0,),
            extra=statistics,
            forward=activation + conv.forward,
            backward=activation + conv.backward,
            weights=activation + conv.training,
        )

    def described(self) -> Sequence[Op | str | None]:
        return self.batch_norm_act, self.conv


class _ChoosesKernel(FusedOp):
    """An op that runs by the fastest kernel for its size instead of by its module."""

    op: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.op.infer(*inputs)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return self.op.saves(batch, output, *inputs)

    def described(self) -> Sequence[Op | str | None]:
        return (self.op,)


class Convolution(_ChoosesKernel):
    """A convolution whose result and gradients are computed by the fastest kernel for its size."""

    kind = "convolution"
    function = "conv2d"

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The weight's gradient is computed in its own layout, so no other copy is needed.

        Backward has the gradient of a padded input, if there is one. A network may be trained on
        another processor than it is checked on, so a copy counts if the library computes the
        gradient on any (csrc/conv2d/choice.cpp). Small convolutions are always the library's.
        """
        saved = super().saves(batch, output, *inputs)
        assert isinstance(self.op, Conv2d)
        if self.op.columns(batch, output, *inputs):
            return saved
        channels = min(inputs[0].channels, output.channels)
        positions = batch.size * output.elements // output.channels
        weight = prod(self.op.parameters(*inputs)["weight"])
        macs = batch.size * inputs[0].elements * weight // inputs[0].channels
        winograd = (self.op.kernel_size, self.op.stride, self.op.dilation) == _WINOGRAD
        ours = self.op.groups == 1 and channels >= _LEAST_CHANNELS and macs >= _LEAST_MACS
        if ours and positions >= _FEWEST and (winograd or positions <= _MOST):
            return dataclasses.replace(saved, backward=saved.extra, weights=saved.extra)
        return saved


# Bounds of csrc/conv2d/choice.cpp and kernels/conv2d.py within which weight gradients are never the
# library's: kernel size, stride and dilation of Winograd filtering, channels, multiply-accumulates,
# and positions of the result in the whole batch.
_WINOGRAD = ((3, 3), (1, 1), (1, 1))
_LEAST_CHANNELS, _LEAST_MACS = 32, 10_000_000
_FEWEST, _MOST = 128, 1000


class FullyConnected(_ChoosesKernel):
    """A linear layer whose products are computed by the fastest kernel for its number of rows."""

    kind = "fully_connected"
    function = "linear"


class DenseBlock(FusedOp):
    """Layers that each append channels to one buffer, with the statistics of each map taken once.

    Attributes:
        layers: a layer has one or more steps; a step is a batch norm with an activation, and the
            convolution that alone reads it.
        keep_activations: whether what the convolutions read is kept for backward, or recomputed.
    """

    kind = "dense_block"
    function = "dense_block"

    layers: tuple[tuple[tuple[BatchNormAct, Op], ...], ...]
    keep_activations: bool = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (maps,) = inputs
        for layer in self.layers:
            shape = maps
            for norm, conv in layer:
                shape = conv.infer(norm.infer(shape))
            if shape.spatial != maps.spatial:
                raise ShapeError(f"a layer of a dense block gives {shape} for {maps}")
            maps = maps.with_channels(maps.channels + shape.channels)
        return maps

    def steps(
        self, maps: TensorShape
    ) -> Iterator[tuple[int, BatchNormAct, Op, TensorShape, TensorShape]]:
        """Each step's index in its layer, its ops, and the shapes of its input and result."""
        for layer in self.layers:
            shape = maps
            for index, (norm, conv) in enumerate(layer):
                result = conv.infer(norm.infer(shape))
                yield index, norm, conv, shape, result
                shape = result
            maps = maps.with_channels(maps.channels + shape.channels)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The buffer, the maps between a layer's convolutions, and their inputs if kept."""
        recompute = not self.keep_activations
        steps = list(self.steps(*inputs))
        per_layer = len(self.layers[0])
        summed = batch.bytes_of(steps[-per_layer][3])  # the gradient of what the last layer reads
        extra = forward = backward = 0
        for number, (index, norm, conv, shape, result) in enumerate(steps):
            first, last = index == 0, index + 1 == per_layer
            own = batch.bytes_of(result)
            in_blocks = first and self._is_multiplied(batch, conv, shape, result)
            activation = 0 if in_blocks else batch.bytes_of(shape)
            extra += norm.saves(batch, shape, shape).extra
            extra += (0 if last else own) + (0 if recompute else activation)
            forward = max(forward, own + activation * recompute)
            # The gradients of the convolution's input and result; the last layer makes the sum to
            # which the others add.
            gradients = own + activation * (1 + recompute)
            gradients += conv.saves(batch, result, shape).training
            if number < len(steps) - per_layer:
                gradients += summed
            backward = max(backward, gradients, summed + max(own, activation))
        return Saved(
            inputs=(0,),
            output=True,
            extra=extra,
            forward=forward,
            backward=backward,
        )

    def _is_multiplied(
        self, batch: Batch, conv: Op, shape: TensorShape, result: TensorShape
    ) -> bool:
        """Whether the kernel normalises blocks of the convolution's input as it multiplies them."""
        wide = min(shape.channels, result.channels) >= 32
        parameters = conv.parameters(shape)
        pointwise = {"weight": (result.channels, shape.channels, 1, 1)}
        return wide and batch.itemsize == 4 and parameters == pointwise

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        """The input, a (batch norm, activation, convolution) for each step, and the flag."""
        triples = zip(*[iter(modules)] * 3, strict=True)
        layers = tuple(tuple(next(triples) for _ in layer) for layer in self.layers)
        return (*inputs, layers, self.keep_activations)

    def described(self) -> Sequence[Op | str | None]:
        steps = ", ".join(f"{norm}, {conv}" for norm, conv in self.layers[0])
        return (f"{len(self.layers)} x ({steps})",)


class FusedMaxPool2d(FusedOp):
    """A max pool, with the ReLU before it or without, that keeps one byte per result."""

    kind = "fused_max_pool2d"
    function = "max_pool2d"

    relu: Op | None
    pool: Op

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return self.pool.infer(*inputs)

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        """The position of each result in its window, in one byte."""
        return Saved(extra=batch.size * output.elements)

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        return (*([] if self.relu else [None]), *modules, *inputs)

    def described(self) -> Sequence[Op | str | None]:
        return self.relu, self.pool


class Folded(FusedOp):
    """A layer, batch norm, addition and activation in one module, for evaluation."""

    kind = "folded"

    layer: Op
    batch_norm: Op | None
    activation: Op | None
    residual: bool

    @property
    def has_module(self) -> bool:
        return True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = self.layer.infer(inputs[0])
        _check_residual(self.residual, shape, inputs)
        return shape

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return graph.call_module(modules[0], tuple(inputs))

    def described(self) -> Sequence[Op | str | None]:
        return self.layer, self.batch_norm, "add" if self.residual else None, self.activation


class DenseLayers(FusedOp):
    """Layers that each append channels to one buffer, for evaluation.

    Attributes:
        layers: a batch norm with its activation and the folded layers after it, for each.
    """

    kind = "dense_layers"
    function = "dense_layers"

    layers: tuple[tuple[Op, ...], ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        (maps,) = inputs
        for layer in self.layers:
            shape = maps
            for op in layer:
                shape = op.infer(shape)
            maps = Concat().infer(maps, shape)
        return maps

    def call(self, modules: Sequence[fx.Node], inputs: Sequence[fx.Node]) -> tuple[Any, ...]:
        """The input, and for each layer its batch norm, activation and other modules."""
        rest = iter(modules)
        layers: list[tuple[fx.Node | None, ...]] = []
        for norm, *others in self.layers:
            assert isinstance(norm, BatchNormAct)
            first = next(rest), None if norm.activation is None else next(rest)
            layers.append((*first, *(next(rest) for _ in others)))
        return (*inputs, tuple(layers))

    def described(self) -> Sequence[Op | str | None]:
        return (f"{len(self.layers)} x ({', '.join(map(str, self.layers[0]))})",)


def _check_residual(residual: bool, shape: TensorShape, inputs: Sequence[TensorShape]) -> None:
    if residual and inputs[1:] != (shape,):
        raise ShapeError(f"{inputs[1]} cannot be added to {shape}")


class ChannelsLast(FusedOp):
    """The same map in channels_last memory layout."""

    kind = "channels_last"
    function = "channels_last"
    saved = NOTHING

    def infer(self, *inputs: TensorShape) -> TensorShape:
        return inputs[0]
