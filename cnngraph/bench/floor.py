"""The floor of a step: the time of its convolutions and linear layers alone, in the library."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.bench.arithmetic import flops_of, graph_of
from cnngraph.bench.devices import Cpu, Cuda, Run, device_of
from cnngraph.bench.variants import Work
from cnngraph.graph import Graph
from cnngraph.graph.cost import node_cost
from cnngraph.shape import TensorShape

CONVOLUTIONS = ((8, 256, 28), (8, 128, 56))
"""Batch, channels and size of the 3x3 convolutions that measure a processor's peak rate.

Each is 7.4 GFLOP.
"""

PRODUCT = 8192
"""Size of the square matrices whose product measures a GPU's peak rate: 1.1 TFLOP."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer; the network has `count` equal ones."""

    path: str
    kind: str
    count: int
    flops: int
    run: Run


class Floor:
    """The subject of the floor's worker: the peak rate, and each distinct layer alone."""

    def __init__(self, work: Work) -> None:
        self._device = device_of(work.device, work.threads)
        settings = self._device.tune_memory()
        torch.manual_seed(0)
        dtype = getattr(torch, work.dtype)
        if work.device == "cuda":
            peak, self._peak = "large matrix products", [_large_product(dtype)]
        else:
            peak = "large convolutions"
            self._peak = peak_convolutions(dtype)
        self._layers = _layers(graph_of(work), work, dtype)
        for run in (*(run for run, _ in self._peak), *(layer.run for layer in self._layers)):
            run()
        self._device.rest()
        keys = ("path", "kind", "count", "flops")
        self.prepared = {
            "memory_settings": settings,
            "peak": peak,
            "layers": [{key: getattr(layer, key) for key in keys} for layer in self._layers],
        }

    def measure(self, seconds: float) -> dict[str, Any]:
        """The peak rate in FLOP/s, and the seconds of each distinct layer."""
        share = seconds / (len(self._layers) + 2)
        time_alone = self._device.time_alone
        rate = peak_rate(self._device, self._peak)
        layers = [time_alone(layer.run, share) for layer in self._layers]
        self._device.rest()
        return {"rate": rate, "layers": layers}


def _layers(graph: Graph, work: Work, dtype: torch.dtype) -> list[Layer]:
    train = work.mode == "train"
    found: dict[Any, Layer] = {}
    for node in graph.nodes:
        macs = node_cost(graph, node).macs
        if not macs or not node.op.has_module or (node.aux and not train):
            continue
        inputs = graph.input_shapes(node)
        reads_input = graph.inputs.keys() >= set(node.inputs)
        key = (repr(node.op), inputs, reads_input)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1)
            continue
        module = node.op.module(*inputs)
        assert isinstance(module, nn.Module)
        values = [_tensor(work.batch_size, shape, dtype, work.device) for shape in inputs]
        run = _run_of(module.to(work.device, dtype), values, train, reads_input)
        found[key] = Layer(node.path, node.op.kind, 1, flops_of(macs, work), run)
    return list(found.values())


def _tensor(batch_size: int, shape: TensorShape, dtype: torch.dtype, device: str) -> Tensor:
    x = torch.randn(batch_size, *shape, device=device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _run_of(module: nn.Module, inputs: list[Tensor], train: bool, reads_input: bool) -> Run:
    """Forward, and in training backward, of one layer. The network's input needs no gradient."""
    if inputs[0].dim() == 4:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward() -> None:
        with torch.no_grad():
            module(*inputs)

    if not train:
        return forward
    leaves = [*module.parameters(), *([] if reads_input else inputs)]
    for x in inputs:
        x.requires_grad_(not reads_input)
    grad = torch.randn_like(module(*inputs))  # keeps the memory format

    def forward_and_backward() -> None:
        torch.autograd.grad(module(*inputs), leaves, grad)

    return forward_and_backward


def peak_convolutions(dtype: torch.dtype) -> list[tuple[Run, int]]:
    """The convolutions that measure a processor's peak rate, and the FLOP of each."""
    return [_large_convolution(*sizes, dtype) for sizes in CONVOLUTIONS]


def peak_rate(device: Cpu | Cuda, runs: list[tuple[Run, int]]) -> float:
    """The highest rate in FLOP/s of three runs of each."""
    return max(flops / device.time_alone(run, 0.0) for run, flops in runs for _ in range(3))


def _large_product(dtype: torch.dtype) -> tuple[Run, int]:
    left, right = torch.randn(2, PRODUCT, PRODUCT, device="cuda").to(dtype)
    return lambda: left @ right, 2 * PRODUCT**3


def _large_convolution(batch: int, channels: int, size: int, dtype: torch.dtype) -> tuple[Run, int]:
    x = _tensor(batch, TensorShape((channels, size, size)), dtype, "cpu")
    weight = _tensor(channels, TensorShape((channels, 3, 3)), dtype, "cpu")

    def run() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)

    return run, 2 * x.numel() * channels * 9
