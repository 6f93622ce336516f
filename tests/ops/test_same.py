"""TensorFlow's padding `SAME`: sizes, values and gradients against timm and against `F.pad`."""

from __future__ import annotations

import pytest
import torch
from conftest import every_target
from torch.nn import functional

import cnngraph
from cnngraph import nn as ours

SPEC = """
cnngraph: 1
name: tf
input: [16, 32, 32]
graph:
  - conv2d: {name: conv, out_channels: 32, kernel_size: 3, stride: 2, padding: same, bias: false}
  - batch_norm: {name: bn}
  - relu
  - conv2d: {name: depthwise, out_channels: 32, kernel_size: 5, stride: 3, dilation: 2,
      padding: same, groups: 32}
  - max_pool2d: {kernel_size: 3, stride: 2, padding: same}
"""


def padded(x: torch.Tensor, kernel: int, stride: int, value: float = 0.0) -> torch.Tensor:
    """`x` padded by TensorFlow's rule, in its own words (tensorflow.nn, "Notes on padding")."""
    sides: list[int] = []
    for size in x.shape[2:]:
        along = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
        sides = [along // 2, along - along // 2, *sides]
    return functional.pad(x, sides, value=value)


def by_hand(net, x: torch.Tensor) -> torch.Tensor:
    x = functional.conv2d(padded(x, 3, 2), net.conv.weight, stride=2)
    x = net.bn(x).relu()
    conv = net.depthwise
    x = functional.conv2d(padded(x, 9, 3), conv.weight, conv.bias, 3, dilation=2, groups=32)
    return functional.max_pool2d(padded(x, 3, 2, float("-inf")), 3, 2)


@every_target
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (224, 7)])
def test_network_and_gradients_equal_padding_by_hand(size, target) -> None:
    torch.manual_seed(0)
    net = cnngraph.compile(SPEC, **target).double()
    x = torch.randn(2, 16, *size, dtype=torch.float64, requires_grad=True)
    found, expected = net(x), by_hand(net, x)
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weight).sum(), [x, *net.parameters()]),
        torch.autograd.grad((expected * weight).sum(), [x, *net.parameters()]),
    )
    fast = net.eval().for_inference()
    torch.testing.assert_close(fast(x), net(x))
    assert fast.code.count("bn") == 0  # it is folded into the strided convolution


@pytest.mark.parametrize("memory", ["fast", "lean"])
def test_float32_runs_by_our_kernels_and_equals_eager(memory: str) -> None:
    eager = cnngraph.compile(SPEC, backend="eager")
    net = cnngraph.compile(SPEC, memory=memory)
    net.load_state_dict(eager.state_dict())
    x = torch.randn(8, 16, 65, 65)
    torch.testing.assert_close(net(x), eager(x), rtol=1e-4, atol=1e-4)


def test_exported_and_traced_networks_pad_each_size() -> None:
    net = cnngraph.compile(SPEC).eval()
    auto = torch.export.Dim.AUTO
    exported = torch.export.export(
        net, (torch.randn(2, 16, 32, 40),), dynamic_shapes=({2: auto, 3: auto},)
    )
    traced = torch.fx.symbolic_trace(net)
    for size in ((32, 40), (33, 47), (64, 21)):
        x = torch.randn(2, 16, *size)
        torch.testing.assert_close(exported.module()(x), net(x))
        torch.testing.assert_close(traced(x), net(x))
    x = torch.randn(2, 16, 33, 47)
    torch.testing.assert_close(torch.jit.trace(net, x)(x), net(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_modules_equal_timms_at_every_rank(rank: int) -> None:
    x = torch.randn(2, 4, *(9, 12, 7)[:rank], dtype=torch.float64)
    conv = getattr(ours, f"Conv{rank}dSame")(4, 6, 3, stride=2).double()
    plain = getattr(functional, f"conv{rank}d")
    torch.testing.assert_close(conv(x), plain(padded(x, 3, 2), conv.weight, conv.bias, 2))
    largest = getattr(ours, f"MaxPool{rank}dSame")(3, 2)
    pool = getattr(functional, f"max_pool{rank}d")
    torch.testing.assert_close(largest(x), pool(padded(x, 3, 2, float("-inf")), 3, 2))
    mean = getattr(functional, f"avg_pool{rank}d")
    average = getattr(ours, f"AvgPool{rank}dSame")
    torch.testing.assert_close(average(3, 2)(x), mean(padded(x, 3, 2), 3, 2))
    counts = mean(padded(torch.ones_like(x), 3, 2), 3, 2)
    found = average(3, 2, count_include_pad=False)(x)
    torch.testing.assert_close(found, mean(padded(x, 3, 2), 3, 2) / counts)
    torch.testing.assert_close(
        average(3, 2, count_include_pad=False)(torch.ones_like(x)), torch.ones_like(found)
    )


@pytest.mark.parametrize("size", [(32, 32), (33, 20)])
def test_layers_equal_those_of_timms_tf_networks(size, torchvision) -> None:
    layers = pytest.importorskip("timm.layers")
    x = torch.randn(2, 8, *size)
    for kernel, stride, dilation in [(3, 2, 1), (5, 2, 1), (3, 1, 1), (3, 2, 2), (1, 2, 1)]:
        theirs = layers.create_conv2d(
            8, 6, kernel, stride=stride, dilation=dilation, padding="same"
        )
        node = f"kernel_size: {kernel}, stride: {stride}, dilation: {dilation}, padding: same"
        net = cnngraph.compile(
            f"cnngraph: 1\nname: net\ninput: [8, 32, 32]\ngraph:\n"
            f"  - conv2d: {{name: conv, out_channels: 6, bias: false, {node}}}\n"
        )
        net.conv.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(net(x), theirs(x))
    theirs = layers.create_pool2d("max", 3, 2, padding="same")
    torch.testing.assert_close(ours.MaxPool2dSame(3, 2)(x), theirs(x))
    theirs = layers.create_pool2d("avg", 3, 2, padding="same")
    torch.testing.assert_close(ours.AvgPool2dSame(3, 2)(x), theirs(x))
