"""Networks side by side."""

from __future__ import annotations

import cnngraph
from cnngraph.comparison.networks import compare, comparison_table
from cnngraph.report.memory import step_memory
from cnngraph.report.terminal import to_text


def test_rows_are_the_figures_of_each_network() -> None:
    graphs = [(name, cnngraph.check(name).graph) for name in ("resnet18", "lenet")]
    known = [(name, graph) for name, graph in graphs if graph is not None]
    first, second = compare(known, 4, "AdamW")
    assert (first.params, first.macs, first.layers) == (11_689_512, 1_814_073_344, 21)
    assert (second.params, second.layers, second.input) == (61_706, 5, "1x28x28")
    assert first.memory == step_memory(known[0][1], 4, "AdamW").peak
    lines = to_text(comparison_table([first, second])).splitlines()
    assert lines[2].split()[:5] == ["resnet18", "3x224x224", "21", "11.7", "M"]
