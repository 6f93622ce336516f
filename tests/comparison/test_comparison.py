"""Networks side by side."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import cnngraph
from cnngraph import CnngraphError
from cnngraph.cli import app
from cnngraph.comparison.labels import place_labels
from cnngraph.comparison.networks import Networks, compared, comparison_text
from cnngraph.report.memory import step_memory
from cnngraph.report.plots import new_figure
from cnngraph.zoo.accuracy import TOP1


def test_rows_are_the_figures_of_each_network() -> None:
    found = cnngraph.compare(["resnet18", "lenet"], batch_size=4, optimizer="AdamW")
    first, second = found.networks
    assert (first.params, first.macs, first.layers) == (11_689_512, 1_814_073_344, 21)
    assert (second.params, second.layers, second.input) == (61_706, 5, "1x28x28")
    assert (first.top1, second.top1) == (69.758, None)
    graph = cnngraph.check("resnet18").graph
    assert graph is not None
    assert first.memory == step_memory(graph, 4, "AdamW").peak
    lines = str(found).splitlines()
    assert lines[2].split()[:6] == ["resnet18", "3x224x224", "21", "69.8", "11.7", "M"]
    assert "<td" in found._repr_html_()


def test_columns_without_a_figure_are_left_out() -> None:
    header = str(cnngraph.compare(["lenet", "resnet20_cifar"])).splitlines()[0]
    assert header.split() == ["network", "input", "layers", "params", "MACs", "act.", "memory"]


def test_one_spec_is_no_list_of_specs() -> None:
    with pytest.raises(CnngraphError, match="`specs` is a list"):
        cnngraph.compare("resnet18")


@pytest.mark.parametrize("params", [{"num_classes": 10}, {"input": [3, 192, 192]}], ids=str)
def test_the_accuracy_is_that_of_the_unchanged_network(params: dict[str, Any]) -> None:
    assert cnngraph.compare(["resnet18"]).networks[0].top1 == TOP1["resnet18"]
    assert cnngraph.compare(["resnet18"], params).networks[0].top1 is None


@pytest.mark.slow
def test_published_accuracies_are_those_of_torchvisions_weights(torchvision: Any) -> None:
    for name, top1 in TOP1.items():
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        assert weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] == top1
        spec = "inception_v3_aux" if name == "inception_v3" else name
        report = cnngraph.check(spec)
        assert report.summary is not None
        assert report.summary.total.params == weights.meta["num_params"]
        assert report.graph is not None
        assert [report.graph.input[-1]] == weights.transforms().crop_size


@pytest.mark.slow
def test_the_speed_is_measured_in_evaluation() -> None:
    found = cnngraph.compare(["lenet"], batch_size=4, measure=True)
    assert (found.networks[0].images_per_second or 0) > 0
    assert (found.threads or 0) > 0
    assert "images/s: in evaluation, batches of 4" in str(found)


def test_networks_with_several_inputs_are_not_measured() -> None:
    spec = "cnngraph: 1\nname: two\ninputs: {a: [2, 8, 8], b: [2, 8, 8]}\ngraph:\n  - add: [a, b]\n"
    with pytest.raises(CnngraphError, match="several inputs: its speed is not measured"):
        cnngraph.compare([spec], measure=True)


@pytest.mark.slow
def test_the_plot_names_every_network(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs cnngraph[plots]")
    from cnngraph.comparison.plot import comparison_figure

    found = cnngraph.compare(["resnet18", "mobilenet_v2", "lenet"])
    figure = comparison_figure(found)
    upper, lower = figure.subfigs
    names = [[text.get_text() for text in axes.texts] for axes in upper.axes]
    assert names == [["mobilenet_v2", "resnet18"], ["resnet18", "mobilenet_v2"]]
    bars = [label.get_text() for label in lower.axes[0].get_yticklabels()]
    assert bars == ["resnet18", "mobilenet_v2", "lenet"]
    found.save(tmp_path / "compare.svg")
    assert "<svg" in (tmp_path / "compare.svg").read_text()


def test_labels_of_close_bubbles_do_not_overlap() -> None:
    pytest.importorskip("matplotlib", reason="needs cnngraph[plots]")
    from matplotlib.text import Text

    figure = new_figure(6, 4)
    axes = figure.subplots()
    x, y = [1.0, 1.02, 1.01, 3.0], [1.0, 1.01, 0.99, 3.0]
    axes.scatter(x, y, s=100)
    place_labels(axes, x, y, [100.0] * 4, ["the_first", "the_second", "the_third", "far"])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to bubbles
    assert len(boxes) == 4
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)


def test_the_command_prints_the_same_as_json() -> None:
    run = CliRunner().invoke(app, ["compare", "resnet18", "lenet", "--format", "json"])
    data = json.loads(run.stdout)
    found = cnngraph.compare(["resnet18", "lenet"])
    assert data["networks"] == [vars(item) for item in found.networks]
    assert (data["batch_size"], data["optimizer"], data["threads"]) == (16, "SGD", None)


def test_without_matplotlib_the_table_is_still_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = CliRunner().invoke(app, ["compare", "lenet", "-o", str(tmp_path / "compare.svg")])
    assert run.exit_code == 1
    assert "61.7 k" in run.stdout
    assert "a chart needs matplotlib" in run.stderr


def test_speeds_are_read_at_a_glance() -> None:
    graph = cnngraph.check("lenet").graph
    assert graph is not None
    rows = [compared("lenet", graph, 1, "SGD", speed) for speed in (2316.4, 10.42)]
    text = comparison_text(Networks(tuple(rows), 1, "SGD", 1))
    assert [line.split()[-1] for line in text.splitlines()[2:4]] == ["2,316", "10.4"]


def test_the_command_refuses_other_formats_before_it_measures() -> None:
    run = CliRunner().invoke(app, ["compare", "resnet18", "--measure", "-o", "compare.gif"])
    assert run.exit_code == 1
    assert "a chart is a .png or .svg file" in run.stderr
