"""The kernel benchmarks: each compares one fused kernel with the torch operators it replaces."""

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
from cnngraph.bench.kernels import Case
from cnngraph.errors import CnngraphError
from cnngraph.nn import batch_norm_act, cat_batch_norm_act, max_pool2d

BATCH, CHANNELS = {"cpu": 16, "cuda": 128}, 64
MULTIPLE = {"cpu": 1, "cuda": 4}
"""Heights and widths are multiples of this: odd row lengths are a rare case on a GPU."""

_Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class KernelBenchmark:
    """A fused kernel and its counterpart in torch.

    Attributes:
        least_passes: how often the tensor must at least be read or written, forward and backward,
            if it is larger than the cache.
        make: returns our function and torch's for inputs like the given one.
    """

    least_passes: int
    make: Callable[[Tensor], tuple[_Function, _Function]]


def _batch_norm_relu(like: Tensor) -> tuple[_Function, _Function]:
    norms, relu = _norms(2, like), nn.ReLU()
    return (
        lambda x: batch_norm_act(norms[0], relu, x),
        lambda x: F.relu(norms[1](x), inplace=True),  # in place, as in hand-written networks
    )


def _batch_norm_add_relu(like: Tensor) -> tuple[_Function, _Function]:
    norms, relu, residual = _norms(2, like), nn.ReLU(), torch.randn_like(like)
    return (
        lambda x: batch_norm_act(norms[0], relu, x, residual),
        lambda x: F.relu(norms[1](x) + residual, inplace=True),
    )


def _cat_batch_norm_relu(like: Tensor) -> tuple[_Function, _Function]:
    norms, relu, other = _norms(4, like), nn.ReLU(), torch.randn_like(like).requires_grad_()

    def ours(x: Tensor) -> Tensor:
        other.grad = None
        return cat_batch_norm_act((norms[0], relu, x), (norms[1], relu, other))

    def eager(x: Tensor) -> Tensor:
        other.grad = None
        branches = zip(norms[2:], (x, other), strict=True)
        return torch.cat([F.relu(norm(branch), inplace=True) for norm, branch in branches], 1)

    return ours, eager


def _relu_max_pool(like: Tensor) -> tuple[_Function, _Function]:
    relu, pool = nn.ReLU(), nn.MaxPool2d(2)
    return lambda x: max_pool2d(relu, pool, x), lambda x: pool(F.relu(x))


def _norms(count: int, like: Tensor) -> list[nn.BatchNorm2d]:
    return [nn.BatchNorm2d(like.shape[1], device=like.device) for _ in range(count)]


KERNEL_BENCHMARKS = {
    # Forward reads the input twice and writes the output. Backward reads the input and the gradient
    # twice each, recomputing the activation, and writes the input's gradient.
    "batch_norm_act": KernelBenchmark(8, _batch_norm_relu),
    # In addition forward reads the residual, and backward reads the output and writes its gradient.
    "batch_norm_add_act": KernelBenchmark(11, _batch_norm_add_relu),
    # Two branches of the tensor's size, each as in `batch_norm_act`.
    "cat_batch_norm_act": KernelBenchmark(16, _cat_batch_norm_relu),
    # 2x2: forward reads the input and backward writes its gradient; the rest is a quarter of that.
    "max_pool2d": KernelBenchmark(2, _relu_max_pool),
}


def require_kernels() -> None:
    """Raises `CnngraphError` if there are no compiled kernels."""
    if not kernels.available():
        raise CnngraphError("the compiled extension is missing: there are no kernels to measure")


class Kernels:
    """The worker's subject for `bench-kernels`."""

    def __init__(self, threads: int | None, device: str) -> None:
        self._device = device_of(device, threads)
        require_kernels()
        self.prepared = {
            "least_passes": {name: item.least_passes for name, item in KERNEL_BENCHMARKS.items()},
            "memory_settings": self._device.tune_memory(),
            "kernels": kernels.build_info(),
            **self._device.describe(),
        }

    def case(self, case: dict[str, Any], rounds: int, seconds: float) -> dict[str, Any]:
        """Seconds of a copy, of our kernel and of torch's operators, which take turns."""
        self._device.rest()
        measured = Case(**case)
        torch.manual_seed(0)
        x = _tensor(measured, self._device.name)
        target = torch.empty_like(x)
        ours, eager = KERNEL_BENCHMARKS[measured.kernel].make(x)
        grad = torch.randn_like(eager(x))

        def step_of(forward: _Function) -> Callable[[], object]:
            leaf = x.clone().requires_grad_()  # keeps the memory format

            def step() -> None:
                leaf.grad = None
                forward(leaf).backward(grad)

            return step

        steps = {"copy": lambda: target.copy_(x), "ours": step_of(ours), "eager": step_of(eager)}
        times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                step()  # wakes the threads and fills the caches
                times[name].append(self._device.time_alone(step, seconds))
        return {"shape": list(x.shape), "bytes": x.numel() * x.element_size(), **times}


def _tensor(case: Case, device: str) -> Tensor:
    """A feature map of about `case.megabytes`."""
    dtype = getattr(torch, case.dtype)
    pixels = case.megabytes * 1e6 / (BATCH[device] * CHANNELS * dtype.itemsize)
    size = max(1, isqrt(round(pixels)) // MULTIPLE[device]) * MULTIPLE[device]
    x = torch.randn(BATCH[device], CHANNELS, size, size, device=device)
    return x.to(dtype, memory_format=getattr(torch, case.memory_format))
