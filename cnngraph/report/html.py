"""A report as HTML, for notebooks."""

from __future__ import annotations

from html import escape

from cnngraph.analysis import Cost
from cnngraph.checking import Report
from cnngraph.errors import render
from cnngraph.report.check import summary
from cnngraph.report.stages import kind_of
from cnngraph.stages import stages

_LEFT = "text-align: left"
_RIGHT = "text-align: right; font-variant-numeric: tabular-nums"
_COLUMNS = (("stage", _LEFT), ("kind", _LEFT), ("output", _RIGHT), ("params", _RIGHT), ("MACs", _RIGHT))


def report_html(report: Report) -> str:
    """The diagnostics as they stand in a terminal, then a table by stage and the summary."""
    parts = [_preformatted(render(report.diagnostics))] if report.diagnostics else []
    if report.graph is not None and report.summary is not None:
        shown = stages(report.graph)
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
            _preformatted(summary(report)),
        ]
    return "\n".join(parts)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    styled = zip(cells, _COLUMNS, strict=True)
    return "<tr>" + "".join(f'<{tag} style="{style}">{escape(cell)}</{tag}>' for cell, (_, style) in styled) + "</tr>"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
