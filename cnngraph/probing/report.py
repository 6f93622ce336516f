"""What was measured, as a table, HTML and plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cnngraph.probing.measurement import LayerStatistics, Measurement
from cnngraph.probing.verdict import findings_of
from cnngraph.report.html import preformatted, table
from cnngraph.report.terminal import printable, simple_table, to_text

if TYPE_CHECKING:
    from rich.table import Table

_LEFT = ("layer", "kind")
_RIGHT = ("output", "mean", "std", "dead", "gradient", "relative")

CONVENTION = """\
mean, std: of all values of the output. dead: units that are zero for the whole batch.
gradient: the norm of the loss's gradient by the output. relative: the norm of its gradient by the
weights, divided by the norm of the weights."""


def _cells(layer: LayerStatistics) -> tuple[str, ...]:
    return (
        layer.path,
        layer.kind,
        str(layer.shape),
        _number(layer.mean),
        _number(layer.std),
        "-" if layer.dead is None else f"{layer.dead:.0%}",
        _number(layer.gradient),
        _number(layer.relative),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def probe_table(found: Measurement) -> Table:
    """A row for each layer."""
    made = simple_table(_LEFT, _RIGHT)
    for layer in found.layers:
        made.add_row(*map(printable, _cells(layer)))
    return made


def verdict_text(found: Measurement) -> str:
    """What was probed, and the verdict with what usually helps."""
    weights = f"{found.weights}, a batch of {found.batch_size} from {found.data}"
    lines = [f"{found.network}: {weights}: loss {found.loss:.3g}"]
    findings = findings_of(found)
    if not findings:
        lines.append("verdict: the gradients of all layers arrive")
    for finding in findings:
        lines.append(f"verdict: {finding.problem}: {finding.text}")
        lines += [f"  try {item}" for item in finding.help]
    return printable("\n".join(lines))


def probe_text(found: Measurement) -> str:
    """Everything as plain text."""
    return "\n\n".join([to_text(probe_table(found)), CONVENTION, verdict_text(found)])


def probe_html(found: Measurement) -> str:
    """The verdict and the table for a notebook."""
    return "\n".join(
        [preformatted(verdict_text(found)), table(_LEFT, _RIGHT, map(_cells, found.layers))]
    )


def probe_data(found: Measurement) -> dict[str, Any]:
    """Everything as plain data; what is not finite is a string, because JSON has no such number."""
    return {
        "network": found.network,
        "data": found.data,
        "weights": found.weights,
        "batch_size": found.batch_size,
        "loss": _finite(found.loss),
        "layers": [
            {key: _finite(value) for key, value in asdict(layer).items()} for layer in found.layers
        ],
        "findings": [asdict(finding) for finding in findings_of(found)],
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
