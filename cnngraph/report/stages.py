"""The table of a network by stage: what each one is, results in, holds and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost
from cnngraph.graph.stages import Stage, stages

if TYPE_CHECKING:
    from rich.table import Table


def stage_table(graph: Graph) -> Table:
    """`stages` and their total as a table of at most 80 columns for ordinary names."""
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        show_footer=True,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
    shown = stages(graph)
    cost = sum((stage.cost for stage in shown), Cost())
    aux = any(stage.aux for stage in shown)
    table.add_column("stage", "total with side heads" if aux else "total", overflow="fold")
    table.add_column("kind", overflow="fold")
    table.add_column("output", justify="right", no_wrap=True, overflow="fold")
    table.add_column("params", f"{cost.params:,}", justify="right", no_wrap=True, overflow="fold")
    table.add_column("MACs", f"{cost.macs:,}", justify="right", no_wrap=True, overflow="fold")
    for stage in shown:
        table.add_row(
            stage.path, kind_of(stage), str(stage.shape), _number(stage.cost.params), _number(stage.cost.macs)
        )
    return table


def kind_of(stage: Stage) -> str:
    """`basic_block x3`; a side head says that it is one."""
    kind = stage.kind if stage.copies == 1 else f"{stage.kind} x{stage.copies}"
    return f"{kind} (training only)" if stage.aux else kind


def _number(value: int) -> str:
    return f"{value:,}" if value else "-"
