"""The commands `bench` and `bench-kernels`: output, files and exit codes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS
from typer.testing import CliRunner, Result

from cnngraph import kernels
from cnngraph.bench.kernel_benchmarks import KERNEL_BENCHMARKS
from cnngraph.bench.kernels import MEGABYTES
from cnngraph.bench.variants import BATCH_SIZES, DEVICES
from cnngraph.cli import app

TINY = Path(__file__).parent / "tiny.yaml"

QUICK = ("--batch-size", "2", "--rounds", "1", "--threads", "1", "--against")


def run(*args: Any) -> Result:
    return CliRunner().invoke(app, [str(item) for item in args])


def test_bench_writes_a_table_a_json_file_and_a_chart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data, chart = tmp_path / "bench.json", tmp_path / "bench.svg"
    result = run(
        "bench", TINY, *QUICK, "eager,onnxruntime", "--size", 16, "-o", data, "--plot", chart
    )
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    out = result.stdout
    assert out.startswith("tiny: training step, batch 2 of 3x16x16, float32\n")
    for name in ("cnngraph", "default-malloc", "eager"):
        assert f"\n{name} " in out
    assert "\nonnxruntime: runs in eval mode only\n" in out
    assert "FLOP of convolutions and linear layers at " in out
    assert "\nlayers alone: 5 layers, 3 of them distinct" in out
    assert "; 1 thread; torch " in out
    assert out.endswith(f"wrote {data}\nwrote {chart}\n")
    written = json.loads(data.read_text())
    assert written["cnngraph"]
    assert written["input"] == [3, 16, 16]
    assert chart.read_text().startswith("<?xml")


@pytest.mark.slow
def test_json_output_is_the_only_output() -> None:
    evaluate = ("--mode", "eval", "--dtype", "bfloat16")
    result = run(
        "bench", TINY, *QUICK, "onnxruntime", *evaluate, "--set", "width=4", "--format", "json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    data = json.loads(result.stdout)
    assert (data["mode"], data["dtype"], data["params"]) == ("eval", "bfloat16", {"width": 4})
    ours, default, onnx = data["variants"]
    assert (ours["name"], default["name"], onnx["name"]) == (
        "cnngraph",
        "default-malloc",
        "onnxruntime",
    )
    assert ours["error"] is None
    assert ours["result"] == pytest.approx(default["result"], rel=0.01)
    assert onnx["error"] is not None  # it has no autocast, or is not installed
    assert data["floor"]["flops"] == 2 * 2 * (32 * 32 * 9 * 4 * (3 + 4 + 4) + 4 * 5)


@pytest.mark.parametrize(
    ("args", "code", "problem"),
    [
        (["--against", "eagre"], 2, "there is no variant `eagre`; did you mean `eager`?"),
        (["--plot", "bench.pdf"], 2, "a chart is a .png or .svg file"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--dtype", "float64"], 2, "--dtype"),
        (["--dtype", "float16"], 2, "float16 needs --device cuda"),
        (["--against", "eager-graph"], 2, "`eager-graph` needs --device cuda"),
        (["--against", "onnxruntime", "--device", "cuda"], 2, "`onnxruntime` needs --device cpu"),
        (["--set", "width=0"], 1, "`out_channels` must be at least 1"),
        (
            ["-o", "nowhere/bench.json"],
            1,
            "cannot write nowhere/bench.json: the folder nowhere does not exist",
        ),
    ],
)
def test_wrong_arguments_are_reported_before_anything_runs(
    args: list[str], code: int, problem: str
) -> None:
    result = run("bench", TINY, *args)
    assert result.exit_code == code
    assert problem in result.stderr
    assert result.stdout == ""


def test_an_input_size_that_the_network_does_not_accept_is_an_error() -> None:
    result = run("bench", SPECS / "lenet.yaml", "--size", 64)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: lenet does not accept 1x64x64: the weights of fc1")


@pytest.mark.parametrize(
    "command", [["bench", str(TINY)], ["bench-kernels"]], ids=lambda command: command[0]
)
def test_a_missing_gpu_or_cuda_build_is_an_error(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = run(*command, "--device", "cuda")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert re.fullmatch(r"error: torch [^\n]* has no GPU here: it [^\n]*\n", result.stderr)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("cnngraph.kernels.build_info", lambda: {"cuda": False})
    result = run(*command, "--device", "cuda")
    assert result.exit_code == 1
    assert re.fullmatch(
        r"error: [^\n]* built for the CPU only\. [^\n]* FORCE_CUDA=1 pip install [^\n]*\n",
        result.stderr,
    )


def test_a_chart_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("bench", TINY, "--plot", "bench.png")
    assert result.exit_code == 1
    assert result.stderr == "error: a chart needs matplotlib: pip install 'cnngraph[plots]'\n"


def test_every_device_has_default_sizes() -> None:
    assert DEVICES == tuple(BATCH_SIZES) == tuple(MEGABYTES)


@pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")
def test_bench_kernels_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    target = tmp_path / "kernels.json"
    result = run(
        "bench-kernels", "--megabytes", "0.02", "--rounds", 1, "--threads", 1, "-o", target
    )
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"^batch_norm_act +float32 +channels_last ", result.stdout, re.MULTILINE)
    assert "\nmemory settings: " in result.stdout
    assert len(json.loads(target.read_text())["rows"]) == 4 * len(KERNEL_BENCHMARKS)


@pytest.mark.parametrize("sizes", ["", "much", "1,-1", "nan"])
def test_invalid_sizes_of_tensors_are_wrong_usage(sizes: str) -> None:
    result = run("bench-kernels", "--megabytes", sizes)
    assert result.exit_code == 2
    assert "is not a list of sizes" in result.stderr


def children(process: int) -> list[int]:
    return [
        int(item) for item in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_ctrl_c_ends_every_process() -> None:
    command = [
        sys.executable,
        "-m",
        "cnngraph",
        "bench",
        str(SPECS / "lenet.yaml"),
        "--rounds",
        "1000",
    ]
    process = subprocess.Popen(
        [*command, "--against", "eager"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # background jobs of a shell ignore it
    )
    try:
        workers: list[int] = []
        for _ in range(600):
            workers = children(process.pid)
            if len(workers) >= 2:
                break
            time.sleep(0.1)
        assert len(workers) >= 2
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    for worker in workers:
        for _ in range(600):  # a worker that was just starting ends by itself
            if not Path(f"/proc/{worker}").exists():
                break
            time.sleep(0.1)
        assert not Path(f"/proc/{worker}").exists()
