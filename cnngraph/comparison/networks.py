"""The networks of a comparison: their costs, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cnngraph.graph import Graph
from cnngraph.report.html import preformatted, table
from cnngraph.report.memory import step_memory
from cnngraph.report.numbers import plural, short, size
from cnngraph.report.summary import summarize_parts
from cnngraph.report.terminal import simple_table, to_text
from cnngraph.zoo.accuracy import SOURCE, published_top1

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Compared:
    """A network among others.

    Attributes:
        name: the spec, as given.
        top1: published accuracy in percent; None if there is none.
        activations: bytes of the results of all layers in float32, for the batch.
        memory: bytes at the peak of a training step of the batch (predicted).
        images_per_second: measured, in evaluation; None if it was not.
    """

    name: str
    input: str
    layers: int
    top1: float | None
    params: int
    macs: int
    activations: int
    memory: int
    images_per_second: float | None = None


@dataclass(frozen=True)
class Networks:
    """Networks side by side.

    Attributes:
        batch_size: images in a batch, for activations, memory and speed.
        optimizer: of the training step whose memory is predicted.
        threads: of the measurement; None if nothing was measured.
    """

    networks: tuple[Compared, ...]
    batch_size: int
    optimizer: str
    threads: int | None = None


def compared(
    name: str, graph: Graph, batch_size: int, optimizer: str, speed: float | None = None
) -> Compared:
    """The costs of a network. Raises `CnngraphError` for an unknown optimizer."""
    total = summarize_parts(graph, batch_size=batch_size).total
    return Compared(
        name=name,
        input=", ".join(map(str, graph.inputs.values())),
        layers=sum(
            bool(node.op.macs(node.shape, *graph.input_shapes(node))) for node in graph.nodes
        ),
        top1=published_top1(graph),
        params=total.stage.cost.params,
        macs=total.stage.cost.macs,
        activations=total.activations,
        memory=step_memory(graph, batch_size, optimizer).peak,
        images_per_second=speed,
    )


def _columns(found: Networks) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns after the name, and the cells of each network."""
    columns: dict[str, list[str]] = {
        "input": [item.input for item in found.networks],
        "layers": [str(item.layers) for item in found.networks],
        "top-1": [f"{item.top1:.1f}" if item.top1 else "-" for item in found.networks],
        "params": [short(item.params) for item in found.networks],
        "MACs": [short(item.macs) for item in found.networks],
        "act.": [size(item.activations) for item in found.networks],
        "memory": [size(item.memory) for item in found.networks],
        "images/s": [_speed(item.images_per_second or 0.0) for item in found.networks],
    }
    if not any(item.top1 for item in found.networks):
        del columns["top-1"]
    if found.threads is None:
        del columns["images/s"]
    names = [item.name for item in found.networks]
    return [*columns], [list(cells) for cells in zip(names, *columns.values(), strict=True)]


def _speed(images: float) -> str:
    """`2,316`, and three digits below a hundred."""
    return f"{images:,.0f}" if images >= 100 else f"{images:.3g}"


def comparison_table(found: Networks) -> Table:
    """A row for each network."""
    titles, rows = _columns(found)
    made = simple_table(["network"], titles)
    for row in rows:
        made.add_row(*row)
    return made


def comparison_notes(found: Networks) -> str:
    """What the columns are."""
    batch = f"for a batch of {found.batch_size}; a training step with {found.optimizer}"
    notes = [f"act. and memory: {batch}"]
    if any(item.top1 for item in found.networks):
        notes.append(f"top-1: accuracy in percent, {SOURCE}")
    if found.threads is not None:
        threads = f"{plural(found.threads, 'thread')} of this processor"
        notes.append(f"images/s: in evaluation, batches of {found.batch_size}, {threads}")
    return "\n".join(notes)


def comparison_text(found: Networks) -> str:
    """Everything as plain text."""
    return f"{to_text(comparison_table(found))}\n\n{comparison_notes(found)}"


def comparison_html(found: Networks) -> str:
    """The same for a notebook."""
    titles, rows = _columns(found)
    return "\n".join([table(["network"], titles, rows), preformatted(comparison_notes(found))])


def comparison_data(found: Networks) -> dict[str, Any]:
    """The same as plain data; activations and memory are in bytes."""
    return asdict(found)


def names_of(networks: Sequence[Compared]) -> list[str]:
    """The name of each network without folder and `.yaml`."""
    return [item.name.rpartition("/")[2].removesuffix(".yaml") for item in networks]
