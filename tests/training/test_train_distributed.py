"""Runs of two processes over gloo: their weights, and what happens if one of them ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import sleep

import numpy
import pytest
import stripes
import torch
from torch import Tensor, distributed
from torch.multiprocessing.spawn import spawn

import cnngraph
from cnngraph import training
from cnngraph.errors import CnngraphError, Source
from cnngraph.options import Strategy
from cnngraph.training.distributed import launch, require_parts
from cnngraph.training.listeners import Step
from cnngraph.training.recipe import parse_recipe
from cnngraph.training.sharding import blocks

needs_gloo = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)

SPEC = stripes.TINY.replace("  - dropout: 0.2\n", "").replace(
    "padding: 1", "padding: 1, bias: false"
)
RECIPE = """
recipe: 1
batch_size: 7
optimizer: {name: SGD, lr: 0.1, momentum: 0.9}
"""
"""27 images: batches of 7, in parts of 4 and 3 images, and a last one of 6."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = stripes.data(27, 9)
    (tmp_path / "tiny.yaml").write_text(SPEC)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    numpy.savez(
        tmp_path / "stripes.npz",
        x_train=data.train.batch(range(27))[:, 0].numpy(),
        y_train=data.train.labels.numpy(),
        x_test=data.val.batch(range(9))[:, 0].numpy(),
        y_test=data.val.labels.numpy(),
    )
    return tmp_path


def command(folder: Path, output: str, *options: object) -> list[str]:
    fixed = ["--data", "stripes.npz", "--recipe", "recipe.yaml", "--device", "cpu", "-o", output]
    return [sys.executable, "-m", "cnngraph", "train", "tiny.yaml", *fixed, *map(str, options)]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True)


def weights(path: Path) -> dict[str, Tensor]:
    return cnngraph.load_compiled(path / "last.ckpt").state_dict()


@pytest.mark.slow
@needs_gloo
def test_two_processes_give_the_weights_of_one_and_a_lost_one_can_be_resumed(folder: Path) -> None:
    options = ("--epochs", 25)
    alone = run(folder, *command(folder, "one", *options))
    assert alone.returncode == 0, alone.stderr
    broken = subprocess.Popen(
        command(folder, "two", *options, "--devices", 2, "--save-every", 1),
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (folder / "two/metrics.csv").exists():
        assert broken.poll() is None
        sleep(0.05)
    children = Path(f"/proc/{broken.pid}/task/{broken.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    _, error = broken.communicate()
    assert broken.returncode == 1
    assert error == (
        "error: process 1 of 2 was ended by SIGKILL; `cnngraph train --resume two` continues\n"
    )
    resumed = run(
        folder, sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        "-m", "cnngraph", "train", "--resume", "two", "--device", "cpu", "--strategy", "fsdp",
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing after step" in resumed.stdout
    first, second = weights(folder / "one"), weights(folder / "two")
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-3, atol=1e-4, msg=key)


BLOCKS = """
cnngraph: 1
name: blocks
input: [1, 8, 8]
params: {num_classes: 3}
blocks:
  block:
    body:
      - residual:
          name: ~
          body:
            - conv2d: {name: conv1, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
            - batch_norm: {name: bn1}
      - relu
graph:
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: bn}
  - relu
  - repeat: {name: layer, times: 2, body: [block]}
  - max_pool2d: 2
  - flatten
  - linear: {name: fc, out_features: "${num_classes}"}
"""
OVERRIDES = {
    "epochs": 3,
    "batch_size": 7,
    "accumulate": 2,
    "ema": 0.9,
    "clip_gradient_norm": 1.0,
    "freeze": ["*"],
    "unfreeze": {"0": ["fc"], "1": ["layer"], "2": ["*"]},
    "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
}
STRATEGIES: tuple[Strategy, ...] = ("ddp", "fsdp")


class StopsTheFirst(training.Listener):
    """Interrupts a run after a step, as Ctrl-C does."""

    def on_step(self, step: Step) -> None:
        if step.step == 3:
            os.kill(os.getpid(), signal.SIGINT)


def fit_blocks(output: str, strategy: Strategy = "ddp") -> training.Run:
    return training.fit(
        BLOCKS, stripes.data(27, 9), overrides=OVERRIDES, output=output, device="cpu",
        strategy=strategy, listener=None if output.endswith("alone") else StopsTheFirst(),
    )  # fmt: skip


def work(rank: int, folder: str, port: int) -> None:
    """A process of torchrun: interrupts a run of each strategy, and resumes it with the other."""
    torch.set_num_threads(1)
    numbers = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    os.environ |= {name: str(value) for name, value in numbers.items()}
    for strategy, other in zip(STRATEGIES, STRATEGIES[::-1], strict=True):
        output = f"{folder}/{strategy}"
        with pytest.raises(training.Interrupted):
            fit_blocks(output, strategy)
        distributed.barrier()
        data = stripes.data(27, 9)
        done = training.resume(output, data=data, device="cpu", strategy=other)
        torch.save(done.network.state_dict(), f"{folder}/{strategy}{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@needs_gloo
def test_both_strategies_give_the_weights_of_one_process(tmp_path: Path) -> None:
    """With frozen parts, averages, uneven and accumulated batches, over an interruption."""
    alone = fit_blocks(f"{tmp_path}/alone").network.state_dict()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(work, (str(tmp_path), port), nprocs=2)
    for strategy in STRATEGIES:
        for rank in range(2):
            found = torch.load(tmp_path / f"{strategy}{rank}.pt")
            torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5, msg=strategy)


def test_networks_are_sharded_by_blocks() -> None:
    net = cnngraph.compile(BLOCKS)
    assert list(blocks(net)) == [net.layer[0], net.layer[1]]  # pyright: ignore


def fails(tmp_path: Path, script: str, capfd: pytest.CaptureFixture[str]) -> str:
    code = f"import os, sys, time, signal; first = os.environ['RANK'] == '0'\n{script}"
    assert launch([sys.executable, "-S", "-c", code], 2, "resume it") != 0
    return capfd.readouterr().err


def test_a_process_that_dies_is_named_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    killed = "sys.exit(75) if first else os.kill(os.getpid(), signal.SIGKILL)"
    line = "error: process 1 of 2 was ended by SIGKILL; resume it\n"
    assert fails(tmp_path, killed, capfd) == line
    failed = "sys.exit(75 if first else 'error: no memory')"
    assert fails(tmp_path, failed, capfd) == (
        "error: process 1 of 2 failed: no memory; resume it\n"
    )
    # Both fail for the same reason, which the first one prints.
    assert fails(tmp_path, "sys.exit('error: a loss is nan')", capfd) == "error: a loss is nan\n"


def test_recipes_that_several_processes_cannot_carry_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    small = parse_recipe(Source("r", "recipe: 1\nbatch_size: 7\n"))
    with pytest.raises(CnngraphError, match="a batch of 7 is too small for 4 processes"):
        require_parts(small, "ddp")
    half = parse_recipe(Source("r", "recipe: 1\nprecision: float16\n"))
    with pytest.raises(CnngraphError, match="`fsdp` does not work with `precision: float16`"):
        require_parts(half, "fsdp")
    monkeypatch.setenv("WORLD_SIZE", "1")
    require_parts(small, "ddp")
    with pytest.raises(CnngraphError, match="`fsdp` shards .* this is a single one"):
        require_parts(small, "fsdp")
