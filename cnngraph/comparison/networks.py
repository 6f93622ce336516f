"""Networks side by side: their costs, and the memory of a training step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cnngraph.graph import Graph
from cnngraph.report.memory import step_memory
from cnngraph.report.numbers import short, size
from cnngraph.report.summary import summarize_parts
from cnngraph.report.terminal import simple_table

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Compared:
    """A network among others.

    Attributes:
        name: the spec, as given.
        activations: bytes of the results of all layers in float32, for the batch.
        memory: bytes at the peak of a training step of the batch (predicted).
    """

    name: str
    input: str
    layers: int
    params: int
    macs: int
    activations: int
    memory: int


def compare(
    networks: Sequence[tuple[str, Graph]], batch_size: int, optimizer: str
) -> list[Compared]:
    """The costs of each network, given by name. Raises `CnngraphError` for an unknown optimizer."""
    return [_compared(name, graph, batch_size, optimizer) for name, graph in networks]


def _compared(name: str, graph: Graph, batch_size: int, optimizer: str) -> Compared:
    total = summarize_parts(graph, batch_size=batch_size).total
    return Compared(
        name=name,
        input=", ".join(map(str, graph.inputs.values())),
        layers=sum(
            bool(node.op.macs(node.shape, *graph.input_shapes(node))) for node in graph.nodes
        ),
        params=total.stage.cost.params,
        macs=total.stage.cost.macs,
        activations=total.activations,
        memory=step_memory(graph, batch_size, optimizer).peak,
    )


def comparison_table(found: Sequence[Compared]) -> Table:
    """A row for each network."""
    table = simple_table(["network"], ["input", "layers", "params", "MACs", "act.", "memory"])
    for item in found:
        costs = short(item.params), short(item.macs), size(item.activations), size(item.memory)
        table.add_row(item.name, item.input, str(item.layers), *costs)
    return table


def comparison_data(found: Sequence[Compared]) -> list[dict[str, Any]]:
    """The same as plain data; activations and memory are in bytes."""
    return [vars(item) for item in found]
