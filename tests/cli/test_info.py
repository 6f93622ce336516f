"""`cnngraph info`: what a report of a problem needs."""

from __future__ import annotations

import json

import torch
from typer.testing import CliRunner

import cnngraph
from cnngraph.cli import app


def test_info_names_versions_processor_and_threads() -> None:
    result = CliRunner().invoke(app, ["info", "--json"])
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert data["cnngraph"] == cnngraph.__version__
    assert data["packages"]["torch"] == torch.__version__
    assert data["machine"]["cpus"] >= 1
    assert data["threads"]["torch"] == torch.get_num_threads()
    assert data["kernels"]["torch_capability"] == torch.backends.cpu.get_cpu_capability()
    assert data["kernels"]["loaded"] == (data["kernels"]["problem"] is None)


def test_info_as_text_has_a_line_for_each() -> None:
    lines = CliRunner().invoke(app, ["info"]).stdout.splitlines()
    names = [line.split()[0] for line in lines]
    assert names == [
        "cnngraph", "python", "packages", "missing", "processor", "capability", "threads",
        "kernels", "cuda",
    ]  # fmt: skip
