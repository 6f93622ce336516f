"""`bench_network`: variants in processes of their own, which may fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnngraph.bench.network_step import builder_of
from cnngraph.bench.networks import NetworkBench, bench_network
from cnngraph.bench.processes import Worker, WorkerError, Workers
from cnngraph.bench.report import differing, network_data, network_notes
from cnngraph.bench.variants import Work
from cnngraph.errors import CnngraphError

TINY = Path(__file__).parent / "tiny.yaml"
PROGRESS: list[tuple[str, float]] = []
"""What `trained` reported."""


def bench(*against: str, **options: Any) -> NetworkBench:
    work = Work(str(TINY), {}, 2, (3, 32, 32), threads=1)
    return bench_network(work, against, rounds=2, seconds=0.001, **options)


@pytest.fixture(scope="module")
def trained() -> NetworkBench:
    progress = lambda what, share: PROGRESS.append((what, share))  # noqa: E731
    return bench("eager", "eager-nchw", "tuned-malloc", "onnxruntime", progress=progress)


@pytest.mark.slow
def test_every_variant_is_measured(trained: NetworkBench) -> None:
    rows = {row.variant.name: row for row in trained.rows}
    assert list(rows) == [
        "cnngraph",
        "default-malloc",
        "eager",
        "eager-nchw",
        "tuned-malloc",
        "onnxruntime",
    ]
    for name in ("cnngraph", "default-malloc", "eager", "eager-nchw", "tuned-malloc"):
        row = rows[name]
        assert row.error is None
        assert row.seconds is not None
        assert len(row.seconds.rounds) == 2
        assert row.seconds.min > 0
        assert row.ratio is not None
        assert row.ratio > 0
        assert row.tensor_bytes is not None
        assert row.held_bytes is not None
        assert row.process_bytes is not None
        assert row.tensor_bytes > row.held_bytes > 0
        assert row.process_bytes > row.tensor_bytes
    assert rows["cnngraph"].ratio == 1.0
    assert not differing(trained), "every variant computes the same loss"


@pytest.mark.slow
def test_held_bytes_are_weights_momenta_input_and_buffers(trained: NetworkBench) -> None:
    weights = 8 * 3 * 9 + 2 * 8 + 2 * (8 * 8 * 9 + 8) + 2 * (8 * 5 + 5)
    # Weights, momenta, the input, running statistics, and the number of batches (eight bytes).
    held = 4 * (2 * weights + 2 * 3 * 32 * 32 + 2 * 8) + 8
    assert {row.held_bytes for row in trained.rows if row.seconds} == {held}


@pytest.mark.slow
def test_only_tuned_variants_have_memory_settings(trained: NetworkBench) -> None:
    tuned = {row.variant.name for row in trained.rows if row.memory_settings is not None}
    assert tuned == {"cnngraph", "tuned-malloc"}


@pytest.mark.slow
def test_a_variant_that_cannot_run_says_why(trained: NetworkBench) -> None:
    row = trained.rows[-1]
    assert row.error == "runs in eval mode only"
    assert row.seconds is None
    assert "onnxruntime: runs in eval mode only" in network_notes(trained)


@pytest.mark.slow
def test_floors_count_every_convolution_and_linear_layer(trained: NetworkBench) -> None:
    floor = trained.floor
    assert floor.error is None
    assert floor.flops == 3 * 2 * 2 * (32 * 32 * 9 * 8 * (3 + 8 + 8) + 8 * 5 + 8 * 5)
    assert floor.seconds is not None
    assert floor.seconds > 0
    assert [(layer.path, layer.count) for layer in floor.layers] == [
        ("conv1", 1),
        ("side.fc", 2),
        ("more0", 2),
    ]
    assert sum(layer.count * layer.flops for layer in floor.layers) == floor.flops
    assert all(layer.seconds.min > 0 for layer in floor.layers)
    assert floor.layers_seconds is not None
    assert floor.layers_seconds > 0


SECONDS = {"median", "min", "iqr", "rounds"}


@pytest.mark.slow
def test_the_data_has_work_machine_variants_and_floor(trained: NetworkBench) -> None:
    data = network_data(trained)
    assert (data["file"], data["name"], data["mode"], data["batch_size"]) == (
        str(TINY),
        "tiny",
        "train",
        2,
    )
    assert (data["input"], data["dtype"], data["threads"], data["rounds"]) == (
        [3, 32, 32],
        "float32",
        1,
        2,
    )
    assert (data["device"], data["machine"]["gpu"]) == ("cpu", None)
    assert data["machine"]["cpu"]
    assert data["machine"]["torch"]
    first, *_, last = data["variants"]
    assert first.keys() == last.keys()
    assert first["seconds"].keys() == SECONDS
    assert (last["seconds"], last["ratio"], last["of_floor"]) == (None, None, None)
    assert first["of_floor"] > 0
    assert first["of_layers"] > 0
    assert data["floor"]["layers"][0].keys() == {
        "path",
        "kind",
        "count",
        "seconds",
        "flops_per_second",
    }


@pytest.mark.usefixtures("gpu")
def test_variants_on_a_gpu() -> None:
    work = Work(str(TINY), {}, 2, (3, 32, 32), "bfloat16", threads=1, device="cuda")
    found = bench_network(work, ["cnngraph-graph", "eager", "eager-graph"], rounds=2, seconds=0.001)
    assert [row.variant.name for row in found.rows] == [
        "cnngraph",
        "cnngraph-graph",
        "eager",
        "eager-graph",
    ]
    for row in found.rows:
        assert row.error is None
        assert row.seconds is not None
        assert row.tensor_bytes is not None
        assert row.held_bytes is not None
        assert row.process_bytes is not None
        assert row.process_bytes >= row.tensor_bytes > row.held_bytes > 0
        assert row.memory_settings is None
    assert not differing(found), "every variant computes the same loss"
    assert found.floor.seconds
    assert found.floor.layers_seconds
    assert found.machine["gpu"]


@pytest.mark.slow
def test_a_process_that_dies_is_reported_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = Worker.ask

    def asked(self: Worker, request: str, **arguments: Any) -> Any:
        if self.name in ("eager", "floor") and request == "measure":
            os.kill(self.process_id, signal.SIGKILL)
        return ask(self, request, **arguments)

    monkeypatch.setattr(Worker, "ask", asked)
    found = bench("eager")
    assert found.rows[2].error == "the process was ended by SIGKILL (out of memory?)"
    assert found.rows[2].seconds is None
    assert found.rows[0].seconds is not None
    assert found.floor.error == "the process was ended by SIGKILL (out of memory?)"
    assert found.floor.seconds is None
    assert network_data(found)["variants"][0]["of_floor"] is None


def test_a_worker_reports_errors_and_continues() -> None:
    with Workers(1) as workers:
        worker = workers.start("eager")
        missing = Work("nowhere.yaml", {}, 1, (3, 8, 8)).to_json()
        with pytest.raises(WorkerError, match="cannot read nowhere.yaml"):
            worker.ask("prepare_variant", variant="eager", work=missing)
        assert worker.ask(
            "prepare_variant", variant="eager", work=Work(str(TINY), {}, 2, (3, 32, 32)).to_json()
        )


@pytest.mark.slow
def test_progress_only_increases(trained: NetworkBench) -> None:
    shares = [share for _, share in PROGRESS]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert PROGRESS[0][0] == "preparing cnngraph"
    assert any(what == "round 2 of 2: default-malloc" for what, _ in PROGRESS)


def test_torch_compile_computes_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from cnngraph.bench.network_step import BUILDERS

    compile = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, mode: compile(network, backend="eager")
    )  # needs no C++ compiler
    work = Work(str(TINY), {}, 2, (3, 32, 32), threads=1)
    torch.manual_seed(0)
    compiled, held = BUILDERS["compile"](work)
    torch.manual_seed(0)
    eager, _ = BUILDERS["eager"](work)
    assert float(compiled()) == pytest.approx(float(eager()), rel=1e-4)
    assert held is not None
    torch.compiler.reset()


DENSE = """cnngraph: 1
name: {name}
input: [3, 8, 8]
graph:
- conv2d: {{name: conv, out_channels: 4, kernel_size: 3, bias: false}}
- batch_norm: {{name: norm}}
- flatten
- linear: {{name: classifier, out_features: 5}}
"""


def dense(folder: Path, name: str = "densenet_tiny") -> Work:
    path = folder / f"{name}.yaml"
    path.write_text(DENSE.format(name=name))
    return Work(str(path), {}, 2, (3, 8, 8), threads=1)


@pytest.fixture
def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake torchvision with one network, which records its arguments."""
    from torch import nn

    calls: list[dict[str, object]] = []

    def densenet_tiny(memory_efficient: bool, num_classes: int) -> nn.Module:
        calls.append({"memory_efficient": memory_efficient, "num_classes": num_classes})
        return nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(3, 4, 3, bias=False), norm=nn.BatchNorm2d(4),
                flatten=nn.Flatten(), classifier=nn.Linear(144, num_classes),
            )
        )  # fmt: skip

    models = SimpleNamespace(densenet_tiny=densenet_tiny)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    return SimpleNamespace(calls=calls, models=models)


def test_torchvisions_densenet_computes_the_same_loss(
    tmp_path: Path, fake_torchvision: SimpleNamespace
) -> None:
    import torch

    losses = []
    for name in ("torchvision-memory-efficient", "eager"):
        torch.manual_seed(0)
        step, _ = builder_of(name)(dense(tmp_path))
        losses.append(float(step()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert fake_torchvision.calls == [{"memory_efficient": True, "num_classes": 5}]


def test_torchvisions_densenet_must_have_the_same_weights(
    tmp_path: Path, fake_torchvision: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch import nn

    build = builder_of("torchvision-memory-efficient")
    with pytest.raises(
        CnngraphError, match="torchvision has this for DenseNets only, and tiny is none"
    ):
        build(dense(tmp_path, "tiny"))
    with pytest.raises(CnngraphError, match="torchvision has no densenet_other"):
        build(dense(tmp_path, "densenet_other"))
    fake_torchvision.models.densenet_tiny = lambda **options: nn.Linear(2, 2)
    with pytest.raises(
        CnngraphError, match="the weights of torchvision's densenet_tiny differ from this spec's"
    ):
        build(dense(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(
        CnngraphError,
        match="torchvision.*: pip install the torchvision that belongs to torch [0-9]",
    ):
        build(dense(tmp_path))


@pytest.mark.slow
def test_a_memory_budget_is_a_variant() -> None:
    found = bench("lean", "3MB", "1KB")
    *_, lean, enough, short = found.rows
    assert lean.error is None
    assert (enough.variant.name, enough.error) == ("3MB", None)
    assert enough.seconds is not None
    assert enough.memory_settings is not None
    assert short.error is not None
    assert "does not fit into" in short.error
    assert not differing(found)


def test_a_budget_applies_to_the_specs_own_size_and_the_measured_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import cnngraph.bench.network_step as network_step

    with pytest.raises(
        CnngraphError, match="a memory budget applies to the spec's own input size, 3x32x32"
    ):
        builder_of("1GB")(Work(str(TINY), {}, 2, (3, 40, 40), threads=1))
    given: list[dict[str, object]] = []
    compile = network_step.compile
    monkeypatch.setattr(
        network_step,
        "compile",
        lambda *args, **options: given.append(options) or compile(*args, **options),
    )
    builder_of("1GB")(Work(str(TINY), {}, 3, (3, 32, 32), threads=1))
    assert given == [{"memory": "1GB", "batch_size": 3, "allow_code": False}]


def test_workers_ignore_allocator_settings_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000000")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    with Workers(1) as workers:
        environment = Path(f"/proc/{workers.start('eager').process_id}/environ")
        if not environment.exists():
            pytest.skip("needs /proc")
        while not (text := environment.read_text()):  # it was just forked
            time.sleep(0.01)
    assert "MALLOC_" not in text
    assert "GLIBC_TUNABLES" not in text
    assert "OMP_NUM_THREADS=1" in text


def test_leaving_the_block_ends_every_process() -> None:
    with Workers(1) as workers:
        processes = [workers.start(name)._process for name in ("a", "b")]
        assert all(process.poll() is None for process in processes)
    assert all(process.poll() == -signal.SIGKILL for process in processes)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the end of a parent")
def test_a_busy_worker_ends_when_the_benchmark_is_killed() -> None:
    """A busy worker does not read stdin; here it is stopped instead."""
    code = """if True:
        from contextlib import suppress
        from cnngraph.bench.processes import Worker, WorkerError
        worker = Worker("a", 1)
        with suppress(WorkerError):
            worker.ask("nothing")
        print(worker.process_id, flush=True)
        input()
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True
    ) as benchmark:
        assert benchmark.stdout is not None
        worker = int(benchmark.stdout.readline())
        os.kill(worker, signal.SIGSTOP)
        benchmark.kill()
    try:
        for _ in range(100):
            if not is_alive(worker):
                break
            time.sleep(0.1)
        assert not is_alive(worker)
    finally:
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)


def is_alive(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
