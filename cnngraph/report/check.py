"""The report of a check: as text, as HTML, and summarised in a few lines."""

from __future__ import annotations

from dataclasses import dataclass

from cnngraph.errors import Diagnostic, has_errors, render
from cnngraph.graph import INPUT, Graph
from cnngraph.graph.cost import Summary
from cnngraph.graph.input_sizes import InputSizes
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.html import report_html
from cnngraph.report.input_sizes import describe_sizes
from cnngraph.report.numbers import plural, short
from cnngraph.report.stages import stage_table
from cnngraph.report.terminal import to_text
from cnngraph.spec.loader import Spec


@dataclass(frozen=True)
class Report:
    """What is known of a spec: its graph, costs and valid input sizes, or its mistakes.

    Attributes:
        name: the file, as it was given.
        spec, graph, summary, sizes: None where the spec does not hold (`sizes` also for flat inputs).
    """

    name: str
    diagnostics: tuple[Diagnostic, ...]
    spec: Spec | None = None
    graph: Graph | None = None
    summary: Summary | None = None
    sizes: InputSizes | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The network's parts with their shapes and costs; none where the spec does not hold."""
        return stages(self.graph) if self.graph else ()

    @property
    def ok(self) -> bool:
        return not has_errors(self.diagnostics)

    def __repr__(self) -> str:
        found = f"{len(self.diagnostics)} diagnostics" if self.diagnostics else "no mistakes"
        return f"<Report of {self.name}: {'ok' if self.ok else 'does not hold'}, {found}>"

    def __str__(self) -> str:
        parts = [render(self.diagnostics)] if self.diagnostics else []
        if self.graph is not None and self.summary is not None:
            parts += [to_text(stage_table(self.graph)), summary(self)]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return report_html(self.diagnostics, self.graph, summary(self) if self.graph else "")


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
