"""The networks of the zoo with their costs and sources, as a table and as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cnngraph.checker import read_spec
from cnngraph.elaborate import elaborate_or_raise
from cnngraph.graph.cost import summarize
from cnngraph.report.numbers import short
from cnngraph.report.terminal import simple_table
from cnngraph.shape import TensorShape

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Entry:
    """A network of the zoo with its default params.

    Attributes:
        params: the number of parameters.
        macs: multiply-accumulates for one image.
        input: the shape without the batch.
        paper, year, source: where the network was published.
    """

    name: str
    params: int
    macs: int
    input: TensorShape
    year: int | None
    paper: str | None
    source: str | None


def entry(name: str) -> Entry:
    """The network of this name. Raises `SpecError` if there is none."""
    spec = read_spec(name)
    graph = elaborate_or_raise(spec, {})
    total, of = summarize(graph).total, spec.reference
    return Entry(name, total.params, total.macs, graph.input, of.year, of.paper, of.source)


def entries_table(entries: Iterable[Entry]) -> Table:
    """A row for each network."""
    table = simple_table(left=("network", "source"), right=("year", "params", "MACs", "input"))
    for item in entries:
        table.add_row(
            item.name,
            item.source or "",
            str(item.year or ""),
            short(item.params),
            short(item.macs),
            str(item.input),
        )
    return table


def entry_data(item: Entry) -> dict[str, Any]:
    """A network as plain data."""
    return asdict(item) | {"input": list(item.input)}
