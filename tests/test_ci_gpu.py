"""`.ci/gpu` without a GPU: its messages, and the independence of its stages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

SCRIPT = ROOT / ".ci" / "gpu"

pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="not in a checkout")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with a fake GPU."""
    loader = SourceFileLoader("ci_gpu", str(SCRIPT))
    spec = spec_from_loader("ci_gpu", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "ci_gpu", module)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    machine = {"gpu": "Some GPU", "capability": "9.0", "torch": "2.13.0", "cuda": "13.0"}
    monkeypatch.setattr(module, "machine_here", lambda: machine)
    return module


def test_a_missing_gpu_is_reported(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    run = subprocess.run(
        [sys.executable, SCRIPT, output], capture_output=True, text=True, env=environment
    )
    assert (run.returncode, run.stderr) == (3, "")
    assert run.stdout.startswith("there is no GPU here: torch ")
    found = json.loads(output.read_text())
    assert found["machine"]["gpu"] is None
    assert found["machine"]["problem"] in run.stdout
    assert found["stages"] == {}


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_failed_stage_does_not_stop_the_others(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu.json"
    stages = [
        script.Stage(
            "fails", [python("print('failed'); raise SystemExit(5)"), python("print('never')")], 60
        ),
        script.Stage(
            "hangs", [python("import time; print('running', flush=True); time.sleep(60)")], 2
        ),
        script.Stage("lacks", [["nothing"]], 60, program="no-such-program"),
        script.Stage("no such program", [["no-such-program"]], 60),
        script.Stage(
            "finds",
            [["sh", "-c", 'echo "{\\"of\\": \\"$ARCH\\"}" >"$0"', "{found}"]],
            60,
            {"ARCH": "{capability}"},
        ),
    ]
    assert (
        script.run_all(stages, {"stages": {"before": {"exit": 0}}}, output, time.monotonic() + 60)
        == 1
    )
    found = json.loads(output.read_text())["stages"]
    assert found["before"] == {"exit": 0}
    assert {name: result["exit"] for name, result in found.items()} == {
        "before": 0, "fails": 5, "hangs": 124, "lacks": None, "no such program": 127, "finds": 0,
    }  # fmt: skip
    assert found["fails"]["tail"] == "failed\n"
    assert found["hangs"]["tail"] == "running\nout of time\n"
    assert found["hangs"]["seconds"] < 30
    assert found["finds"]["found"] == {"of": "9.0"}
    assert "lacks: no-such-program is not installed" in capsys.readouterr().out
    assert script.run_all(stages[4:], {"stages": {}}, output, time.monotonic() + 60) == 0
    assert script.run_all(stages[4:], {"stages": {}}, output, time.monotonic()) == 1
    (result,) = json.loads(output.read_text())["stages"].values()
    assert result["not_run"] == "no time was left: run it with --only 'finds'"


def test_only_the_named_stages_run_and_the_others_are_kept(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "gpu.json"
    output.write_text(json.dumps({"stages": {"build": {"exit": 0}}}))
    ran = []
    monkeypatch.setattr(
        script,
        "run",
        lambda stage, machine, until: ran.append(stage.name) or {"exit": 0, "not_run": "-"},
    )
    for only in (["--only", "bench,autotune googlenet"], []):
        monkeypatch.setattr(sys, "argv", ["gpu", str(output), *only])
        script.main()
        kept = json.loads(output.read_text())["stages"]
        assert ("build" in ran) == (only == [])
        assert kept["bench resnet50"] == {"exit": 0, "not_run": "-"}
        assert "build" in kept
        if only:
            assert ran == [
                "bench densenet121",
                "bench resnet50",
                "bench googlenet",
                "autotune googlenet",
            ]
        ran.clear()
    assert not any(name.startswith("autotune") for name in kept)
    monkeypatch.setattr(sys, "argv", ["gpu", str(output), "--only", "dance"])
    with pytest.raises(SystemExit):
        script.main()
    assert "there is no stage 'dance'; choose from build, tests" in capsys.readouterr().err
