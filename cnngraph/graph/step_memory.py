"""How much memory a training step needs, from the graph alone: forward and backward are gone through, nothing is run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph, Node
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormActConv, DenseBlock
from cnngraph.ops.saved import Batch, Saved
from cnngraph.shape import TensorShape

ITEMSIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Bytes of a value. In the two of 16 bits a step runs by autocast: weights and their gradients stay in float32."""


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step, in bytes: what torch allocates for tensors, its libraries' own scratch apart.

    Attributes:
        batch_size: images in the step.
        weights: parameters and buffers, there all the time.
        optimizer: the state of SGD with momentum, one value for each parameter (Adam has two).
        input: the batch itself.
        kept: what is kept for backward when forward is over, the result included.
        step: the most that the step allocates at once: what is kept, values and gradients on their way, and the
            gradients of the parameters.
    """

    batch_size: int
    weights: int
    optimizer: int
    input: int
    kept: int
    step: int

    @property
    def peak(self) -> int:
        """The most there is at any moment."""
        return self.weights + self.optimizer + self.input + self.step


def predict(graph: Graph, batch_size: int = 16, dtype: str = "float32") -> StepMemory:
    """The memory of a training step of an optimized graph: forward, a loss of each result, backward, all weights trained.

    Raises `CnngraphError` for a dtype there is no figure for.
    """
    if dtype not in ITEMSIZES:
        raise CnngraphError(f"memory is predicted for {', '.join(ITEMSIZES)}, not for `{dtype}`")
    batch = Batch(batch_size, ITEMSIZES[dtype])
    step = _Step(graph, batch)
    kept = step.run()
    parameters = sum(step.parameters.values())
    buffers = (
        prod(shape)
        for node in graph.nodes
        for shape in node.op.buffers(*graph.input_shapes(node)).values()
    )
    return StepMemory(
        batch_size=batch_size,
        weights=parameters + sum(buffers) * batch.accumulated,
        optimizer=parameters,
        input=batch.bytes_of(graph.input),
        kept=kept,
        step=step.peak,
    )


_MACS_PER_BYTE = 8
"""Multiply-accumulates that take as long as moving a byte of a large tensor."""


def extra_time(graph: Graph, batch_size: int = 16) -> float:
    """What computing again adds to a step's time, roughly, as a share of the step without: backward takes two forwards."""
    batch = Batch(batch_size)
    again = forward = 0.0
    for node in graph.nodes:
        shapes = graph.input_shapes(node)
        forward += _forward_time(node, shapes, batch)
        again += recompute_time(node, shapes, batch)
    return again / (3 * forward)


def recompute_time(node: Node, inputs: Sequence[TensorShape], batch: Batch) -> float:
    """How long a node computes again in backward, roughly, in bytes that could be moved in that time."""
    if isinstance(node.op, BatchNormActConv):
        return batch.bytes_of(inputs[0], inputs[0])
    if isinstance(node.op, DenseBlock) and not node.op.keep_activations:
        return sum(2 * batch.bytes_of(shape) for *_, shape, _ in node.op.steps(*inputs))
    if not isinstance(node.op, Recomputed):
        return 0.0
    inner = list(node.op.inner(*inputs))
    if isinstance(inner[-1][0].op, Conv2d):
        inner.pop()  # backward needs its input, not its result
    return sum(_forward_time(part, shapes, batch) for part, shapes in inner)


def _forward_time(node: Node, inputs: Sequence[TensorShape], batch: Batch) -> float:
    if isinstance(node.op, Recomputed):
        return sum(_forward_time(part, shapes, batch) for part, shapes in node.op.inner(*inputs))
    return node.op.macs(node.shape, *inputs) * batch.size / _MACS_PER_BYTE + batch.bytes_of(
        node.shape, *inputs
    )


@dataclass(eq=False)
class _Tensor:
    """Memory that several hold at once, and that is free when the last lets go."""

    bytes: int
    holders: int = 1


@dataclass
class _Call:
    """An op that forward went through, and what it holds until backward has."""

    node: Node
    saved: Saved
    tensors: list[_Tensor]


class _Step:
    """Goes through a step as torch does, and counts what is allocated.

    Forward lets go of a value after its last reader, unless an op keeps it. Backward goes the other way, lets go of what
    an op kept when it is through with it, and adds up gradients of values that several have read.
    """

    def __init__(self, graph: Graph, batch: Batch) -> None:
        self.graph = graph
        self.batch = batch
        self.live = 0
        self.peak = 0
        self.parameters: dict[str, int] = {}
        self.shapes: dict[str, TensorShape] = {INPUT: graph.input}
        self.trained: set[str] = set()
        """Values that a gradient is computed for."""
        self.gradients: dict[str, _Tensor] = {}

    def run(self) -> int:
        """Returns how much there is when forward is over."""
        outputs = self.graph.outputs
        values = {INPUT: _Tensor(0)}  # it was there before
        calls = self._forward(self.graph.nodes, values, outputs)
        losses = [self._new(self.batch.bytes_of(self.shapes[path])) for path in sorted(outputs)]
        for path in outputs:
            self._release(values[path])
        kept = self.live
        for path, loss in zip(sorted(outputs), losses, strict=True):
            # Of the loss, what it keeps; of its gradient, that of what it keeps and that of the result.
            passing = self._new(loss.bytes)
            if path in self.trained:
                self._add_gradient(path, self._new(loss.bytes))
            self._release(passing)
            self._release(loss)
        self._backward(calls)
        return kept

    # --- what there is ---------------------------------------------------------------------------------------------

    def _new(self, bytes: int) -> _Tensor:
        self.live += bytes
        self.peak = max(self.peak, self.live)
        return _Tensor(bytes)

    def _hold(self, tensor: _Tensor) -> _Tensor:
        tensor.holders += 1
        return tensor

    def _release(self, tensor: _Tensor) -> None:
        tensor.holders -= 1
        if not tensor.holders:
            self.live -= tensor.bytes

    # --- forward ---------------------------------------------------------------------------------------------------

    def _forward(
        self,
        nodes: Sequence[Node],
        values: dict[str, _Tensor],
        outputs: Collection[str],
        keep: bool = True,
    ) -> list[_Call]:
        """Computes `nodes`, and lets go of all values but `outputs` and those given. With `keep`, backward is to follow."""
        last = {path: node.path for node in nodes for path in (*node.inputs, node.path)}
        over: dict[str, list[str]] = defaultdict(list)
        for path, reader in last.items():
            if path not in values and path not in outputs:
                over[reader].append(path)
        calls = []
        for node in nodes:
            calls += self._call(node, values, keep)
            for path in over[node.path]:
                self._release(values.pop(path))
        return calls

    def _call(self, node: Node, values: dict[str, _Tensor], keep: bool) -> list[_Call]:
        inputs = [self.shapes[path] for path in node.inputs]
        saved = node.op.saves(self.batch, node.shape, *inputs)
        if isinstance(node.op, Recomputed):
            inner = {path: values[path] for path in node.inputs}
            self._forward(node.op.nodes, inner, {node.path}, keep=False)
            output = inner[node.path]
        else:
            self.shapes[node.path] = node.shape
            self.parameters[node.path] = (
                sum(map(prod, node.op.parameters(*inputs).values())) * self.batch.accumulated
            )
            if self.parameters[node.path] or not self.trained.isdisjoint(node.inputs):
                self.trained.add(node.path)
            output = (
                self._hold(values[node.inputs[0]])
                if saved.view
                else self._new(self.batch.bytes_of(node.shape))
            )
            self._release(self._new(saved.forward))
        values[node.path] = output
        if not keep or node.path not in self.trained:
            return []
        tensors = [self._hold(values[node.inputs[index]]) for index in saved.inputs]
        if saved.output:
            tensors.append(self._hold(output))
        tensors.append(self._new(saved.extra))
        if (
            self.batch.itemsize < 4
            and node.op.macs(node.shape, *inputs)
            and not isinstance(node.op, Recomputed)
        ):
            tensors.append(
                self._new(self.parameters[node.path] * self.batch.itemsize // 4)
            )  # autocast's copy
        return [_Call(node, saved, tensors)]

    # --- backward --------------------------------------------------------------------------------------------------

    def _backward(self, calls: list[_Call]) -> None:
        for call in reversed(calls):
            gradient = self.gradients.pop(call.node.path, None)
            found = [] if gradient is None else self._differentiate(call, gradient)
            for tensor in call.tensors:
                self._release(tensor)
            for path, tensor in found:
                self._add_gradient(path, tensor)

    def _differentiate(self, call: _Call, gradient: _Tensor) -> list[tuple[str, _Tensor]]:
        """The gradients of the inputs."""
        node, saved = call.node, call.saved
        if isinstance(node.op, Recomputed):
            return self._recompute(node, node.op, call.tensors, gradient)
        passing = self._new(saved.backward)
        self._new(self.parameters[node.path])  # their gradients stay
        found = []
        for index, path in enumerate(node.inputs):
            if path in self.trained:
                own = index not in saved.passes_gradient
                found.append(
                    (
                        path,
                        self._new(self.batch.bytes_of(self.shapes[path]))
                        if own
                        else self._hold(gradient),
                    )
                )
        self._release(passing)
        self._release(gradient)
        return found

    def _recompute(
        self, node: Node, op: Recomputed, inputs: list[_Tensor], gradient: _Tensor
    ) -> list[tuple[str, _Tensor]]:
        values = dict(zip(node.inputs, inputs, strict=False))
        calls = self._forward(op.nodes, values, {node.path})
        self._release(values[node.path])
        self.gradients[node.path] = gradient
        self._backward(calls)
        return []

    def _add_gradient(self, path: str, tensor: _Tensor) -> None:
        before = self.gradients.get(path)
        if before is None:
            self.gradients[path] = tensor
            return
        size = self.batch.bytes_of(self.shapes[path])
        if (
            before.holders > 1 or before.bytes != size
        ):  # others hold it too, or it is a part: the sum is a new one
            self.gradients[path] = self._new(size)
            self._release(before)
        self._release(tensor)
