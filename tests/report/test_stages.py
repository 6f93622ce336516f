"""The table by stage: what makes up a row, and that the rows add up."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SPECS

import cnngraph
from cnngraph.graph.stages import Stage, stages
from cnngraph.report.stages import kind_of, stage_table
from cnngraph.report.terminal import to_text


def shown(text: str) -> dict[str, Stage]:
    report = cnngraph.check(text)
    assert report.graph is not None, report
    return {stage.path: stage for stage in stages(report.graph)}


HEAD = "cnngraph: 1\nname: net\ninput: [8, 16, 16]\ngraph:\n"
CONV = "conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1}"


@pytest.mark.parametrize("path", sorted(SPECS.glob("*.yaml")), ids=lambda path: path.stem)
def test_rows_add_up_to_the_totals(path: Path) -> None:
    report = cnngraph.check(path)
    assert report.graph is not None
    assert report.summary is not None
    rows = stages(report.graph)
    assert sum(row.cost.params for row in rows) == report.summary.total.params
    assert sum(row.cost.macs for row in rows) == report.summary.training_macs


def test_a_sequential_is_expanded_and_a_block_is_one_row() -> None:
    found = shown(
        HEAD
        + f"  - sequential: {{name: features, body: [{{{CONV}}}, relu]}}\n"
        + f"  - residual: {{name: res, body: {{{CONV}}}}}\n"
    )
    assert list(found) == ["features.conv", "features.1", "res"]


def test_a_named_repeat_is_one_row_of_the_repeated_kind() -> None:
    found = shown(
        HEAD + f"  - repeat: {{name: layer, times: 3, body: [{{residual: [{{{CONV}}}]}}]}}\n"
    )
    assert kind_of(found["layer"]) == "residual x3"


def test_a_repeat_of_several_kinds_has_the_kind_repeat() -> None:
    body = "[{conv2d: {name: 'c${i}', out_channels: 8, kernel_size: 1}}, relu]"
    found = shown(HEAD + f"  - repeat: {{name: layer, times: 3, body: {body}}}\n")
    assert kind_of(found["layer"]) == "repeat x3"


def test_equal_copies_of_an_unnamed_repeat_are_one_row() -> None:
    body = "{conv2d: {name: 'c${i}', out_channels: 8, kernel_size: 1}}"
    found = shown(HEAD + f"  - repeat: {{times: 333, body: [{body}]}}\n")
    (row,) = found.values()
    assert (row.path, kind_of(row), row.cost.params) == ("c0 .. c332", "conv2d x333", 333 * 72)


def test_different_copies_are_separate_rows() -> None:
    body = "{conv2d: {name: 'c${i}', out_channels: '${w}', kernel_size: 1}}"
    found = shown(HEAD + f"  - repeat: {{over: [8, 8, 16, 16], as: w, body: [{body}]}}\n")
    assert list(found) == ["c0 .. c1", "c2", "c3"]
    assert found["c3"].shape == (16, 16, 16)


def test_adjacent_repeats_are_separate_rows() -> None:
    body = "{conv2d: {name: '%s${i}', out_channels: 8, kernel_size: 1}}"
    graph = "".join(f"  - repeat: {{times: 2, body: [{body % name}]}}\n" for name in "ab")
    assert list(shown(HEAD + graph)) == ["a0 .. a1", "b0 .. b1"]


def test_the_table_shows_every_number_in_full() -> None:
    report = cnngraph.check(SPECS / "googlenet.yaml")
    assert report.graph is not None
    lines = to_text(stage_table(report.graph)).splitlines()
    assert lines[0].split() == ["stage", "kind", "output", "params", "MACs"]
    assert lines[2].split() == ["conv1", "conv", "64x112x112", "9,536", "118,013,952"]
    assert lines[-1].split() == ["total", "6,624,904", "1,498,376,192"]
    assert max(map(len, lines)) <= 80
