"""The summary of a network by part: shapes, costs, activations and receptive fields."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost
from cnngraph.graph.receptive_field import Field, receptive_fields
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.numbers import size
from cnngraph.report.stages import kind_of
from cnngraph.report.terminal import simple_table

if TYPE_CHECKING:
    from rich.table import Table

CONVENTION = """\
params: trained values; those of shared weights count where they are first used.
MACs: multiply-accumulates of convolutions, linear layers and products of maps, for one image;
biases, norms, activations and pooling do not count (FLOPs are about twice as many).
act.: bytes of the results of all layers in float32, for the batch; views do not count.
field: input pixels that a position of the output can depend on, in evaluation; `all` is the whole
input. stride: input pixels from one position to the next. offset: the first pixel that position 0
reads, negative in the padding."""
"""What is counted, for people."""

_LEFT = ("part", "kind")
_RIGHT = ("output", "params", "%", "MACs", "%", "act.", "field", "stride", "offset")
_BYTES = 4


@dataclass(frozen=True)
class Row:
    """A part of a network.

    Attributes:
        activations: bytes of the results of its layers for the batch.
        field: for each axis, the input positions that a position of its result reads; None if it
            may read all of them.
    """

    stage: Stage
    activations: int
    field: Field


@dataclass(frozen=True)
class NetworkSummary:
    """A network by part.

    Attributes:
        batch_size: images in the batch that activations are counted for.
        rows: the parts, in the order in which they are computed.
    """

    graph: Graph
    batch_size: int
    rows: tuple[Row, ...]

    @cached_property
    def total(self) -> Row:
        """All parts together, side heads included."""
        cost = sum((row.stage.cost for row in self.rows), Cost())
        frozen = sum(row.stage.frozen for row in self.rows)
        output = self.graph.shape_of(self.graph.output)
        stage = Stage("total", "", output, cost, frozen=frozen)
        return Row(stage, sum(row.activations for row in self.rows), None)


def summarize_parts(
    graph: Graph, depth: int | None = 1, batch_size: int = 1, frozen: Sequence[str] = ()
) -> NetworkSummary:
    """A network by part.

    Args:
        depth: how many levels of blocks are opened; None lists every layer.
        batch_size: images in the batch that activations are counted for.
        frozen: patterns of the paths of weights that are not trained.
    """
    fields = receptive_fields(graph)
    rows = tuple(
        Row(
            stage,
            stage.values * batch_size * _BYTES,
            fields.get(stage.output),
        )
        for stage in stages(graph, depth, frozen)
    )
    return NetworkSummary(graph, batch_size, rows)


def summary_table(summary: NetworkSummary) -> Table:
    """The parts and their totals."""
    table = simple_table(_LEFT, _RIGHT, _cells(summary.total, summary.total))
    for row in summary.rows:
        table.add_row(*_cells(row, summary.total))
    return table


def summary_markdown(summary: NetworkSummary) -> str:
    """The same as a table of Markdown."""
    lines = [(*_LEFT, *_RIGHT), ("---",) * len(_LEFT) + ("---:",) * len(_RIGHT)]
    lines += [_cells(row, summary.total) for row in (*summary.rows, summary.total)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def summary_csv(summary: NetworkSummary) -> str:
    """The same as comma-separated values, with plain numbers; without the totals."""
    text = io.StringIO()
    rows = summary_rows(summary)
    writer = csv.DictWriter(text, fieldnames=[*rows[0]] if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {key: "x".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()}
        writer.writerow(flat)
    return text.getvalue()


def summary_rows(summary: NetworkSummary) -> list[dict[str, Any]]:
    """The parts as plain data; unknown and unlimited receptive fields are None."""
    return [_data(row, summary.total.stage.cost) for row in summary.rows]


def _data(row: Row, total: Cost) -> dict[str, Any]:
    stage, field = row.stage, row.field
    return {
        "path": stage.path,
        "kind": stage.kind,
        "copies": stage.copies,
        "aux": stage.aux,
        "shape": [*stage.shape],
        "params": stage.cost.params,
        "frozen": stage.frozen,
        "params_share": _share(stage.cost.params, total.params),
        "buffers": stage.cost.buffers,
        "macs": stage.cost.macs,
        "macs_share": _share(stage.cost.macs, total.macs),
        "activation_bytes": row.activations,
        "receptive_field": field and [axis.size for axis in field],
        "stride": field and [float(axis.stride) for axis in field],
        "offset": field and [axis.offset for axis in field],
    }


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _cells(row: Row, total: Row) -> tuple[str, ...]:
    stage, cost, whole = row.stage, row.stage.cost, total.stage.cost
    params = f"{cost.params:,}" if cost.params else "-"
    if stage.frozen:
        params += " (frozen)" if stage.frozen == cost.params else f" ({stage.frozen:,} frozen)"
    return (
        stage.path,
        "" if row is total else kind_of(stage),
        str(stage.shape),
        params,
        _percent(cost.params, whole.params),
        f"{cost.macs:,}" if cost.macs else "-",
        _percent(cost.macs, whole.macs),
        size(row.activations) if row.activations else "-",
        *(("", "", "") if row is total else _field_cells(row.field)),
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if part and whole else "-"


def _field_cells(field: Field) -> tuple[str, str, str]:
    if field is None:
        return "all", "-", "-"
    return (
        _by_axis([axis.size for axis in field]),
        _by_axis([axis.stride for axis in field]),
        _by_axis([axis.offset for axis in field]),
    )


def _by_axis(values: Sequence[int | Fraction]) -> str:
    same = len(set(values)) == 1
    return "x".join(map(str, values[:1] if same else values))
