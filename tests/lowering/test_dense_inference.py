"""Dense blocks of `for_inference()`, which append maps to one buffer."""

from __future__ import annotations

import pytest
import torch
from conftest import profiled
from torch import Tensor, nn

import cnngraph
from cnngraph import kernels

SPEC = """
cnngraph: 1
name: dense
input: [3, 12, 12]
blocks:
  layer:
    body:
    - batch_norm: {name: norm1}
    - relu
    - conv2d: {name: conv1, out_channels: 32, kernel_size: 1, bias: false}
    - batch_norm: {name: norm2}
    - relu
    - conv2d: {name: conv2, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
graph:
- conv2d: {name: stem, out_channels: 32, kernel_size: 3, padding: 1}
- dense: {name: block, layers: 3, body: {layer: {name: "layer${i + 1}"}}}
- relu
"""


def network(spec: str = SPEC) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    net = cnngraph.compile(spec)
    for _ in range(2):
        net(torch.randn(4, 3, 12, 12))
    return net.eval(), net.eval().for_inference()


def inputs(channels_last: bool = False) -> Tensor:
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


@pytest.mark.parametrize("channels_last", [False, True])
def test_nothing_is_concatenated(channels_last: bool) -> None:
    net, inference = network()
    x = inputs(channels_last)
    with torch.no_grad():
        torch.testing.assert_close(inference(x), net(x))
        calls = profiled(lambda: inference(x))
    assert "aten::cat" not in calls
    if channels_last and kernels.available():
        assert "cnngraph::batch_norm_act" not in calls
        assert "cnngraph::batch_norm_relu_pointwise_conv2d" in calls


def test_gradients_and_autocast_concatenate() -> None:
    net, inference = network()
    x, same = inputs().requires_grad_(), inputs().requires_grad_()
    net(x).square().sum().backward()
    inference(same).square().sum().backward()
    torch.testing.assert_close(same.grad, x.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = inference(inputs())
    torch.testing.assert_close(found.float(), net(inputs()).float(), rtol=0.05, atol=0.05)


def test_torch_compile_and_replaced_modules() -> None:
    net, inference = network()
    x = inputs()
    with torch.no_grad():
        expected = net(x)
        compiled = torch.compile(inference, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected)
        inference.get_submodule("block.layer2").conv2 = nn.Sequential(
            inference.get_submodule("block.layer2.conv2")
        )
        torch.testing.assert_close(inference(x), expected)


def test_maps_that_are_read_elsewhere_are_kept() -> None:
    net, inference = network(
        SPEC.replace("\ngraph:", "\noutputs: [block.layer2.conv2, last]\ngraph:").replace(
            "\n- relu\n", "\n- relu: {name: last}\n"
        )
    )
    with torch.no_grad():
        torch.testing.assert_close(inference(inputs()), net(inputs()))
