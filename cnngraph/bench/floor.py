"""What no implementation through the same library can beat by much: the layers' arithmetic alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cnngraph.bench.arithmetic import flops_of, graph_of
from cnngraph.bench.devices import device_of
from cnngraph.bench.variants import Work
from cnngraph.graph import INPUT, Graph
from cnngraph.graph.cost import node_cost
from cnngraph.shape import TensorShape

CONVOLUTIONS = ((8, 256, 28), (8, 128, 56))
"""Batch, channels and size of the 3x3 convolutions whose rate is the processor's: 7.4 GFLOP each."""

PRODUCT = 8192
"""Rows and columns of the square matrices whose product's rate is the GPU's: 1.1 TFLOP."""


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer; `count` of them in the network are the same."""

    path: str
    kind: str
    count: int
    flops: int
    run: Callable[[], object]


class Floor:
    """The subject of one worker: the library's rate, and each distinct layer alone."""

    def __init__(self, work: Work) -> None:
        self._device = device_of(work.device, work.threads)
        settings = self._device.tune_memory()
        torch.manual_seed(0)
        dtype = getattr(torch, work.dtype)
        if work.device == "cuda":
            peak, self._peak = "large matrix products", [_large_product(dtype)]
        else:
            peak, self._peak = "large convolutions", [_large_convolution(*sizes, dtype) for sizes in CONVOLUTIONS]
        self._layers = _layers(graph_of(work), work, dtype)
        for run in (*(run for run, _ in self._peak), *(layer.run for layer in self._layers)):
            run()
        self._device.rest()
        self.prepared = {
            "memory_settings": settings,
            "peak": peak,
            "layers": [
                {"path": layer.path, "kind": layer.kind, "count": layer.count, "flops": layer.flops}
                for layer in self._layers
            ],
        }

    def measure(self, seconds: float) -> dict[str, Any]:
        """The rate in FLOP/s, and the seconds of each distinct layer."""
        share = seconds / (len(self._layers) + 2)
        time_alone = self._device.time_alone
        rate = max(flops / time_alone(run, 0.0) for run, flops in self._peak for _ in range(3))
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
        reads_input = node.inputs == (INPUT,)
        key = (repr(node.op), inputs, reads_input)
        if key in found:
            found[key] = replace(found[key], count=found[key].count + 1)
            continue
        module = node.op.module(*inputs)
        assert isinstance(module, nn.Module)
        values = [_tensor(work.batch_size, shape, dtype, work.device) for shape in inputs]
        run = _layer(module.to(work.device, dtype), values, train, reads_input)
        found[key] = Layer(node.path, node.op.kind, 1, flops_of(macs, work), run)
    return list(found.values())


def _tensor(batch_size: int, shape: TensorShape, dtype: torch.dtype, device: str) -> Tensor:
    x = torch.randn(batch_size, *shape, device=device).to(dtype)
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def _layer(module: nn.Module, inputs: list[Tensor], train: bool, reads_input: bool) -> Callable[[], object]:
    """Forward, and in training backward, of one layer. The network's input needs no gradient."""
    if inputs[0].dim() == 4:
        module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def evaluate() -> None:
        with torch.no_grad():
            module(*inputs)

    if not train:
        return evaluate
    leaves = [*module.parameters(), *([] if reads_input else inputs)]
    for x in inputs:
        x.requires_grad_(not reads_input)
    grad = torch.randn_like(module(*inputs))  # keeps the memory format

    def learn() -> None:
        torch.autograd.grad(module(*inputs), leaves, grad)

    return learn


def _large_product(dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    left, right = torch.randn(2, PRODUCT, PRODUCT, device="cuda").to(dtype)
    return lambda: left @ right, 2 * PRODUCT**3


def _large_convolution(batch: int, channels: int, size: int, dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    x = _tensor(batch, TensorShape((channels, size, size)), dtype, "cpu")
    weight = torch.randn(channels, channels, 3, 3).to(dtype).contiguous(memory_format=torch.channels_last)

    def run() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)

    return run, 2 * x.numel() * channels * 9
