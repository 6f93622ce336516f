"""DistributedDataParallel around compiled networks: two processes over gloo, each with half of a
batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_lowering import VARIED, assert_same, compiled
from torch import Tensor, distributed, multiprocessing, nn

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)

PROCESSES, STEPS = 2, 2


def network_of(backend: str, training: bool) -> nn.Module:
    return compiled(VARIED, backend).train(training)


def images(step: int) -> Tensor:
    return torch.randn(
        8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(step)
    )


def train(network: nn.Module, rank: int, processes: int) -> dict[str, Tensor]:
    """Gradients of the last step, and weights and statistics after it, of a process that has every
    `processes`th image."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for step in range(STEPS):
        optimizer.zero_grad()
        network(images(step)[rank::processes]).square().mean().backward()
        optimizer.step()
    gradients = {
        f"gradient of {name}": p.grad
        for name, p in network.named_parameters()
        if p.grad is not None
    }
    return {
        name.replace("module.", ""): value
        for name, value in {**gradients, **network.state_dict()}.items()
    }


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found = {
        (backend, training): train(
            nn.parallel.DistributedDataParallel(network_of(backend, training)), rank, PROCESSES
        )
        for backend, training in (("fused", False), ("fused", True), ("eager", True))
    }
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, dict[str, Tensor]]]:
    """What each process found: by backend, and whether batch norms were training."""
    folder = tmp_path_factory.mktemp("ddp")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(PROCESSES)]


def test_gradients_are_those_of_one_process_with_the_whole_batch(processes: list[Any]) -> None:
    """With the running statistics, which do not depend on who else is in the batch."""
    alone = train(network_of("fused", training=False), 0, 1)
    for found in processes:
        assert_same(found["fused", False], alone)


def test_weights_and_running_statistics_are_those_of_eager(processes: list[Any]) -> None:
    for found in processes:
        assert_same(found["fused", True], found["eager", True])
    first, second = (found["fused", True] for found in processes)
    weights = [name for name in first if "running" not in name]
    assert_same({name: first[name] for name in weights}, {name: second[name] for name in weights})
    # Each process has the first one's statistics at the start of a step, and those of its own
    # images after it.
    assert not torch.equal(first["bn0.running_mean"], second["bn0.running_mean"])
