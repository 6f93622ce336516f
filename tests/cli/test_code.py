"""`--plugin` and `--allow-code` of the commands that take a spec."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

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
    [["check"], ["draw", "-o", "net.svg"], ["report", "-o", "net.html"], ["train", "--dry-run"]],
    ids=lambda command: command[0],
)
def test_code_runs_only_if_allowed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command[0] == "train" and not all(map(find_spec, ["lightning", "sklearn"])):
        pytest.skip('training on the digits needs `pip install "cnngraph[train]"`')
    monkeypatch.chdir(tmp_path)
    Path("ops.py").write_text(PLUGIN)
    Path("net.yaml").write_text(SPEC)
    line = [command[0], "net.yaml", *command[1:], "--plugin", "ops.py"]
    refused = CliRunner().invoke(app, line)
    assert refused.exit_code == 1
    allowed = CliRunner().invoke(app, [*line, "--allow-code"])
    assert allowed.exit_code == 0, allowed.output
