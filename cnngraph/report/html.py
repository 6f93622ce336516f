"""Reports as HTML, for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from cnngraph.errors import Diagnostic, render
from cnngraph.graph import Graph
from cnngraph.report.stages import LEFT, RIGHT, stage_rows

_LEFT = "text-align: left"
_RIGHT = "text-align: right; font-variant-numeric: tabular-nums"


def report_html(diagnostics: Sequence[Diagnostic], graph: Graph | None, summary: str) -> str:
    """The diagnostics as in a terminal, then drawing, table by stage and summary of the network."""
    parts = [preformatted(render(diagnostics))] if diagnostics else []
    if graph is not None:
        from cnngraph.drawing import draw_graph

        rows, total = stage_rows(graph)
        parts += [draw_graph(graph).svg, table(LEFT, RIGHT, rows, total), preformatted(summary)]
    return "\n".join(parts)


def table(
    left: Sequence[str],
    right: Sequence[str],
    rows: Iterable[Sequence[str]],
    total: Sequence[str] | None = None,
) -> str:
    """A table; `left` and `right` are the titles of the columns, by alignment."""
    styles = [*[_LEFT] * len(left), *[_RIGHT] * len(right)]
    body = "".join(_row("td", row, styles) for row in rows)
    foot = f"<tfoot>{_row('th', total, styles)}</tfoot>\n" if total else ""
    head = _row("th", (*left, *right), styles)
    return f"<table>\n<thead>{head}</thead>\n<tbody>{body}</tbody>\n{foot}</table>"


def _row(tag: str, cells: Sequence[str], styles: Sequence[str]) -> str:
    styled = [
        f'<{tag} style="{style}">{escape(cell)}</{tag}>'
        for cell, style in zip(cells, styles, strict=True)
    ]
    return f"<tr>{''.join(styled)}</tr>"


def preformatted(text: str) -> str:
    """Text in lines, as in a terminal."""
    return f"<pre>{escape(text)}</pre>"
