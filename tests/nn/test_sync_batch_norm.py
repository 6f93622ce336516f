"""Batch norms that are synchronised: two processes over gloo against one with the whole batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from cnngraph import kernels
from cnngraph.nn.batch_norm_act import batch_norm_act
from cnngraph.nn.sync_batch_norm import SyncBatchNorm, plain_batch_norms, sync_batch_norms

pytestmark = pytest.mark.skipif(
    not distributed.is_gloo_available(), reason="torch was built without gloo"
)

CASES = {
    "relu": (nn.ReLU, False, True, torch.float64),
    "relu and residual": (nn.ReLU, True, True, torch.float64),
    "residual": (nn.Identity, True, True, torch.float64),
    "silu and residual": (nn.SiLU, True, True, torch.float64),
    "without weights": (nn.ReLU, False, False, torch.float64),
    "float32": (nn.ReLU, True, True, torch.float32),
    "bfloat16": (nn.ReLU, False, True, torch.bfloat16),
    "plain torch": (None, False, True, torch.float64),
}
"""Activation, residual, weights, and type of the images; a batch of 5 and one of 3."""


def case(name: str, parts: tuple[slice, ...], part: int, sync: bool) -> dict[str, Tensor]:
    """The output, gradients and running statistics of a part of the batch."""
    kind, with_residual, affine, dtype = CASES[name]
    generator = torch.Generator().manual_seed(0)
    x, residual, grad = (
        torch.randn(8, 6, 5, 5, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    rows = parts[part]
    x, residual, grad = ((value + 3).to(dtype)[rows] for value in (x, residual, grad))
    norm = nn.BatchNorm2d(6, affine=affine, dtype=torch.float64 if dtype is torch.float64 else None)
    if affine:
        with torch.no_grad():
            norm.weight.copy_(torch.linspace(0.5, 1.5, 6))
            norm.bias.copy_(torch.linspace(-1, 1, 6))
    if sync:
        sync_batch_norms(norm)
    x.requires_grad_()
    residual.requires_grad_()
    if kind is None:
        kernels_before, kernels.extension = kernels.extension, None
        output = norm(x).relu()
        kernels.extension = kernels_before
    else:
        output = batch_norm_act(norm, kind(), x, residual if with_residual else None)
    output.backward(grad)
    found = {"output": output.detach(), "of the input": x.grad, "mean": norm.running_mean, "var": norm.running_var}  # fmt: skip
    if with_residual:
        found["of the residual"] = residual.grad
    if affine:
        found |= {"weight": norm.weight.grad, "bias": norm.bias.grad}
    return {key: value.clone() for key, value in found.items() if value is not None}


PARTS = (slice(0, 5), slice(5, 8))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save({name: case(name, PARTS, rank, sync=True) for name in CASES}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sync")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_compute_what_one_does_with_the_whole_batch(
    processes: list[dict[str, Any]], name: str
) -> None:
    alone = case(name, (slice(0, 8),), 0, sync=False)
    first, second = (found[name] for found in processes)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 4e-2}[CASES[name][3]]
    for key, expected in alone.items():
        if key in ("mean", "var"):
            together = first[key]
            assert torch.equal(first[key], second[key])
        elif key in ("weight", "bias"):
            together = first[key] + second[key]
        else:
            together = torch.cat([first[key], second[key]])
        torch.testing.assert_close(together, expected, rtol=tolerance, atol=tolerance)


def test_alone_it_is_the_plain_batch_norm_and_can_be_undone() -> None:
    x = torch.randn(4, 6, 5, 5)
    plain, net = nn.BatchNorm2d(6), nn.Sequential(nn.BatchNorm2d(6))
    sync_batch_norms(net)
    assert type(net[0]) is SyncBatchNorm
    for training in (True, False):
        expected = plain.train(training)(x)
        assert torch.equal(net.train(training)(x), expected)
        fused = batch_norm_act(net[0].eval(), nn.ReLU(), x)
        torch.testing.assert_close(fused, batch_norm_act(plain.eval(), nn.ReLU(), x))
    with pytest.raises(ValueError, match="expected 4D input"):
        net[0].train()(x[0])
    plain_batch_norms(net)
    assert type(net[0]) is nn.BatchNorm2d
    assert "plain" not in vars(net[0])
