"""The predicted memory of a training step, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cnngraph.errors import CnngraphError
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import StepMemory, largest_batch, predict
from cnngraph.options import Options, size_of
from cnngraph.passes import passes_of, run_passes
from cnngraph.report.numbers import plural, size


def optimized(graph: Graph) -> Graph:
    """The graph as `compile` runs it with its default options."""
    return run_passes(graph, passes_of(Options()))[0]


def step_memory(
    graph: Graph, batch_size: int, optimizer: str, frozen: Sequence[str] = ()
) -> StepMemory:
    """The memory of a training step with the fused backend. Raises `CnngraphError`.

    `frozen` are patterns of the paths of weights that are not trained.
    """
    return predict(optimized(graph), batch_size, frozen=frozen).with_optimizer(optimizer)


def describe_step(memory: StepMemory, optimizer: str) -> str:
    """`1.7 GB for a training step of 16 images with SGD (predicted): 102.4 MB parameters, ...`."""
    part = {name: size(bytes) for name, bytes in memory.at_peak.items()}
    return (
        f"{size(memory.peak)} for a training step of {plural(memory.batch_size, 'image')}"
        f" with {optimizer} (predicted):\n"
        f"{part['weights']} weights, {part['gradients']} gradients of weights,"
        f" {part['optimizer']} optimizer,\n"
        f"{part['input']} input, {part['activations']} activations and their gradients"
    )


def memory_data(memory: StepMemory, optimizer: str) -> dict[str, Any]:
    """The same as plain data, in bytes."""
    return {
        "optimizer": optimizer,
        "batch_size": memory.batch_size,
        "bytes": memory.at_peak,
        "peak": memory.peak,
    }


def largest(graph: Graph, budget: str, optimizer: str, frozen: Sequence[str] = ()) -> int:
    """The largest batch whose training step fits into a budget such as `8GB`, or 0.

    Raises `CnngraphError` if the budget or the optimizer is not known.
    """
    limit = size_of(budget)
    if not limit:
        raise CnngraphError(f"`{budget}` is not an amount of memory; write it as 8GB or 512MB")
    return largest_batch(optimized(graph), limit, optimizer, frozen)


def memory_data_of(
    graph: Graph, batch_size: int | None, optimizer: str, budget: str | None
) -> dict[str, Any]:
    """What the JSON of `check` has more if a batch size or a budget is given."""
    data: dict[str, Any] = {}
    if batch_size is not None:
        data["memory"] = memory_data(step_memory(graph, batch_size, optimizer), optimizer)
    if budget is not None:
        data["largest_batch"] = largest(graph, budget, optimizer)
    return data


def describe_memory_of(
    graph: Graph, batch_size: int | None, optimizer: str, budget: str | None
) -> str:
    """The lines that `check` adds: the memory of a step, and the largest batch that fits."""
    lines: list[str] = []
    if batch_size is not None:
        step = step_memory(graph, batch_size, optimizer)
        lines += describe_step(step, optimizer).splitlines()
    if budget is not None:
        lines.append(describe_fit(largest(graph, budget, optimizer), budget, optimizer))
    first, *others = lines
    return "\n".join([f"  memory  {first}", *(f"          {line}" for line in others)])


def describe_fit(batch: int, budget: str, optimizer: str) -> str:
    """`a training step of at most 41 images fits into 8GB, with SGD`."""
    if not batch:
        return f"not even one image fits into {budget}, with {optimizer}"
    return (
        f"a training step of at most {plural(batch, 'image')} fits into {budget}, with {optimizer}"
    )
