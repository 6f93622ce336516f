"""The summary of a network by part, and the memory of its training step in words."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

import cnngraph
from cnngraph.graph import Graph
from cnngraph.graph.step_memory import OPTIMIZERS
from cnngraph.report.memory import describe_fit, largest, step_memory
from cnngraph.report.summary import (
    summarize_parts,
    summary_csv,
    summary_markdown,
    summary_rows,
)


def graph_of(name: str) -> Graph:
    graph = cnngraph.check(name).graph
    assert graph is not None
    return graph


@pytest.mark.parametrize("depth", [1, 2, 3, None])
def test_rows_add_up_at_every_depth(depth: int | None) -> None:
    graph = graph_of("resnet18")
    rows = summary_rows(summarize_parts(graph, depth, 2))
    assert sum(row["params"] for row in rows) == 11_689_512
    assert sum(row["macs"] for row in rows) == 1_814_073_344
    assert sum(row["params_share"] for row in rows) == pytest.approx(1, abs=1e-4)
    by_layer = summarize_parts(graph, None, 2).total.activations
    assert sum(row["activation_bytes"] for row in rows) == by_layer


def test_a_depth_opens_blocks() -> None:
    graph = graph_of("resnet18")
    paths = [[row["path"] for row in summary_rows(summarize_parts(graph, n))] for n in (1, 2)]
    assert "layer1" in paths[0]
    assert {"layer1.0", "layer1.1"} <= set(paths[1])
    assert len(summary_rows(summarize_parts(graph, None))) == len(graph.nodes)


def test_activations_grow_with_the_batch_and_views_are_free() -> None:
    graph = graph_of("lenet")
    one, four = (summary_rows(summarize_parts(graph, None, batch)) for batch in (1, 4))
    assert [row["activation_bytes"] * 4 for row in one] == [r["activation_bytes"] for r in four]
    assert one[0]["activation_bytes"] == 6 * 28 * 28 * 4
    assert [r["activation_bytes"] for r in one if r["kind"] == "flatten"] == [0]


def test_frozen_weights_are_counted_by_pattern() -> None:
    found = summarize_parts(graph_of("resnet18"), 1, 1, ["conv1", "layer?.0", "*.bias"])
    frozen = {row["path"]: row["frozen"] for row in summary_rows(found)}
    assert frozen["conv1"] == 9408
    assert frozen["bn1"] == 64
    assert frozen["fc"] == 1000
    assert 0 < frozen["layer4"] < 8_393_728


def test_the_formats_agree() -> None:
    found = summarize_parts(graph_of("lenet"), None)
    rows = list(csv.DictReader(io.StringIO(summary_csv(found))))
    assert [int(row["params"]) for row in rows] == [row["params"] for row in summary_rows(found)]
    assert rows[3]["receptive_field"] == "14x14"
    lines = summary_markdown(found).splitlines()
    assert len(lines) == 2 + len(rows) + 1
    assert {line.count("|") for line in lines} == {12}


def test_the_last_row_has_the_totals_and_no_receptive_field() -> None:
    found = summarize_parts(graph_of("lenet"))
    last = summary_markdown(found).splitlines()[-1]
    assert last == "| total |  | 10 | 61,706 | 100.0 | 416,520 | 100.0 | 58.4 kB |  |  |  |"
    assert found.total is found.total, "not added up for each row of a long table"


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    graph = graph_of("resnet18")
    batch = largest(graph, "2GB", "AdamW")
    assert (
        step_memory(graph, batch, "AdamW").peak <= 2e9 < step_memory(graph, batch + 1, "AdamW").peak
    )
    assert describe_fit(batch, "2GB", "AdamW") == (
        f"a training step of at most {batch} images fits into 2GB, with AdamW"
    )
    assert largest(graph, "10MB", "SGD") == 0
    for size in ("fast", "2XB", "0GB"):
        with pytest.raises(cnngraph.CnngraphError, match=f"`{size}` is not an amount of memory"):
            largest(graph, size, "SGD")


def test_optimizers_keep_what_torch_keeps() -> None:
    import torch

    from cnngraph.bench.devices import peak_of_tensors

    for name, (slots, temporary) in OPTIMIZERS.items():
        weight = torch.zeros(300, 500, requires_grad=True)
        arguments = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = getattr(torch.optim, name)([weight], lr=0.1, **arguments)
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        peak = peak_of_tensors(optimizer.step)
        assert peak == pytest.approx(temporary * weight.nbytes, abs=1000), name
        kept = [value for value in optimizer.state[weight].values() if torch.is_tensor(value)]
        assert sum(value.shape == weight.shape for value in kept) == slots, name


def test_the_command_needs_no_torch() -> None:
    code = (
        "import sys; from cnngraph.cli import app; app(standalone_mode=False);"
        " assert 'torch' not in sys.modules"
    )
    arguments = [
        "summary",
        "resnet18",
        "--set",
        "input=3,96,160",
        "--fit",
        "1GB",
        "--format",
        "json",
    ]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    assert found["input"] == {"input": [3, 96, 160]}
    assert found["largest_batch"] > 1
    assert found["parts"][7]["receptive_field"] == [435, 435]
    assert found["parts"][7]["shape"] == [512, 3, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "0"], "must be `all` or a whole number from 1"),
        (["--freeze", "conv1,fc9"], "the pattern `fc9` matches nothing; did you mean `fc"),
        (["--optimizer", "Adamm"], "memory is predicted for SGD, Adam"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "cnngraph", "summary", "lenet", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode in (1, 2)
    assert message in run.stderr
