"""Eight threads of one process that compile, train and run networks, or call operators, get what
one thread gets, bit for bit. `.ci/sanitize thread` runs these tests with a thread sanitizer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnngraph
from cnngraph import kernels

THREADS = 8
ops: Any = torch.ops.cnngraph

SPEC = """
cnngraph: 1
name: threads
input: [3, 24, 24]
blocks:
  conv:
    params: {out_channels: ~, kernel_size: 3}
    body:
      - conv2d: {name: conv, out_channels: "${out_channels}", kernel_size: "${kernel_size}", padding: same, bias: false}
      - batch_norm: {name: norm}
      - relu
graph:
  - conv: {name: stem, out_channels: 32}
  - max_pool2d: {kernel_size: 3, stride: 2, padding: 1}
  - residual:
      name: sum
      body: [{conv: {name: a, out_channels: 32}}, {conv2d: {out_channels: 32, kernel_size: 1}}, batch_norm]
  - relu
  - parallel:
      name: branches
      branches:
        - conv: {name: narrow, out_channels: 16, kernel_size: 1}
        - conv: {name: wide, out_channels: 32}
  - dense:
      name: dense
      layers: 2
      body: [batch_norm, relu, {conv2d: {out_channels: 32, kernel_size: 1, bias: false}}]
  - adaptive_avg_pool2d: 1
  - flatten
  - linear: 5
"""


def in_threads(work: Callable[[int], Any]) -> list[Any]:
    """The results of work(0), ..., work(7), which begin together in a thread each."""
    barrier = threading.Barrier(THREADS)

    def start(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, range(THREADS)))


def require_the_same(work: Callable[[int], list[Tensor]]) -> None:
    expected = [work(number) for number in range(THREADS)]
    for found, alone in zip(in_threads(work), expected, strict=True):
        assert len(found) == len(alone) > 0
        for one, other in zip(found, alone, strict=True):
            assert torch.equal(one, other)


def batch(number: int) -> Tensor:
    return torch.randn(4, 3, 24, 24, generator=torch.Generator().manual_seed(number))


def network(number: int) -> nn.Module:
    """Compiled here, with weights of its own: torch's random numbers are those of all threads."""
    result = cnngraph.compile(SPEC)
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 8)
    return result


def test_networks_are_compiled_and_trained_in_threads() -> None:
    def train(number: int) -> list[Tensor]:
        trained = network(number)
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.01, momentum=0.9)
        for step in range(2):
            optimizer.zero_grad()
            trained(batch(10 * number + step)).square().mean().backward()
            optimizer.step()
        return list(trained.state_dict().values())

    require_the_same(train)


@pytest.mark.parametrize("inference", [False, True])
def test_one_network_evaluates_in_threads(inference: bool) -> None:
    shared = network(0).eval()
    if inference:
        shared = shared.for_inference()

    def evaluate(number: int) -> list[Tensor]:
        with torch.inference_mode():
            return [shared(batch(number + step)) for step in range(4)]

    require_the_same(evaluate)


@pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")
def test_operators_run_in_threads() -> None:
    one, none, both = [1, 1], [0, 0], [True] * 3

    def call(number: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(number)

        def draw(*shape: int) -> Tensor:
            value = torch.randn(shape, generator=generator)
            return value.to(memory_format=torch.channels_last) if len(shape) == 4 else value

        x, grad = draw(4, 32, 16, 16), draw(4, 32, 16, 16)
        row, pixels, outputs = draw(32), draw(16, 64, 1, 1), draw(16, 48, 1, 1)
        results: list[Tensor] = []
        for kernel in (1, 3):
            weight, geometry = draw(32, 32, kernel, kernel), (one, [kernel // 2] * 2, one, 1)
            results += [ops.conv2d(x, weight, row, *geometry)]
            results += ops.conv2d_backward(grad, x, weight, *geometry, both)
        weight = draw(48, 64, 1, 1)
        results += [ops.conv2d(pixels, weight, None, one, none, one, 1)]
        results += ops.conv2d_backward(outputs, pixels, weight, one, none, one, 1, both)
        results += ops.max_pool2d(x, [3, 3], [2, 2], one, one, False, True, True)
        output, mean, var = ops.batch_norm_act(x, row, row, None, None, 1e-5, "silu", [], grad)
        results += [output, mean, var]
        results += ops.batch_norm_act_backward(
            grad, x, row, row, mean, var, True, 1e-5, "silu", [], [True] * 4, grad
        )
        lists = [[x, grad], [row, None], [None, row], [None] * 2, [None] * 2]
        results += [
            ops.cat_batch_norm_act(*lists, [1e-5] * 2, [True] * 2, [True] * 2, "relu", [])[0]
        ]
        return results

    require_the_same(call)
