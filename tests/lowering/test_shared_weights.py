"""Nodes that share the modules of earlier ones, against the same network written in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnngraph

TEXT = """
cnngraph: 1
name: shared
input: [3, 16, 16]
blocks:
  tower:
    body:
      - conv2d: {name: conv, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
      - batch_norm: {name: norm}
      - relu
      - conv2d: {name: out, out_channels: 8, kernel_size: 1}
graph:
  - conv2d: {name: p3, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: norm}
  - relu: {name: high}
  - tower: {name: head}
  - flatten: {name: first}
  - max_pool2d: {name: low, kernel_size: 2, from: high}
  - share: {name: again, of: head}
  - share: norm
  - flatten
  - concat: [first, .]
"""


class ByHand(nn.Module):
    """The same network."""

    def __init__(self) -> None:
        super().__init__()
        self.p3 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Module()
        self.head.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.head.norm = nn.BatchNorm2d(8)
        self.head.out = nn.Conv2d(8, 8, 1)

    def tower(self, x: Tensor) -> Tensor:
        return self.head.out(self.head.norm(self.head.conv(x)).relu())

    def forward(self, x: Tensor) -> Tensor:
        high = self.norm(self.p3(x)).relu()
        first = self.tower(high).flatten(1)
        again = self.norm(self.tower(nn.functional.max_pool2d(high, 2)))
        return torch.cat([first, again.flatten(1)], 1)


@pytest.mark.parametrize(
    "options", [{}, {"memory": "lean"}, {"memory": "4MB"}, {"backend": "eager"}], ids=str
)
def test_shared_modules_compute_what_pytorch_does(options: dict[str, Any]) -> None:
    hand = ByHand().double()
    net = cnngraph.compile(TEXT, **options).double()
    assert list(net.state_dict()) == list(hand.state_dict())
    net.load_state_dict(hand.state_dict())
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for _ in range(2):
        ours, theirs = net(x), hand(x)
        torch.testing.assert_close(ours, theirs)
        ours.square().sum().backward()
        theirs.square().sum().backward()
    for mine, other in zip(net.parameters(), hand.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(dict(net.named_buffers()), dict(hand.named_buffers()))
    torch.testing.assert_close(net.eval()(x), hand.eval()(x))
    torch.testing.assert_close(net.for_inference()(x), hand(x))


def test_parameters_count_once_and_multiply_accumulates_each_time() -> None:
    report = cnngraph.check(TEXT)
    assert report.summary is not None
    assert report.summary.total.params == sum(p.numel() for p in ByHand().parameters())
    assert report.summary.total.buffers == 6
    tower = 8 * 8 * 9 + 8 * 8
    assert report.summary.total.macs == 3 * 8 * 9 * 256 + tower * 256 + tower * 64


def test_convolution_shared_by_two_norms_is_folded_with_each() -> None:
    text = """
cnngraph: 1
name: net
input: [4, 8, 8]
graph:
  - relu: {name: x}
  - conv2d: {name: conv, out_channels: 4, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: first}
  - share: {name: second_call, of: conv, from: x}
  - batch_norm: {name: second}
  - relu
  - add: first
"""
    net = cnngraph.compile(text).double()
    x = torch.randn(4, 4, 8, 8, dtype=torch.float64)
    nn.init.uniform_(net.second.weight)
    net(x), net(2 * x + 1)
    net.eval()
    expected = net.second(net.conv(x.relu())).relu() + net.first(net.conv(x.relu()))
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.for_inference()(x), expected)


def test_hooks_of_shared_modules_run_at_each_call() -> None:
    net = cnngraph.compile(TEXT)
    seen: list[int] = []
    net.head.norm.register_forward_hook(lambda module, inputs, output: seen.append(1))
    net(torch.randn(2, 3, 16, 16))
    assert len(seen) == 2


def test_inner_values_of_a_shared_block_have_names() -> None:
    body = TEXT.replace("  - share: norm\n", "  - add: again.conv\n")
    graph = cnngraph.check(body).graph
    assert graph is not None
    assert graph.by_path["7"].inputs == ("again.out", "again.conv")


def test_share_inside_a_level_calls_a_module_outside_of_it() -> None:
    text = TEXT.replace(
        "  - share: norm\n", "  - sequential: {name: level, body: [relu, share: norm, relu]}\n"
    )
    fused, eager = cnngraph.compile(text).double(), cnngraph.compile(text, backend="eager").double()
    eager.load_state_dict(fused.state_dict())
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(fused(x), eager(x))
    torch.testing.assert_close(dict(fused.named_buffers()), dict(eager.named_buffers()))


PARTS = """
cnngraph: 1
name: parts
input: [3, 8, 8]
graph:
  - parallel:
      name: p
      branches:
        left:
          - conv2d: {name: a, out_channels: 6, kernel_size: 3, padding: 1}
          - relu
          - conv2d: {name: b, out_channels: 3, kernel_size: 1}
        right: {conv2d: {name: c, out_channels: 3, kernel_size: 1}}
  - conv2d: {name: mid, out_channels: 3, kernel_size: 1}
  - share: p.left
"""


@pytest.mark.parametrize("backend", ["fused", "eager"])
def test_a_branch_of_several_nodes_can_be_shared(backend: Any) -> None:
    net = cnngraph.compile(PARTS, backend=backend).double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def left(value: Tensor) -> Tensor:
        return net.p.left.b(net.p.left.a(value).relu())

    middle = net.mid(torch.cat([left(x), net.p.right.c(x)], 1))
    assert torch.allclose(net(x), left(middle), rtol=0, atol=1e-12)
    assert len(net.state_dict()) == 8
