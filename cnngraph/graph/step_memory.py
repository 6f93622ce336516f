"""Predicts the memory of a training step, by simulating forward and backward on the graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import prod

from cnngraph.errors import CnngraphError, listing
from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import node_cost
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormActConv, DenseBlock
from cnngraph.ops.saved import Batch, Saved

ITEMSIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Bytes per value. The 16-bit types mean autocast: weights and their gradients stay in float32."""


OPTIMIZERS = {
    "SGD": 1,
    "Adam": 2,
    "AdamW": 2,
    "NAdam": 2,
    "RAdam": 2,
    "Adamax": 2,
    "Adadelta": 2,
    "Adagrad": 1,
    "ASGD": 1,
    "Rprop": 2,
    "RMSprop": 1,
}
"""Optimizers of `torch.optim` -> the values that they keep for each parameter.

SGD is with momentum; without it, it keeps none. The others have their default arguments.
"""


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step, in bytes: what torch allocates for tensors.

    The scratch memory of torch's libraries is not included.

    Attributes:
        batch_size: images in the step.
        weights: parameters and buffers, allocated all the time.
        optimizer: the state of SGD with momentum, one value per parameter (Adam has two).
        input: the batch itself.
        kept: values saved for backward at the end of forward, the result included.
        step: the peak of what the step itself allocates: values kept for backward, temporary
            values and gradients, and the gradients of the parameters.
    """

    batch_size: int
    weights: int
    optimizer: int
    input: int
    kept: int
    step: int

    @property
    def peak(self) -> int:
        """The most that is allocated at any moment."""
        return self.weights + self.optimizer + self.input + self.step

    def with_optimizer(self, name: str) -> StepMemory:
        """The same with another optimizer. Raises `CnngraphError` unless `OPTIMIZERS` has it."""
        if name not in OPTIMIZERS:
            known = listing([*OPTIMIZERS], "or")
            raise CnngraphError(f"memory is predicted for {known}, not for `{name}`")
        return replace(self, optimizer=self.optimizer * OPTIMIZERS[name])


def predict(graph: Graph, batch_size: int = 16, dtype: str = "float32") -> StepMemory:
    """The memory of a training step of an optimized graph, in which all weights are trained.

    The step is a forward pass, a loss of each result, and a backward pass.

    Raises `CnngraphError` unless `dtype` is one of `ITEMSIZES`.
    """
    if dtype not in ITEMSIZES:
        raise CnngraphError(f"memory is predicted for {', '.join(ITEMSIZES)}, not for `{dtype}`")
    batch = Batch(batch_size, ITEMSIZES[dtype])
    step = _Step(graph, batch)
    kept = step.run()
    parameters = sum(step.parameters.values())
    buffers = sum(
        prod(shape)
        for leaf in graph.leaves()
        for shape in leaf.op.buffers(*graph.input_shapes(leaf)).values()
    )
    return StepMemory(
        batch_size=batch_size,
        weights=parameters + buffers * batch.accumulated,
        optimizer=parameters,
        input=batch.bytes_of(*graph.inputs.values()),
        kept=kept,
        step=step.peak,
    )


def largest_batch(graph: Graph, budget: int, optimizer: str = "SGD") -> int:
    """The largest batch whose training step fits into a budget in bytes; 0 if not even one image.

    The graph is an optimized one, as for `predict`.
    """

    def peak(batch_size: int) -> int:
        return predict(graph, batch_size).with_optimizer(optimizer).peak

    fits, too_large = 0, 1
    while peak(too_large) <= budget:
        fits, too_large = too_large, 2 * too_large
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        fits, too_large = (middle, too_large) if peak(middle) <= budget else (fits, middle)
    return fits


_MACS_PER_BYTE = 8
"""Multiply-accumulates that take as long as moving one byte of a large tensor."""


def extra_time(graph: Graph, batch_size: int = 16) -> float:
    """Estimates the time that recomputation adds to a step, as a share of the step without it.

    Backward is taken to need the time of two forward passes.
    """
    batch = Batch(batch_size)
    recompute = sum(recompute_time(graph, node, batch) for node in graph.nodes)
    forward = sum(_forward_time(graph, node, batch) for node in graph.nodes)
    return recompute / (3 * forward)


def recompute_time(graph: Graph, node: Node, batch: Batch) -> float:
    """Estimates the time a node recomputes in backward, in bytes that could be moved in it."""
    inputs = graph.input_shapes(node)
    if isinstance(node.op, BatchNormActConv):
        return batch.bytes_of(inputs[0], inputs[0])
    if isinstance(node.op, DenseBlock) and not node.op.keep_activations:
        return sum(2 * batch.bytes_of(shape) for *_, shape, _ in node.op.steps(*inputs))
    if not isinstance(node.op, Recomputed):
        return 0.0
    inner = node.op.nodes
    if isinstance(inner[-1].op, Conv2d):
        inner = inner[:-1]  # backward needs its input, not its result
    return sum(_forward_time(graph, part, batch) for part in inner)


def _forward_time(graph: Graph, node: Node, batch: Batch) -> float:
    if isinstance(node.op, Recomputed):
        return sum(_forward_time(graph, part, batch) for part in node.op.nodes)
    moved = batch.bytes_of(node.shape, *graph.input_shapes(node))
    return node_cost(graph, node).macs * batch.size / _MACS_PER_BYTE + moved


@dataclass(eq=False)
class _Tensor:
    """Memory with a reference count: it is freed when the last holder releases it."""

    bytes: int
    holders: int = 1


@dataclass
class _Call:
    """An op that forward ran, and the memory it keeps for backward."""

    node: Node
    saved: Saved
    tensors: list[_Tensor]


class _Step:
    """Simulates a step as torch runs it, and counts what is allocated.

    Forward releases a value after its last reader, unless an op keeps it. Backward runs in reverse
    order, releases what each op kept, and adds up the gradients of values with several readers.
    """

    def __init__(self, graph: Graph, batch: Batch) -> None:
        self.graph = graph
        self.batch = batch
        self.live = 0
        self.peak = 0
        self.parameters: dict[str, int] = {}
        self.trained: set[str] = set()
        """Paths of the values that need a gradient."""
        self.gradients: dict[str, _Tensor] = {}

    def run(self) -> int:
        """Returns how much is allocated at the end of forward."""
        outputs = self.graph.outputs
        values = {name: _Tensor(0) for name in self.graph.inputs}  # not allocated by the step
        calls = self._forward(self.graph.nodes, values, outputs)
        losses = [
            self._new(self.batch.bytes_of(self.graph.shape_of(path))) for path in sorted(outputs)
        ]
        for path in outputs:
            self._release(values[path])
        kept = self.live
        for path, loss in zip(sorted(outputs), losses, strict=True):
            # What the loss keeps, the gradient of that, and the gradient of the result.
            temporary = self._new(loss.bytes)
            if path in self.trained:
                self._add_gradient(path, self._new(loss.bytes))
            self._release(temporary)
            self._release(loss)
        self._backward(calls)
        return kept

    # --- memory ---------------------------------------------------------------------------------

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

    # --- forward --------------------------------------------------------------------------------

    def _forward(
        self,
        nodes: Sequence[Node],
        values: dict[str, _Tensor],
        outputs: Collection[str],
        keep: bool = True,
    ) -> list[_Call]:
        """Computes `nodes`, and releases all values except `outputs` and the given ones.

        With `keep`, ops keep what backward needs.
        """
        last = {path: node.path for node in nodes for path in (*node.inputs, node.path)}
        unused_after: dict[str, list[str]] = defaultdict(list)
        for path, reader in last.items():
            if path not in values and path not in outputs:
                unused_after[reader].append(path)
        calls: list[_Call] = []
        for node in nodes:
            calls += self._call(node, values, keep)
            for path in unused_after[node.path]:
                self._release(values.pop(path))
        return calls

    def _call(self, node: Node, values: dict[str, _Tensor], keep: bool) -> list[_Call]:
        saved = node.op.saves(self.batch, node.shape, *self.graph.input_shapes(node))
        casts = 0  # autocast's copies of the weights
        if isinstance(node.op, Recomputed):
            inner = {path: values[path] for path in node.inputs}
            self._forward(node.op.nodes, inner, {node.path}, keep=False)
            output = inner[node.path]
        else:
            cost = node_cost(self.graph, node)
            self.parameters[node.path] = cost.params * self.batch.accumulated
            if cost.macs and self.batch.itemsize < 4:
                casts = cost.params * self.batch.itemsize
            shared = any(leaf.shared for leaf in node.leaves)
            if self.parameters[node.path] or shared or not self.trained.isdisjoint(node.inputs):
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
        tensors += [self._new(saved.extra), self._new(casts)]
        return [_Call(node, saved, tensors)]

    # --- backward -------------------------------------------------------------------------------

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
        temporary = self._new(saved.backward)
        self._new(self.parameters[node.path])  # the gradients of its parameters, which stay
        found: list[tuple[str, _Tensor]] = []
        for index, path in enumerate(node.inputs):
            if path in self.trained and index not in saved.no_gradient:
                passed = index in saved.passes_gradient
                size = self.batch.bytes_of(self.graph.shape_of(path))
                found.append((path, self._hold(gradient) if passed else self._new(size)))
        self._release(temporary)
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
        size = self.batch.bytes_of(self.graph.shape_of(path))
        if before.holders > 1 or before.bytes != size:
            # It is shared, or part of a larger one: the sum needs memory of its own.
            self.gradients[path] = self._new(size)
            self._release(before)
        self._release(tensor)
