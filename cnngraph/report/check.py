"""The report of a check: as text, as HTML, and as a summary of a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from cnngraph.errors import Diagnostic, has_errors, render
from cnngraph.graph import Graph
from cnngraph.graph.cost import Summary, summarize
from cnngraph.graph.input_sizes import InputSizes, input_sizes
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.html import report_html
from cnngraph.report.input_sizes import describe_sizes
from cnngraph.report.numbers import plural, short
from cnngraph.report.stages import stage_table
from cnngraph.report.terminal import to_text
from cnngraph.shape import TensorShape
from cnngraph.spec.spec import Spec


@dataclass(frozen=True)
class Report:
    """The result of `cnngraph.check`: graph, costs and valid input sizes of a spec, or its errors.

    Costs and input sizes are computed when they are first asked for.

    Attributes:
        name: the file as given.
        diagnostics: errors and warnings.
        spec: the document; None, as what follows, if the spec is invalid.
        graph: the network; None, as what follows, also for a block library.
    """

    name: str
    diagnostics: tuple[Diagnostic, ...]
    spec: Spec | None = None
    graph: Graph | None = None

    @cached_property
    def summary(self) -> Summary | None:
        """Parameters, buffers and multiply-accumulates."""
        return summarize(self.graph) if self.graph else None

    @cached_property
    def sizes(self) -> InputSizes | None:
        """The square inputs that the network accepts; None also for flat inputs."""
        return input_sizes(self.graph) if self.graph else None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The network's parts with their shapes and costs; empty if the spec is invalid."""
        return stages(self.graph) if self.graph else ()

    @property
    def ok(self) -> bool:
        """Whether the spec is valid. Warnings do not count."""
        return not has_errors(self.diagnostics)

    def __repr__(self) -> str:
        lines = [f"<Report of {verdict(self.name, self.diagnostics)}"]
        for item in self.diagnostics:
            where = f"{item.position}: " if item.position else ""
            lines.append(f"  {where}{item.code}: {item.message}")
        return "\n".join(lines) + ">"

    def __str__(self) -> str:
        parts = [render(self.diagnostics)] if self.diagnostics else []
        if self.graph is not None:
            parts.append(to_text(stage_table(self.graph)))
        if self.spec is not None:
            parts.append(summary(self))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return report_html(self.diagnostics, self.graph, summary(self) if self.spec else "")


def summary(report: Report) -> str:
    """Name, shapes, costs and input sizes, a line each. The report must be of a valid spec."""
    graph, costs = report.graph, report.summary
    if graph is None or costs is None:
        assert report.spec is not None
        blocks = [*report.spec.library.blocks]
        named = ", ".join(blocks[:MAX_NAMED]) + _more(len(blocks))
        return f"{report.name}: a library of {plural(len(blocks), 'block')}: {named}"
    rows = [("params", params(costs)), ("MACs", macs(costs))]
    if report.sizes is not None:
        declared = max(shape.spatial for shape in graph.inputs.values())
        first, *others = describe_sizes(report.sizes, declared)
        rows += [("inputs", first), *(("", line) for line in others)]
    name = f"{report.name}: {graph.name}" if report.name else graph.name
    lines = [f"{name}, {shapes(graph)}", *(f"  {key:<8}{value}".rstrip() for key, value in rows)]
    return "\n".join(lines)


MAX_NAMED = 50
"""A summary lists at most this many inputs, outputs, side heads or blocks."""


def shapes(graph: Graph) -> str:
    """`3x224x224 -> 1000`, and the results of side heads; several inputs and outputs by name."""
    heads = _named({name: graph.shape_of(path) for name, path in graph.aux.items()})
    aux = f" (in training also {heads})" if heads else ""
    inputs = _named(graph.inputs) if len(graph.inputs) > 1 else str(graph.input)
    features = {name: graph.shape_of(path) for name, path in graph.features.items()}
    outputs = _named(features) or str(graph.shape_of(graph.output))
    return f"{inputs} -> {outputs}{aux}"


def _named(shapes: Mapping[str, TensorShape]) -> str:
    named = [f"{name} {shape}" for name, shape in islice(shapes.items(), MAX_NAMED)]
    return ", ".join(named) + _more(len(shapes))


def _more(count: int) -> str:
    """What follows the first `MAX_NAMED` of so many."""
    return f" and {count - MAX_NAMED:,} more" if count > MAX_NAMED else ""


def params(costs: Summary) -> str:
    """`11,689,512 (11.7 M), 60 buffers`."""
    total = costs.total
    return f"{_exact(total.params)}, {plural(total.buffers, 'buffer')}"


def macs(costs: Summary) -> str:
    """`1,814,073,344 (1.81 G) for one image`; with side heads also the number in training."""
    text = f"{_exact(costs.total.macs)} for one image"
    if costs.training_macs != costs.total.macs:
        text += f"; {_exact(costs.training_macs)} in training, with side heads"
    return text


def verdict(name: str, diagnostics: tuple[Diagnostic, ...]) -> str:
    """`net.yaml: 2 errors, 1 warning`."""
    counts = Counter(item.severity for item in diagnostics)
    found = [plural(counts[item], item) for item in ("error", "warning") if counts[item]]
    return f"{name}: {', '.join(found) or 'no errors'}"


def _exact(count: int) -> str:
    return f"{count:,} ({short(count)})" if count >= 1000 else str(count)
