"""A report as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cnngraph.errors import Diagnostic, render
from cnngraph.graph import Graph
from cnngraph.graph.cost import Cost
from cnngraph.graph.stages import stages
from cnngraph.report.stages import kind_of

_LEFT = "text-align: left"
_RIGHT = "text-align: right; font-variant-numeric: tabular-nums"
_COLUMNS = (("stage", _LEFT), ("kind", _LEFT), ("output", _RIGHT), ("params", _RIGHT), ("MACs", _RIGHT))


def report_html(diagnostics: Sequence[Diagnostic], graph: Graph | None, summary: str) -> str:
    """The diagnostics as they stand in a terminal, then a table by stage and the summary."""
    parts = [_preformatted(render(diagnostics))] if diagnostics else []
    if graph is not None:
        shown = stages(graph)
        cost = sum((stage.cost for stage in shown), Cost())
        rows = [
            (stage.path, kind_of(stage), str(stage.shape), f"{stage.cost.params:,}", f"{stage.cost.macs:,}")
            for stage in shown
        ]
        total = ("total", "", "", f"{cost.params:,}", f"{cost.macs:,}")
        parts += [
            "<table>",
            f"<thead>{_row('th', tuple(name for name, _ in _COLUMNS))}</thead>",
            f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody>",
            f"<tfoot>{_row('th', total)}</tfoot>",
            "</table>",
            _preformatted(summary),
        ]
    return "\n".join(parts)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    styled = zip(cells, _COLUMNS, strict=True)
    return "<tr>" + "".join(f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, (_, style) in styled) + "</tr>"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
