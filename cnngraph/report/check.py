"""What `check` says of a spec that holds, in a few lines; and a whole report as text."""

from __future__ import annotations

from cnngraph.analysis import Summary
from cnngraph.checking import Report
from cnngraph.errors import Diagnostic, render
from cnngraph.graph import INPUT, Graph
from cnngraph.report.input_sizes import describe_sizes
from cnngraph.report.numbers import plural, short
from cnngraph.report.stages import stage_table
from cnngraph.report.terminal import to_text


def text(report: Report) -> str:
    """A report as text: its mistakes; and if it holds, the table by stage, costs and input sizes."""
    parts = [render(report.diagnostics)] if report.diagnostics else []
    if report.graph is not None and report.summary is not None:
        parts += [to_text(stage_table(report.graph)), summary(report)]
    return "\n\n".join(parts)


def summary(report: Report) -> str:
    """Name, shapes, costs and input sizes, a line each."""
    graph, costs = report.graph, report.summary
    assert graph is not None
    assert costs is not None
    rows = [("params", params(costs)), ("MACs", macs(costs))]
    if report.sizes is not None:
        first, *others = describe_sizes(report.sizes, graph.input.spatial)
        rows += [("inputs", first), *(("", line) for line in others)]
    name = f"{report.name}: {graph.name}" if report.name else graph.name
    lines = [f"{name}, {shapes(graph)}", *(f"  {key:<8}{value}".rstrip() for key, value in rows)]
    return "\n".join(lines)


def shapes(graph: Graph) -> str:
    """`3x224x224 -> 1000`, side heads included."""
    heads = [f"{name} {graph.shape_of(path)}" for name, path in graph.aux.items()]
    aux = f" (in training also {', '.join(heads)})" if heads else ""
    return f"{graph.shape_of(INPUT)} -> {graph.shape_of(graph.output)}{aux}"


def params(costs: Summary) -> str:
    total = costs.total
    return f"{_exact(total.params)}, {plural(total.buffers, 'buffer')}"


def macs(costs: Summary) -> str:
    text = f"{_exact(costs.total.macs)} for one image"
    if costs.training_macs != costs.total.macs:
        text += f"; {_exact(costs.training_macs)} in training, with side heads"
    return text


def verdict(name: str, diagnostics: tuple[Diagnostic, ...]) -> str:
    """`net.yaml: 2 errors, 1 warning`."""
    found = []
    for severity in ("error", "warning"):
        count = sum(item.severity == severity for item in diagnostics)
        found += [plural(count, severity)] if count else []
    return f"{name}: {', '.join(found) or 'nothing wrong'}"


def _exact(count: int) -> str:
    return f"{count:,} ({short(count)})" if count >= 1000 else str(count)
