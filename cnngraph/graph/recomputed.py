"""Several nodes as one op that keeps only what they read: backward recomputes the rest."""

from __future__ import annotations

from pydantic import InstanceOf

from cnngraph.graph import Node
from cnngraph.ops.op import Op
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import TensorShape


class Recomputed(Op):
    """A part of the graph as one op, with the result of its last node.

    Attributes:
        reads: paths of the values it reads, in the order of the inputs.
        nodes: the part's nodes, in order; only the last is read by others.
    """

    kind = "recomputed"

    reads: tuple[str, ...]
    nodes: tuple[InstanceOf[Node], ...]

    def infer(self, *inputs: TensorShape) -> TensorShape:
        shapes = dict(zip(self.reads, inputs, strict=True))
        for node in self.nodes:
            shapes[node.path] = node.op.infer(*(shapes[path] for path in node.inputs))
        return shapes[self.nodes[-1].path]

    def saves(self, batch: Batch, output: TensorShape, *inputs: TensorShape) -> Saved:
        return Saved(inputs=tuple(range(len(inputs))))

    def __str__(self) -> str:
        return f"{self.kind}[{', '.join(str(node.op) for node in self.nodes)}]"
