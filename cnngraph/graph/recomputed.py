"""Several ops of which backward keeps no more than what they read: it computes them again."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import InstanceOf

from cnngraph.graph import Node
from cnngraph.ops.op import Op
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import TensorShape


class Recomputed(Op):
    """A part of the graph as one op: the last of its nodes is its result, and the only one that is read outside."""

    kind = "recomputed"

    reads: tuple[str, ...]
    """Paths of the values from outside, in the order of the inputs."""
    nodes: tuple[InstanceOf[Node], ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shape = inputs[0]
        for node, shapes in self.inner(*inputs):
            shape = node.op.infer(*shapes)
        return shape

    def parameters(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {
            f"{node.path}.{name}": shape
            for node, shapes in self.inner(*inputs)
            for name, shape in node.op.parameters(*shapes).items()
        }

    def buffers(self, *inputs: TensorShape) -> dict[str, tuple[int, ...]]:
        return {
            f"{node.path}.{name}": shape
            for node, shapes in self.inner(*inputs)
            for name, shape in node.op.buffers(*shapes).items()
        }

    def macs(self, output: TensorShape, *inputs: TensorShape) -> int:
        return sum(node.op.macs(node.shape, *shapes) for node, shapes in self.inner(*inputs))

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(inputs=tuple(range(len(inputs))))

    def inner(self, *inputs: TensorShape) -> Iterator[tuple[Node, list[TensorShape]]]:
        """The nodes, each with the shapes it reads."""
        known = dict(zip(self.reads, inputs, strict=True))
        for node in self.nodes:
            yield node, [known[path] for path in node.inputs]
            known[node.path] = node.shape

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(str(node.op) for node in self.nodes)}]"
