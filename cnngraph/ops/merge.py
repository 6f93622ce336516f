"""Ops that merge several values into one, used by `parallel`, `residual`, `dense` and joins."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, ClassVar

from cnngraph.ops.op import Op
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import ShapeError, TensorShape

if TYPE_CHECKING:
    from torch import fx


class Concat(Op):
    """Concatenation on channels (on features for flat values), `torch.cat(..., dim=1)`."""

    kind: ClassVar[str] = "concat"
    pointwise = True
    sets_channels = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        if len({shape.spatial for shape in inputs}) > 1:
            raise ShapeError(
                f"only the channels of a concat may differ, but it gets {_listed(inputs)}",
                help="give the branches the same strides, and padding that keeps the size",
            )
        return inputs[0].with_channels(sum(shape.channels for shape in inputs))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(passes_gradient=tuple(range(len(inputs))))

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        import torch

        return graph.call_function(torch.cat, (list(inputs), 1))


class Add(Op):
    """Sum of values of one shape."""

    kind: ClassVar[str] = "add"
    pointwise = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        if len(set(inputs)) > 1:
            raise ShapeError(
                f"the sides of a sum must have one shape, but they are {_listed(inputs)}",
                help="make both sides end with the same channels and stride",
            )
        return inputs[0]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(passes_gradient=tuple(range(len(inputs))))

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return reduce(lambda a, b: graph.call_function(operator.add, (a, b)), inputs)


class Multiply(Op):
    """Product of values. Dimensions of size 1 are broadcast: a Cx1x1 gate scales a CxHxW map."""

    kind: ClassVar[str] = "multiply"
    pointwise = True

    def infer(self, *inputs: TensorShape) -> TensorShape:
        sizes = [set(sizes) - {1} for sizes in zip(*inputs, strict=False)]
        if len({len(shape) for shape in inputs}) > 1 or any(len(size) > 1 for size in sizes):
            raise ShapeError(
                f"the factors of a product must have one shape, or size 1 where they differ, "
                f"but they are {_listed(inputs)}",
                help="a gate needs as many channels as what it scales; "
                "end it with `global_avg_pool2d` and 1x1 convolutions",
            )
        return TensorShape(map(max, zip(*inputs, strict=True)))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        whole = batch.bytes_of(output)
        repeated = any(shape != output for shape in inputs)
        return Saved(
            inputs=tuple(range(len(inputs))),
            extra=(len(inputs) - 2) * whole,  # intermediate products
            backward=whole
            if repeated
            else 0,  # the gradient of a broadcast input, before it is summed
        )

    def emit(self, graph: fx.Graph, modules: Sequence[str], inputs: Sequence[fx.Node]) -> fx.Node:
        return reduce(lambda a, b: graph.call_function(operator.mul, (a, b)), inputs)


MERGES: dict[str, Op] = {"concat": Concat(), "add": Add(), "multiply": Multiply()}
"""Name -> the op that joins values so."""


def _listed(shapes: Sequence[TensorShape]) -> str:
    return " and ".join(map(str, shapes))
