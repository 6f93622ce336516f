"""`bench_layers` and `bench-kernels --layers` on small layers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cnngraph import kernels
from cnngraph.bench.layers import LAYERS, LayerBench, LayerCase, bench_layers
from cnngraph.cli import app

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

SMALL = (
    LayerCase("convolution", 16, 32, 8, 3),
    LayerCase("convolution", 32, 32, 8, 1, 2),
    LayerCase("linear", 64, 48),
    LayerCase("dense_block", 32, 8, 6, layers=2),
)


@pytest.fixture(scope="module")
def found() -> LayerBench:
    return bench_layers(SMALL, batch_size=2, rounds=2, seconds=1e-4, threads=1)


def test_every_result_is_measured_by_every_kernel(found: LayerBench) -> None:
    measured = {(str(row.case), row.result): set(row.kernels) for row in found.rows}
    assert measured["3x3, 16 to 32 at 8x8", "weight_gradient"] == {
        "library", "winograd_2x2", "winograd_4x4", "packed"
    }  # fmt: skip
    assert measured["1x1 /2, 32 to 32 at 8x8", "output"] == {"library"}
    assert measured["linear 64 to 48", "input_gradient"] == {"library", "rows", "pointwise"}
    assert measured["dense block of 2, 32 + 8 at 6x6", "step"] == {"library", "dense_block"}
    for row in found.rows:
        assert row.chosen in row.kernels
        assert row.speedup > 0
        assert all(len(samples.rounds) == 2 for samples in row.kernels.values())


def test_flops_are_those_of_a_direct_sum(found: LayerBench) -> None:
    flops = {(str(row.case), row.result): row.flops for row in found.rows}
    assert flops["3x3, 16 to 32 at 8x8", "output"] == 2 * 2 * 64 * 32 * 16 * 9
    assert flops["1x1 /2, 32 to 32 at 8x8", "weight_gradient"] == 2 * 2 * 16 * 32 * 32
    weights = 32 * 32 + 32 * 8 * 9 + 40 * 32 + 32 * 8 * 9
    assert flops["dense block of 2, 32 + 8 at 6x6", "step"] == 3 * 2 * 2 * 36 * weights
    assert found.peak > 0


def test_the_layers_are_distinct() -> None:
    assert len({str(layer) for layer in LAYERS}) == len(LAYERS)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_layers, "__defaults__", (SMALL, *bench_layers.__defaults__[1:]))  # type: ignore
    target = tmp_path / "layers.json"
    arguments = "bench-kernels", "--layers", "--rounds", "1", "--threads", "1", "-o", str(target)
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^3x3, 16 to 32 at 8x8 +output +\d+ +\d+ +\d+ +- ", result.stdout, re.M)
    assert re.search(r"^peak \d+ GFLOP/s; ", result.stdout, re.M)
    data = json.loads(target.read_text())
    assert len(data["rows"]) == 3 * 3 + 1
    assert data["rows"][0]["kernels"]["library"]["median"] > 0


@pytest.mark.parametrize("other", [("--megabytes", "1"), ("--device", "cuda")])
def test_layers_do_not_go_with(other: tuple[str, str]) -> None:
    result = CliRunner().invoke(app, ["bench-kernels", "--layers", *other])
    assert result.exit_code == 2
    assert "it does not go with" in result.stderr
    assert other[0] in result.stderr
