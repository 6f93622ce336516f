"""How much memory a training step needs, from the graph alone: forward and backward are gone through, nothing is run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from cnngraph.errors import CnngraphError
from cnngraph.graph import INPUT, Graph, Node, TensorShape
from cnngraph.ops.saved import Batch, Saved

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
    buffers = (prod(shape) for node in graph.nodes for shape in node.op.buffers(*graph.input_shapes(node)).values())
    return StepMemory(
        batch_size=batch_size,
        weights=parameters + sum(buffers) * batch.accumulated,
        optimizer=parameters,
        input=batch.bytes_of(graph.input),
        kept=kept,
        step=step.peak,
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
        self.parameters = {node.path: self._bytes_of_parameters(node) for node in graph.nodes}
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

    def _bytes_of_parameters(self, node: Node) -> int:
        shapes = node.op.parameters(*self.graph.input_shapes(node)).values()
        return sum(map(prod, shapes)) * self.batch.accumulated

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

    def _forward(self, nodes: Iterable[Node], values: dict[str, _Tensor], outputs: Iterable[str]) -> list[_Call]:
        """Computes `nodes`. The values that are left are `outputs`; those given are read, and stay."""
        nodes = tuple(nodes)
        given = set(values)
        last = {path: node.path for node in nodes for path in (*node.inputs, node.path) if path not in outputs}
        last = {path: reader for path, reader in last.items() if path not in given}
        over: dict[str, list[str]] = {}
        for path, reader in last.items():
            over.setdefault(reader, []).append(path)
        calls = []
        for node in nodes:
            calls += self._call(node, values)
            for path in over.get(node.path, ()):
                self._release(values.pop(path))
        return calls

    def _call(self, node: Node, values: dict[str, _Tensor]) -> list[_Call]:
        self.shapes[node.path] = node.shape
        inputs = [self.shapes[path] for path in node.inputs]
        saved = node.op.saves(self.batch, node.shape, *inputs)
        output = self._hold(values[node.inputs[0]]) if saved.view else self._new(self.batch.bytes_of(node.shape))
        self._release(self._new(saved.forward))
        values[node.path] = output
        if not self.parameters[node.path] and self.trained.isdisjoint(node.inputs):
            return []  # nothing of it is differentiated
        self.trained.add(node.path)
        tensors = [self._hold(values[node.inputs[index]]) for index in saved.inputs]
        if saved.output:
            tensors.append(self._hold(output))
        tensors.append(self._new(saved.extra))
        if self.batch.itemsize < 4 and node.op.macs(node.shape, *inputs):
            tensors.append(self._new(self.parameters[node.path] * self.batch.itemsize // 4))  # autocast's copy
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
        passing = self._new(saved.backward)
        self._new(self.parameters[node.path])  # their gradients stay
        found = []
        for path in node.inputs:
            if path in self.trained:
                own = not saved.passes_gradient
                found.append((path, self._new(self.batch.bytes_of(self.shapes[path])) if own else self._hold(gradient)))
        self._release(passing)
        self._release(gradient)
        return found

    def _add_gradient(self, path: str, tensor: _Tensor) -> None:
        before = self.gradients.get(path)
        if before is None:
            self.gradients[path] = tensor
            return
        size = self.batch.bytes_of(self.shapes[path])
        if before.holders > 1 or before.bytes != size:  # others hold it too, or it is a part: the sum is a new one
            self.gradients[path] = self._new(size)
            self._release(before)
        self._release(tensor)
