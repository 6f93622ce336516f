"""`check` for other programs: annotations, SARIF, `--watch`, and the hook of pre-commit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

from cnngraph.cli.watching import stamps, wait_for_change
from cnngraph.errors import Diagnostic, Position, Source
from cnngraph.report.annotations import github_annotation, sarif

GOLDENS = ROOT / "tests" / "goldens"
CNNGRAPH = [sys.executable, "-m", "cnngraph"]
VALID = "cnngraph: 1\nname: net\ninput: [3, 8, 8]\ngraph:\n  - flatten\n  - linear: 10\n"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*CNNGRAPH, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_annotations_name_the_place() -> None:
    found = run("check", "tests/goldens/unknown_op.yaml", "--format", "github")
    assert found.returncode == 1
    assert found.stdout.splitlines()[0] == (
        "::error file=tests/goldens/unknown_op.yaml,line=5,col=5,endColumn=10,"
        "title=E104 unknown-op::there is no op or block `conv2`%0Ahelp: did you mean `conv2d`?"
    )
    assert not found.stderr


def test_annotations_are_escaped() -> None:
    place = Position(Source("a,b:c%.yaml", ""), 1, 2, 3)
    text = github_annotation(Diagnostic("W405", "100%\nnot used", place))
    assert text.startswith("::warning file=a%2Cb%3Ac%25.yaml,line=1,col=2,endColumn=5,")
    assert text.endswith("::100%25%0Anot used")


def test_sarif_lists_rules_and_results() -> None:
    found = run("check", "lenet", "tests/goldens/unknown_op.yaml", "--format", "sarif")
    log: Any = json.loads(found.stdout)
    assert log["version"] == "2.1.0"
    (only,) = log["runs"]
    assert [rule["id"] for rule in only["tool"]["driver"]["rules"]] == ["E104"]
    first = only["results"][0]
    place = first["locations"][0]["physicalLocation"]
    assert (first["ruleId"], first["level"]) == ("E104", "error")
    assert place["artifactLocation"]["uri"] == "tests/goldens/unknown_op.yaml"
    assert place["region"] == {"startLine": 5, "startColumn": 5, "endColumn": 10}
    assert not sarif([])["runs"][0]["results"]


def test_check_adds_the_memory_of_a_step_when_asked() -> None:
    found = run("check", "lenet", "--batch-size", 4, "--fit", "1MB", "--optimizer", "Adam")
    assert "for a training step of 4 images with Adam (predicted)" in found.stdout
    assert "fits into 1MB, with Adam" in found.stdout
    assert "memory" not in run("check", "lenet").stdout


def test_waiting_ends_when_a_file_appears(tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    before = stamps([file])
    assert before == {file: None}
    file.write_text(VALID)
    wait_for_change(before)
    assert stamps([file]) != before


def test_watch_checks_a_file_that_is_repaired(tmp_path: Path) -> None:
    file = tmp_path / "net.yaml"
    file.write_text(VALID.replace("linear", "linaer"))
    process = subprocess.Popen(
        [*CNNGRAPH, "check", str(file), "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    first = list(iter(lambda: next(lines), "waiting for changes; Ctrl-C ends\n"))
    assert any("did you mean `linear`?" in line for line in first)
    file.write_text(VALID)
    second = list(iter(lambda: next(lines), "waiting for changes; Ctrl-C ends\n"))
    assert any("params" in line for line in second)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_watch_is_for_text() -> None:
    assert run("check", "lenet", "--watch", "--format", "json").returncode == 2


def test_the_hook_runs_a_command_that_leaves_other_files_out(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "cnngraph check --specs-only"
    other, own = tmp_path / "other.yaml", tmp_path / "net.yaml"
    other.write_text("a: 1\n")
    own.write_text(VALID)
    arguments = hook["entry"].split()[1:]
    assert run(*arguments, other).returncode == 0
    found = run(*arguments, other, own)
    assert (found.returncode, "net.yaml" in found.stdout) == (0, True)
