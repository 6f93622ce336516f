"""`--plugin` and `--allow-code` of the commands that take a spec."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
from typer.testing import CliRunner

from cnngraph.cli import app

PLUGIN = """
from cnngraph.ops import register
from cnngraph.ops.op import ShapePreserving

@register
class Rectified(ShapePreserving):
    kind = "rectified_by_a_plugin"
    module_class = "torch.nn.ReLU"
"""
SPEC = """
cnngraph: 1
name: net
input: [1, 8, 8]
graph:
  - rectified_by_a_plugin
  - module: {class: torch.nn.ReLU}
  - flatten
  - linear: 10
"""


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["draw", "-o", "net.svg"],
        ["report", "-o", "net.html"],
        ["summary"],
        ["compare"],
        ["compile"],
        ["scaling"],
        ["export", "--python", "net.py"],
        ["train", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
def test_code_runs_only_if_allowed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command[0] == "train":
        require_training()
    monkeypatch.chdir(tmp_path)
    Path("ops.py").write_text(PLUGIN)
    Path("net.yaml").write_text(SPEC)
    need_permission(command[0], "net.yaml", *command[1:])


@pytest.mark.slow
def test_code_of_a_checkpoint_runs_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_training()
    monkeypatch.chdir(tmp_path)
    Path("ops.py").write_text(PLUGIN)
    Path("net.yaml").write_text(SPEC)
    images = numpy.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=numpy.uint8)
    numpy.savez("data.npz", images=images, labels=numpy.arange(40) % 10)
    need_permission("train", "net.yaml", "--data", "data.npz", "--epochs", "1", "-o", "run")
    need_permission("evaluate", "run")
    need_permission("train", "--resume", "run")
    Path("all.yaml").write_text(
        "experiment: 1\nname: all\nquestion: Does it run?\nvariants: {a: {spec: net.yaml}, b: {spec: net.yaml}}\n"
    )
    need_permission("experiment", "all.yaml", "--data", "data.npz", "--short", "-o", "results")


@pytest.mark.slow
def test_code_of_a_benchmark_runs_only_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ops.py").write_text(PLUGIN)
    Path("net.yaml").write_text(SPEC)
    need_permission("bench", "net.yaml", "--against", "eager", "--rounds", "1", "--threads", "1")


def require_training() -> None:
    if not all(map(find_spec, ["lightning", "sklearn"])):
        pytest.skip('training on the digits needs `pip install "cnngraph[train]"`')


def need_permission(*line: str) -> None:
    refused = CliRunner().invoke(app, [*line, "--plugin", "ops.py"])
    assert refused.exit_code == 1
    said = Path("net.html").read_text() if line[0] == "report" else refused.output
    assert "--allow-code" in said
    allowed = CliRunner().invoke(app, [*line, "--plugin", "ops.py", "--allow-code"])
    assert allowed.exit_code == 0, allowed.output
