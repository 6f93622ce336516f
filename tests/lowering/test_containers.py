"""Levels that names with dots open, and that other nodes continue."""

from __future__ import annotations

import pytest
import torch

import cnngraph

RES2NET = """
cnngraph: 1
name: res2
input: [8, 8, 8]
graph:
  - conv2d: {name: stem.0, out_channels: 8, kernel_size: 1, bias: false}
  - batch_norm: {name: stem.1}
  - relu: {name: x}
  - chunk: {chunks: 2, index: 0}
  - repeat:
      times: 2
      body:
        - conv2d: {name: "convs.${i}", out_channels: 4, kernel_size: 3, padding: 1, bias: false}
        - batch_norm: {name: "bns.${i}"}
        - relu
  - chunk: {name: rest, from: x, chunks: 2, index: 1}
  - sequential: {name: inner.block, body: [conv2d: {name: conv, out_channels: 4, kernel_size: 1}]}
  - concat: bns.1
"""


def test_keys_are_grouped_by_level() -> None:
    keys = [key for key in cnngraph.compile(RES2NET).state_dict() if key.endswith(".weight")]
    assert keys == [
        "stem.0.weight", "stem.1.weight", "convs.0.weight", "convs.1.weight", "bns.0.weight",
        "bns.1.weight", "inner.block.conv.weight",
    ]  # fmt: skip


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_fused_equals_eager(memory: str) -> None:
    fused = cnngraph.compile(RES2NET, memory=memory).double()
    eager = cnngraph.compile(RES2NET, backend="eager").double()
    eager.load_state_dict(fused.state_dict())
    x = torch.randn(4, 8, 8, 8, dtype=torch.float64)
    results = fused(x), eager(x)
    torch.testing.assert_close(*results)
    for result in results:
        result.square().sum().backward()
    for ours, theirs in zip(fused.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(dict(fused.named_buffers()), dict(eager.named_buffers()))
    torch.testing.assert_close(fused.eval().for_inference()(x), eager.eval()(x))


def test_hooks_and_replaced_modules_inside_a_container_are_seen() -> None:
    net = cnngraph.compile(RES2NET).eval()
    seen: list[int] = []
    net.convs.get_submodule("1").register_forward_hook(lambda *arguments: seen.append(1))
    x = torch.randn(2, 8, 8, 8)
    net(x)
    assert seen == [1]
    net.inner.block = torch.nn.Identity()
    expected = net.x(net.stem.get_submodule("1")(net.stem.get_submodule("0")(x)))[:, 4:]
    torch.testing.assert_close(net(x)[:, :4], expected)


def test_containers_cannot_be_called() -> None:
    with pytest.raises(NotImplementedError):
        cnngraph.compile(RES2NET).convs(torch.zeros(1, 4, 8, 8))
