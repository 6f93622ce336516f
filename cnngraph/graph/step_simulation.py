"""Simulates a training step on a graph, and counts the memory that is allocated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from cnngraph.graph import Graph, Node
from cnngraph.graph.cost import node_cost
from cnngraph.graph.recomputed import Recomputed
from cnngraph.ops.saved import Batch, Saved


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


class Step:
    """Simulates a step as torch runs it, and counts what is allocated.

    Forward releases a value after its last reader, unless an op keeps it. Backward runs in reverse
    order, releases what each op kept, and adds up the gradients of values with several readers.

    Args:
        trained: path of each module -> the numbers of values of its trained weights.

    Attributes:
        peak: the most bytes that were allocated.
        gradients_at_peak: how many of them were gradients of parameters.
    """

    def __init__(self, graph: Graph, batch: Batch, trained: Mapping[str, Sequence[int]]) -> None:
        self.graph = graph
        self.batch = batch
        self.weights = trained
        self.peak = 0
        self.gradients_at_peak = 0
        self._live = 0
        self._parameter_gradients = 0
        self._trained: set[str] = set()
        """Paths of the values that need a gradient."""
        self._gradients: dict[str, _Tensor] = {}

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
        kept = self._live
        for path, loss in zip(sorted(outputs), losses, strict=True):
            # What the loss keeps, the gradient of that, and the gradient of the result.
            temporary = self._new(loss.bytes)
            if path in self._trained:
                self._add_gradient(path, self._new(loss.bytes))
            self._release(temporary)
            self._release(loss)
        self._backward(calls)
        return kept

    # --- memory ---------------------------------------------------------------------------------

    def _new(self, bytes: int) -> _Tensor:
        self._live += bytes
        if self._live > self.peak:
            self.peak, self.gradients_at_peak = self._live, self._parameter_gradients
        return _Tensor(bytes)

    def _hold(self, tensor: _Tensor) -> _Tensor:
        tensor.holders += 1
        return tensor

    def _release(self, tensor: _Tensor) -> None:
        tensor.holders -= 1
        if not tensor.holders:
            self._live -= tensor.bytes

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
            if cost.macs and self.batch.itemsize < 4:
                casts = cost.params * self.batch.itemsize
            has_trained = any(self.weights.get(leaf.module) for leaf in node.leaves)
            if has_trained or not self._trained.isdisjoint(node.inputs):
                self._trained.add(node.path)
            output = (
                self._hold(values[node.inputs[0]])
                if saved.view
                else self._new(self.batch.bytes_of(node.shape))
            )
            self._release(self._new(saved.forward))
        values[node.path] = output
        if not keep or node.path not in self._trained:
            return []
        tensors = [self._hold(values[node.inputs[index]]) for index in saved.inputs]
        if saved.output:
            tensors.append(self._hold(output))
        tensors += [self._new(saved.extra), self._new(casts)]
        return [_Call(node, saved, tensors)]

    # --- backward -------------------------------------------------------------------------------

    def _backward(self, calls: list[_Call]) -> None:
        for call in reversed(calls):
            gradient = self._gradients.pop(call.node.path, None)
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
        values = sum(sum(self.weights.get(leaf.path, ())) for leaf in node.leaves)
        temporary = self._new(saved.training if values else saved.backward)
        parameters = values * self.batch.accumulated
        self._parameter_gradients += parameters
        self._new(parameters)  # the gradients of its parameters, which stay
        found: list[tuple[str, _Tensor]] = []
        for index, path in enumerate(node.inputs):
            if path in self._trained and index not in saved.no_gradient:
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
        self._gradients[node.path] = gradient
        self._backward(calls)
        return []

    def _add_gradient(self, path: str, tensor: _Tensor) -> None:
        before = self._gradients.get(path)
        if before is None:
            self._gradients[path] = tensor
            return
        size = self.batch.bytes_of(self.graph.shape_of(path))
        if before.holders > 1 or before.bytes != size:
            # It is shared, or part of a larger one: the sum needs memory of its own.
            self._gradients[path] = self._new(size)
            self._release(before)
        self._release(tensor)
