"""The rooms, the places where a kernel of ours stands for several of torch's; each is one entry of `ROOMS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph import kernels
from cnngraph.bench.devices import device_of
from cnngraph.bench.kernel_cases import Case
from cnngraph.errors import CnngraphError
from cnngraph.nn import batch_norm_act, cat_batch_norm_act, max_pool2d

BATCH, CHANNELS, MULTIPLE = {"cpu": 16, "cuda": 128}, 64, {"cpu": 1, "cuda": 4}
"""The maps' sizes are multiples of this: on a GPU rows of odd lengths are another, rarer case."""

_Way = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Room:
    """What a room does, twice.

    Attributes:
        passes: how often a tensor must be read or written at least, forward and backward, where it is larger than the cache.
        make: gives, for such an input, our way and torch's from input to output.
    """

    passes: int
    make: Callable[[Tensor], tuple[_Way, _Way]]


def _batch_norm_relu(like: Tensor) -> tuple[_Way, _Way]:
    norms = [nn.BatchNorm2d(like.shape[1], device=like.device) for _ in range(2)]
    relu = nn.ReLU()
    return (
        lambda x: batch_norm_act(norms[0], relu, x),
        lambda x: F.relu(norms[1](x), inplace=True),  # in place as hand-written networks have it: the faster way
    )


def _batch_norm_add_relu(like: Tensor) -> tuple[_Way, _Way]:
    norms = [nn.BatchNorm2d(like.shape[1], device=like.device) for _ in range(2)]
    relu, residual = nn.ReLU(), torch.randn_like(like)
    return (
        lambda x: batch_norm_act(norms[0], relu, x, residual),
        lambda x: F.relu(norms[1](x) + residual, inplace=True),
    )


def _cat_batch_norm_relu(like: Tensor) -> tuple[_Way, _Way]:
    norms = [nn.BatchNorm2d(like.shape[1], device=like.device) for _ in range(4)]
    relu, other = nn.ReLU(), torch.randn_like(like).requires_grad_()

    def ours(x: Tensor) -> Tensor:
        other.grad = None
        return cat_batch_norm_act((norms[0], relu, x), (norms[1], relu, other))

    def torchs(x: Tensor) -> Tensor:
        other.grad = None
        branches = [F.relu(norm(branch), inplace=True) for norm, branch in zip(norms[2:], (x, other), strict=True)]
        return torch.cat(branches, 1)

    return ours, torchs


def _relu_max_pool(like: Tensor) -> tuple[_Way, _Way]:
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    return (
        lambda x: max_pool2d(relu, pool, x),
        lambda x: pool(F.relu(x)),
    )


ROOMS = {
    # Forward reads the input twice and writes the output; backward reads the input and the gradient twice each, recomputing
    # the activation, and writes the input's gradient.
    "batch_norm_act": Room(8, _batch_norm_relu),
    # The same with another value read in forward, and in backward the output read, dz written, and read for the gradient.
    "batch_norm_add_act": Room(11, _batch_norm_add_relu),
    # Two branches of the tensor's size, each as in `batch_norm_act`.
    "cat_batch_norm_act": Room(16, _cat_batch_norm_relu),
    # 2x2: forward reads the input, backward writes its gradient; all else is a quarter of that and less.
    "max_pool2d": Room(2, _relu_max_pool),
}


class Rooms:
    """The subject of the worker for kernels: each room forward and backward, beside torch and a copy of the tensor."""

    def __init__(self, threads: int | None, device: str) -> None:
        self._device = device_of(device, threads)
        if not kernels.available():
            raise CnngraphError("the compiled extension is missing: there are no kernels to measure")
        self.prepared = {
            "rooms": {name: room.passes for name, room in ROOMS.items()},
            "memory_settings": self._device.tune_memory(),
            "kernels": kernels.build_info(),
            **self._device.describe(),
        }

    def case(self, case: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
        """The seconds of a copy, of ours and of torch's way, once a round each, in turns."""
        self._device.rest()
        told = Case(**case)
        torch.manual_seed(0)
        x = _tensor(told, self._device.name)
        target = torch.empty_like(x)
        ours, eager = ROOMS[told.room].make(x)
        grad = torch.randn_like(eager(x))

        def both_ways(forward: Callable[[Tensor], Tensor]) -> Callable[[], object]:
            leaf = x.clone().requires_grad_()  # keeps the memory format

            def run() -> None:
                leaf.grad = None
                forward(leaf).backward(grad)

            return run

        runs = {"copy": lambda: target.copy_(x), "ours": both_ways(ours), "eager": both_ways(eager)}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                run()  # wakes threads and fills caches
                times[name].append(self._device.time_alone(run, seconds))
        return {"shape": list(x.shape), "bytes": x.numel() * x.element_size(), **times}


def _tensor(case: Case, device: str) -> Tensor:
    """A map of about so many megabytes."""
    dtype = getattr(torch, case.dtype)
    size = isqrt(round(case.megabytes * 1e6 / (BATCH[device] * CHANNELS * dtype.itemsize)))
    size = max(1, size // MULTIPLE[device]) * MULTIPLE[device]
    x = torch.randn(BATCH[device], CHANNELS, size, size, device=device)
    return x.to(dtype, memory_format=getattr(torch, case.memory_format))
