"""The table of a network by stage: kind, output shape, parameters and cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.terminal import simple_table

if TYPE_CHECKING:
    from rich.table import Table

LEFT, RIGHT = ("stage", "kind"), ("output", "params", "MACs")
"""The titles of the columns, by alignment."""

MAX_ROWS = 500
"""A table lists at most this many stages."""

Row = tuple[str, str, str, str, str]


def stage_rows(graph: Graph) -> tuple[list[Row], Row]:
    """The rows of the table, and its last row with the totals."""
    shown = stages(graph)
    listed = shown[:MAX_ROWS]
    rows = [_row(stage.path, kind_of(stage), str(stage.shape), stage.cost) for stage in listed]
    if more := shown[MAX_ROWS:]:
        rows.append(_row(f"{len(more):,} more", "", "", sum((s.cost for s in more), Cost())))
    name = "total with side heads" if any(stage.aux for stage in shown) else "total"
    return rows, _row(name, "", "", sum((stage.cost for stage in shown), Cost()))


def _row(name: str, kind: str, shape: str, cost: Cost) -> Row:
    params, macs = (f"{value:,}" if value else "-" for value in (cost.params, cost.macs))
    return name, kind, shape, params, macs


def stage_table(graph: Graph) -> Table:
    """The stages and their totals, in at most 80 columns for ordinary names."""
    rows, total = stage_rows(graph)
    table = simple_table(LEFT, RIGHT, total)
    for row in rows:
        table.add_row(*row)
    return table


def kind_of(stage: Stage) -> str:
    """`basic_block x3`; side heads are marked."""
    kind = stage.kind if stage.copies == 1 else f"{stage.kind} x{stage.copies}"
    return f"{kind} (training only)" if stage.aux else kind
