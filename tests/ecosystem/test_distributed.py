"""Two processes over gloo: sharded and replicated networks train to the weights of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from networks import BACKENDS, close, images, small
from torch import Tensor, distributed, multiprocessing, nn

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)
PROCESSES, STEPS = 2, 3


def network_of(form: str) -> nn.Module:
    # The running statistics, which do not depend on the other process's images.
    return small(form, torch.float64).eval()


def train(network: nn.Module, rank: int = 0, processes: int = 1) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        network(images(8, dtype=torch.float64)[rank::processes]).square().mean().backward()
        optimizer.step()


def sharded(form: str) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    network, mesh = network_of(form), init_device_mesh("cpu", (PROCESSES,))
    for block in (*network.layer, network.dense):  # pyright: ignore[reportGeneralTypeIssues]
        fully_shard(block, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def whole(network: nn.Module) -> dict[str, Tensor]:
    from torch.distributed.tensor import DTensor

    state = network.state_dict()
    return {
        name.replace("module.", ""): (
            value.full_tensor() if isinstance(value, DTensor) else value
        ).clone()
        for name, value in state.items()
    }


def saved_and_loaded(network: nn.Module, form: str, folder: str) -> dict[str, Tensor]:
    """A sharded checkpoint of torch.distributed, loaded into another sharded network."""
    from torch.distributed import checkpoint

    path = f"{folder}/checkpoint-{form}"
    checkpoint.save({"net": network.state_dict()}, checkpoint_id=path)
    other = sharded(form)
    state = {"net": other.state_dict()}
    checkpoint.load(state, checkpoint_id=path)
    other.load_state_dict(state["net"])
    return whole(other)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found: dict[Any, Any] = {}
    for form in BACKENDS:
        network = sharded(form)
        train(network, rank, PROCESSES)
        found["fsdp", form] = whole(network)
        found["checkpoint", form] = saved_and_loaded(network, form, folder)
        network = nn.parallel.DistributedDataParallel(network_of(form))
        train(network, rank, PROCESSES)
        found["ddp", form] = whole(network)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("distributed")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(PROCESSES)]


@pytest.mark.parametrize("form", BACKENDS)
@pytest.mark.parametrize("kind", ["fsdp", "ddp", "checkpoint"])
def test_the_weights_are_those_of_one_process(processes: Any, kind: str, form: str) -> None:
    alone = network_of("eager")
    train(alone)
    for found in processes:
        close(found[kind, form], alone.state_dict())
