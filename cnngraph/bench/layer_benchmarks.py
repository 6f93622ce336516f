"""The worker's subject for `bench-kernels --layers`: one result of a layer by one kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cnngraph import kernels
from cnngraph.bench.devices import Run, device_of
from cnngraph.bench.floor import peak_convolutions, peak_rate
from cnngraph.bench.kernel_benchmarks import require_kernels
from cnngraph.bench.layers import LayerCase
from cnngraph.nn import dense_block

KERNELS = ("library", "rows", "winograd_2x2", "winograd_4x4", "pointwise", "packed")
_BOTTLENECK = 4
"""Channels between the two convolutions of a dense layer, as a multiple of its outputs."""


class Layers:
    """Measures layers of one data type and batch size."""

    def __init__(self, threads: int | None, dtype: str, batch_size: int) -> None:
        self._device = device_of("cpu", threads)
        require_kernels()
        self._dtype, self._batch_size = getattr(torch, dtype), batch_size
        settings = self._device.tune_memory()
        torch.manual_seed(0)
        self.prepared = {
            "peak": peak_rate(self._device, peak_convolutions(self._dtype)),
            "memory_settings": settings,
            "kernels": kernels.build_info(),
            **self._device.describe(),
        }

    def measure(
        self, case: dict[str, Any], result: str, rounds: int, seconds: float
    ) -> dict[str, Any]:
        """Seconds of each kernel, which take turns, the FLOP, and the name of the chosen kernel."""
        self._device.rest()
        torch.manual_seed(0)
        layer = LayerCase(**case)
        make = self._dense_block if layer.kind == "dense_block" else self._convolution
        runs, flops, chosen = make(layer, result)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                run()  # wakes the threads and fills the caches
                times[name].append(self._device.time_alone(run, seconds))
        return {"kernels": times, "flops": flops, "chosen": chosen}

    def _map(self, *shape: int) -> Tensor:
        x = torch.randn(self._batch_size, *shape, dtype=self._dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def _convolution(self, layer: LayerCase, result: str) -> tuple[dict[str, Run], int, str]:
        pad = layer.kernel // 2
        geometry = [layer.stride] * 2, [pad] * 2, [1, 1], 1
        x = self._map(layer.inputs, layer.size, layer.size)
        weight = torch.randn(
            layer.outputs, layer.inputs, layer.kernel, layer.kernel, dtype=self._dtype
        ).contiguous(memory_format=torch.channels_last)
        size = (layer.size + 2 * pad - layer.kernel) // layer.stride + 1
        grad = self._map(layer.outputs, size, size)
        given = grad, x, weight, *geometry

        def by(kernel: str) -> Run:
            return lambda: kernels.extension.convolve_by(kernel, result, *given)

        runs: dict[str, Run] = {}
        for name in KERNELS:
            try:
                by(name)()
            except RuntimeError:
                continue  # it cannot compute this
            runs[name] = by(name)
        chosen: str = kernels.extension.conv_kernel(
            result,
            list(x.shape),
            list(weight.shape),
            *geometry,
            bfloat16=self._dtype is torch.bfloat16,
        )
        return runs, 2 * grad.numel() * weight[0].numel(), chosen

    def _dense_block(self, block: LayerCase, result: str) -> tuple[dict[str, Run], int, str]:
        layers: list[list[tuple[nn.Module, nn.Module, nn.Module]]] = []
        modules = nn.ModuleList()
        macs, inner = 0, _BOTTLENECK * block.outputs
        for index in range(block.layers):
            inputs = block.inputs + index * block.outputs
            narrow = nn.Conv2d(inputs, inner, 1, bias=False)
            wide = nn.Conv2d(inner, block.outputs, 3, padding=1, bias=False)
            steps = [(nn.BatchNorm2d(conv.in_channels), nn.ReLU(), conv) for conv in (narrow, wide)]
            macs += narrow.weight.numel() + wide.weight.numel()
            modules.extend(module for step in steps for module in step)
            layers.append([*steps])
        modules.to(self._dtype, memory_format=torch.channels_last)  # pyright: ignore
        parameters = list(modules.parameters())
        x = self._map(block.inputs, block.size, block.size).requires_grad_()

        def by_modules() -> Tensor:
            value = x
            for steps in layers:
                maps = value
                for norm, act, conv in steps:
                    maps = conv(act(norm(maps)))
                value = torch.cat([value, maps], 1)
            return value

        grad = torch.randn_like(by_modules())

        def step(forward: Any) -> Run:
            return lambda: torch.autograd.grad(forward(), [x, *parameters], grad)

        runs = {"library": step(by_modules), "dense_block": step(lambda: dense_block(x, layers))}
        pixels = self._batch_size * block.size**2
        return runs, 3 * 2 * macs * pixels, "dense_block"
