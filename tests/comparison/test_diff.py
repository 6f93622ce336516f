"""What changes from one network to another."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import cnngraph
from cnngraph import Diff, SpecError
from cnngraph.cli import app
from cnngraph.comparison.diff_report import diff_data, diff_markdown

BASE = """
cnngraph: 1
name: small
input: [3, 16, 16]
params: {act: relu, bias: true}
graph:
  - conv2d: {name: conv, out_channels: 8, kernel_size: 3, bias: "${bias}"}
  - "${act}"
  - conv2d: {out_channels: 8, kernel_size: 3}
  - relu
  - global_avg_pool2d
  - flatten
  - linear: {name: fc, out_features: 10}
"""
LONGER = BASE.replace('  - "${act}"\n', '  - "${act}"\n  - batch_norm\n')
WIDER = BASE.replace("out_channels: 8", "out_channels: 16")


def statuses(diff: Diff) -> dict[str, str]:
    """The path of each layer that differs -> its status."""
    layers = [(change.new or change.old, change.status) for change in diff.changes]
    return {layer.path: status for layer, status in layers if layer is not None}


def test_a_network_does_not_differ_from_itself() -> None:
    found = cnngraph.diff("googlenet", "googlenet")
    assert found.changes == []
    assert (*found.weights.renamed, *found.weights.lost, *found.weights.new) == ()
    assert "the same: " in str(found)


def test_blocks_that_were_added_are_found_by_name() -> None:
    found = cnngraph.diff("resnet18", "resnet34")
    blocks = {path.rpartition(".")[0] for path in statuses(found)}
    assert blocks == {
        "layer1.2", "layer2.2", "layer2.3", "layer3.2", "layer3.3", "layer3.4", "layer3.5",
        "layer4.2",
    }  # fmt: skip
    assert {*statuses(found).values()} == {"added"}
    assert found.weights.lost == ()
    rows = [line.split() for line in str(found).splitlines() if line.startswith("+")]
    assert [row[1] for row in rows] == sorted(blocks)
    assert rows[0][2:5] == ["basic_block", "7", "layers"]


def test_layers_behind_an_insertion_are_the_same_under_another_number() -> None:
    found = cnngraph.diff(BASE, LONGER)
    assert statuses(found) == {
        "2": "added", "3": "renamed", "4": "renamed", "5": "renamed", "6": "renamed",
    }  # fmt: skip
    assert found.weights.renamed == {"3.weight": "2.weight", "3.bias": "2.bias"}


def test_layers_of_a_wider_network_are_matched_with_their_arguments() -> None:
    found = cnngraph.diff(BASE, WIDER)
    changed = {c.new.path: c.arguments for c in found.changes if c.new and c.status == "changed"}
    assert changed == {
        "conv": {"out_channels": (8, 16)},
        "2": {"in_channels": (8, 16), "out_channels": (8, 16)},
        "fc": {"in_features": (8, 16)},
    }
    assert statuses(found)["1"] == "resized"


def test_params_of_one_spec_are_compared_with_its_defaults() -> None:
    found = cnngraph.diff(BASE, params={"act": "silu"})
    (change,) = found.changes
    assert change.old is not None
    assert change.new is not None
    assert (change.old.kind, change.new.kind, change.arguments) == ("relu", "silu", {})
    assert "relu -> silu" in str(found)
    with pytest.raises(cnngraph.CnngraphError, match="give a second spec, or params"):
        cnngraph.diff(BASE)


def test_totals_are_those_of_each_network() -> None:
    found = cnngraph.diff("resnet18", "mobilenet_v2")
    summaries = [cnngraph.check(name).summary for name in ("resnet18", "mobilenet_v2")]
    totals = [summary.total for summary in summaries if summary is not None]
    assert found.totals["params"] == tuple(total.params for total in totals)
    assert found.totals["macs"] == tuple(total.macs for total in totals)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (BASE, LONGER),
        (LONGER, BASE),
        (BASE, BASE.replace("features: 10", "features: 20")),
        (BASE, BASE.replace("bias: true", "bias: false")),
        ("resnet20_cifar", "resnet56_cifar"),
    ],
    ids=["longer", "shorter", "classes", "bias", "deeper"],
)
def test_the_weights_that_survive_are_those_that_a_transfer_loads(old: str, new: str) -> None:
    net = cnngraph.compile(new, backend="eager")
    state = cnngraph.compile(old, backend="eager").state_dict()
    loaded = cnngraph.load_weights(net, state, transfer=True)
    found = cnngraph.diff(old, new).weights
    assert ({*found.kept}, found.renamed) == ({*loaded.kept}, loaded.moved)
    assert {*found.new} == {*loaded.new}


def test_a_bias_that_is_left_out_is_the_only_loss_of_its_layer() -> None:
    found = cnngraph.diff(BASE, params={"bias": False}).weights
    assert found.lost == ("conv.bias",)
    assert "conv.weight" in found.kept


def test_an_invalid_spec_is_reported() -> None:
    with pytest.raises(SpecError, match="no op"):
        cnngraph.diff(BASE, BASE.replace("flatten", "flaten"))


def test_notebooks_show_tables() -> None:
    html = cnngraph.diff(BASE, WIDER)._repr_html_()
    assert html.count("<table>") == 2
    assert "out_channels 8 -&gt; 16" in html


def test_markdown_has_a_row_for_each_change() -> None:
    text = diff_markdown(cnngraph.diff(BASE, WIDER))
    assert "| ~ | conv | conv2d | out_channels 8 -> 16 | 8x14x14 -> 16x14x14 | +224 |" in text


def test_the_command_prints_the_same_as_json() -> None:
    run = CliRunner().invoke(app, ["diff", "lenet", "--set", "input=1,32,32", "--format", "json"])
    data = json.loads(run.stdout)
    del data["cnngraph"]
    expected = diff_data(cnngraph.diff("lenet", params={"input": [1, 32, 32]}))
    assert data == json.loads(json.dumps(expected))
    assert data["new"] == "lenet with input=[1, 32, 32]"
    assert [layer["path"][1] for layer in data["layers"] if layer["status"] == "changed"] == ["fc1"]


def test_the_command_needs_something_to_compare_with() -> None:
    run = CliRunner().invoke(app, ["diff", "lenet"])
    assert run.exit_code == 2
    assert "give a second spec, or --set a param" in run.stderr
