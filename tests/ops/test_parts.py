"""Ops on parts and dimensions of a value, and networks for signals and volumes, on every backend."""

from __future__ import annotations

import pytest
import torch
from conftest import every_target
from torch import Tensor, nn

import cnngraph
from cnngraph.nn import GlobalResponseNorm

EXPECTED = {
    "split: {split_size: [1, 2, 5], index: 1}": lambda x: x.split([1, 2, 5], 1)[1],
    "slice: {start: 2, end: -1}": lambda x: x[:, 2:-1],
    "channel_mean": lambda x: x.mean(1, keepdim=True),
    "channel_max": lambda x: x.amax(1, keepdim=True),
    "group_softmax: 2": lambda x: x.view(2, 2, 4, 6, 5).softmax(1).view(2, 8, 6, 5),
    "permute: [0, 2, 1, 3]": lambda x: x.permute(0, 2, 1, 3),
    "transpose: {dim0: 2, dim1: 3}": lambda x: x.transpose(2, 3),
    "flatten: {start_dim: 2}": lambda x: x.flatten(2),
    "unflatten: {dim: 2, unflattened_size: [2, 3]}": lambda x: x.unflatten(2, (2, 3)),
    "channel_bias: {name: bias, init_value: 2}": lambda x: x + 2,
}


@every_target
@pytest.mark.parametrize("node", EXPECTED)
def test_parts_equal_torchs_functions(node: str, target) -> None:
    head = "cnngraph: 1\nname: net\ninput: [8, 6, 5]\ngraph:\n"
    net = cnngraph.compile(f"{head}  - {node}\n", **target)
    x = torch.randn(2, 8, 6, 5)
    torch.testing.assert_close(net(x), EXPECTED[node](x))
    torch.testing.assert_close(net.eval().for_inference()(x), EXPECTED[node](x))
    exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), EXPECTED[node](x))


def test_global_response_norm_is_that_of_the_paper() -> None:
    module = GlobalResponseNorm(4).double()
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(module(x), x)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    norms = x.flatten(2).norm(dim=2)[:, :, None, None]
    share = norms / (norms.mean(1, keepdim=True) + 1e-6)
    weight, bias = (item.view(1, 4, 1, 1) for item in (module.weight, module.bias))
    torch.testing.assert_close(module(x), weight * (x * share) + bias + x)
    assert torch.autograd.gradcheck(module, x)


def network(rank: int) -> str:
    return f"""
cnngraph: 1
name: net
input: {[3, 8, 12, 10][: rank + 1]}
graph:
  - conv{rank}d: {{name: conv, out_channels: 8, kernel_size: 3, stride: 2, padding: same}}
  - batch_norm: {{name: bn}}
  - relu
  - residual:
      name: block
      body:
        - conv{rank}d: {{name: conv, out_channels: 16, kernel_size: 3, stride: 2, padding: 1}}
        - batch_norm: {{name: bn}}
      shortcut: project
  - relu
  - layer_norm: {{name: norm}}
  - parallel: [channel_mean, channel_max, identity]
  - conv_transpose{rank}d: {{name: up, out_channels: 4, kernel_size: 2, stride: 2}}
  - max_pool{rank}d: 2
  - dropout{rank}d: 0.0
  - global_avg_pool{rank}d
  - flatten
  - linear: {{name: fc, out_features: 5}}
"""


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_networks_of_every_rank_train_and_infer_as_eager(rank: int) -> None:
    torch.manual_seed(0)
    eager = cnngraph.compile(network(rank), backend="eager").double()
    fused = cnngraph.compile(network(rank)).double()
    fused.load_state_dict(eager.state_dict())
    x = torch.randn(2, *(3, 8, 12, 10)[: rank + 1], dtype=torch.float64)

    def step(net) -> tuple[Tensor, list[Tensor]]:
        result = net(x)
        return result, list(torch.autograd.grad(result.square().sum(), list(net.parameters())))

    torch.testing.assert_close(step(fused), step(eager))
    torch.testing.assert_close(fused.eval()(x), eager.eval()(x))
    torch.testing.assert_close(fused.for_inference()(x), eager(x))
    summary = cnngraph.check(network(rank)).summary
    assert summary is not None
    assert summary.total.params == sum(item.numel() for item in eager.parameters())
