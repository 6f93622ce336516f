"""Reports as plain data, for `--format json`. Keys may be added in later versions."""

from __future__ import annotations

from typing import Any

from cnngraph.graph.input_sizes import InputSizes, runs
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.check import Report

_OF_VALID = (
    "name", "input", "inputs", "output", "outputs", "aux", "params", "buffers", "macs",
    "training_macs", "sizes", "stages",
)  # fmt: skip
"""The keys that are None for an invalid spec."""


def report_data(report: Report) -> dict[str, Any]:
    """A report; for an invalid spec, what is unknown is None."""
    graph, costs = report.graph, report.summary
    data: dict[str, Any] = {
        "file": report.name,
        "ok": report.ok,
        "diagnostics": [item.to_dict() for item in report.diagnostics],
        **dict.fromkeys(_OF_VALID),
    }
    if graph is None or costs is None:
        return data
    return data | {
        "name": graph.name,
        "input": list(graph.input) if len(graph.inputs) == 1 else None,
        "inputs": {name: list(shape) for name, shape in graph.inputs.items()},
        "output": None if graph.features else list(graph.shape_of(graph.output)),
        "outputs": {name: list(graph.shape_of(path)) for name, path in graph.features.items()},
        "aux": {name: list(graph.shape_of(path)) for name, path in graph.aux.items()},
        "params": costs.total.params,
        "buffers": costs.total.buffers,
        "macs": costs.total.macs,
        "training_macs": costs.training_macs,
        "sizes": sizes_data(report.sizes) if report.sizes else None,
        "stages": [stage_data(stage) for stage in stages(graph)],
    }


def sizes_data(sizes: InputSizes) -> dict[str, Any]:
    """Square input sizes, as inclusive runs `[first, last]`."""
    return {
        "tried": list(sizes.range),
        "valid": [list(run) for run in sizes.runs],
        "least": sizes.least,
        "stride": sizes.stride,
        "failures": [
            {
                "sizes": [list(run) for run in runs(item.sizes)],
                "path": item.path,
                "code": item.code,
                "reason": item.reason,
            }
            for item in sizes.failures
        ],
    }


def stage_data(stage: Stage) -> dict[str, Any]:
    """A stage; the shape is without the batch."""
    return {
        "path": stage.path,
        "kind": stage.kind,
        "copies": stage.copies,
        "shape": list(stage.shape),
        "params": stage.cost.params,
        "buffers": stage.cost.buffers,
        "macs": stage.cost.macs,
        "aux": stage.aux,
    }
