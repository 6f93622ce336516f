"""A report as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cnngraph.errors import Diagnostic, render
from cnngraph.graph import Graph
from cnngraph.report.stages import LEFT, RIGHT, stage_rows

_STYLES = [
    *["text-align: left"] * len(LEFT),
    *["text-align: right; font-variant-numeric: tabular-nums"] * len(RIGHT),
]


def report_html(diagnostics: Sequence[Diagnostic], graph: Graph | None, summary: str) -> str:
    """The diagnostics as in a terminal, then the table by stage and the summary."""
    parts = [_preformatted(render(diagnostics))] if diagnostics else []
    if graph is not None:
        rows, total = stage_rows(graph)
        parts += [
            "<table>",
            f"<thead>{_row('th', (*LEFT, *RIGHT))}</thead>",
            f"<tbody>{''.join(_row('td', row) for row in rows)}</tbody>",
            f"<tfoot>{_row('th', total)}</tfoot>",
            "</table>",
            _preformatted(summary),
        ]
    return "\n".join(parts)


def _row(tag: str, cells: tuple[str, ...]) -> str:
    styled = [
        f'<{tag} style="{style}">{escape(cell)}</{tag}>'
        for cell, style in zip(cells, _STYLES, strict=True)
    ]
    return f"<tr>{''.join(styled)}</tr>"


def _preformatted(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"
