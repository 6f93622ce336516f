"""Predicts the memory of a training step from the graph, without running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from cnngraph.errors import CnngraphError, listing
from cnngraph.graph import Graph
from cnngraph.graph.step_simulation import Step
from cnngraph.graph.trained import trained_weights
from cnngraph.ops.saved import Batch

ITEMSIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
"""Bytes per value. The 16-bit types mean autocast: weights and their gradients stay in float32."""

OPTIMIZERS = {
    "SGD": (1, 0),
    "Adam": (2, 2),
    "AdamW": (2, 2),
    "NAdam": (2, 2),
    "RAdam": (2, 2),
    "Adamax": (2, 1),
    "Adadelta": (2, 2),
    "Adagrad": (1, 1),
    "ASGD": (1, 0),
    "Rprop": (2, 3),
    "RMSprop": (1, 1),
}
"""Optimizers of `torch.optim` -> the values that they keep for each parameter, and the temporary
ones for each value of the parameter that is being updated.

SGD is with momentum; without it, it keeps none. The others have their default arguments.
"""


@dataclass(frozen=True)
class StepMemory:
    """The memory of a training step, in bytes: what torch allocates for tensors.

    The scratch memory of torch's libraries is not included.

    Attributes:
        batch_size: images in the step.
        weights: parameters and buffers, allocated all the time.
        optimizer: the optimizer's state: one value per trained parameter for SGD with momentum.
        input: the batch itself.
        kept: values saved for backward at the end of forward, the result included.
        gradients: the gradients of all trained parameters, which are there after backward.
        step: the peak of what forward and backward allocate: values kept for backward, temporary
            values and gradients, and the gradients of the parameters.
        step_gradients: how much of `step` are gradients of parameters.
        largest: the largest trained parameter.
        update: temporary memory of the optimizer.
    """

    batch_size: int
    weights: int
    optimizer: int
    input: int
    kept: int
    gradients: int
    step: int
    step_gradients: int
    largest: int
    update: int = 0

    @property
    def peak(self) -> int:
        """The most that is allocated at any moment."""
        held = self.weights + self.optimizer + self.input
        return held + max(self.step, self.gradients + self.update)

    @property
    def at_peak(self) -> dict[str, int]:
        """What the peak consists of; what the optimizer needs for a moment is part of its own."""
        updates = self.gradients + self.update > self.step
        gradients = self.gradients if updates else self.step_gradients
        return {
            "weights": self.weights,
            "gradients": gradients,
            "optimizer": self.optimizer + (self.update if updates else 0),
            "input": self.input,
            "activations": 0 if updates else self.step - gradients,
        }

    def with_optimizer(self, name: str) -> StepMemory:
        """The same with another optimizer. Raises `CnngraphError` unless `OPTIMIZERS` has it."""
        if name not in OPTIMIZERS:
            known = listing([*OPTIMIZERS], "or")
            raise CnngraphError(f"memory is predicted for {known}, not for `{name}`")
        state, temporary = OPTIMIZERS[name]
        return replace(self, optimizer=self.gradients * state, update=self.largest * temporary)


def predict(
    graph: Graph, batch_size: int = 16, dtype: str = "float32", frozen: Sequence[str] = ()
) -> StepMemory:
    """The memory of a training step of an optimized graph.

    The step is a forward pass, a loss of each result, a backward pass, and an update by SGD with
    momentum.

    Args:
        batch_size: the number of images.
        dtype: the data type of activations, one of `ITEMSIZES`.
        frozen: patterns of the paths of weights that are not trained.

    Raises:
        CnngraphError: `dtype` is not known, or a pattern matches nothing.
    """
    if dtype not in ITEMSIZES:
        raise CnngraphError(f"memory is predicted for {', '.join(ITEMSIZES)}, not for `{dtype}`")
    batch = Batch(batch_size, ITEMSIZES[dtype])
    weights = trained_weights(graph, frozen)
    step = Step(graph, batch, weights)
    kept = step.run()
    sizes = [size * batch.accumulated for own in weights.values() for size in own]
    return StepMemory(
        batch_size=batch_size,
        weights=_values(graph) * batch.accumulated,
        optimizer=sum(sizes),
        input=batch.bytes_of(*graph.inputs.values()),
        kept=kept,
        gradients=sum(sizes),
        step=step.peak,
        step_gradients=step.gradients_at_peak,
        largest=max(sizes, default=0),
    )


def _values(graph: Graph) -> int:
    """How many values the parameters and buffers have."""
    own = (leaf for leaf in graph.leaves() if not leaf.shared)
    shapes = ((leaf.op, graph.input_shapes(leaf)) for leaf in own)
    tensors = ((op.parameters(*given), op.buffers(*given)) for op, given in shapes)
    return sum(prod(shape) for own in tensors for named in own for shape in named.values())


def largest_batch(
    graph: Graph, budget: int, optimizer: str = "SGD", frozen: Sequence[str] = ()
) -> int:
    """The largest batch whose training step fits into a budget in bytes; 0 if not even one image.

    The graph is an optimized one, as for `predict`.
    """

    def peak(batch_size: int) -> int:
        return predict(graph, batch_size, frozen=frozen).with_optimizer(optimizer).peak

    fits, too_large = 0, 1
    while peak(too_large) <= budget:
        fits, too_large = too_large, 2 * too_large
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        fits, too_large = (middle, too_large) if peak(middle) <= budget else (fits, middle)
    return fits
