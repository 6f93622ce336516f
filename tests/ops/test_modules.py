"""The modules that torch lacks: what they compute, and what they leave alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cnngraph
from cnngraph.nn import Chunk, DropPath, LayerNorm2d, Linear2d, Normalize, in_training, with_aux


def test_layer_norm2d_normalizes_the_channels_of_each_position() -> None:
    module = LayerNorm2d(5, eps=1e-6).double()
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    expected = (x - mean) / (variance + 1e-6).sqrt()
    expected = expected * module.weight.view(-1, 1, 1) + module.bias.view(-1, 1, 1)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), expected)


def test_linear2d_is_a_1x1_convolution() -> None:
    module, x = Linear2d(3, 5).double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    expected = nn.functional.conv2d(x, module.weight[:, :, None, None], module.bias)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module(x.to(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 4, 5)])
def test_chunk_equals_torch(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    for index, expected in enumerate(x.chunk(3, 1)):
        assert torch.equal(Chunk(3, index)(x), expected)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5)])
def test_layer_scale_is_a_bare_parameter_that_scales_each_channel(shape: tuple[int, ...]) -> None:
    graph = "[layer_scale: {name: factors, init_value: 0.5}]"
    net = cnngraph.compile(f"cnngraph: 1\nname: net\ninput: {list(shape)}\ngraph: {graph}\n")
    assert list(net.state_dict()) == ["factors"]
    x = torch.randn(2, *shape)
    torch.testing.assert_close(net(x), x / 2)
    with torch.no_grad():
        net.factors.copy_(torch.tensor([1.0, 2.0, 3.0]).view_as(net.factors))
    for channel in range(3):
        torch.testing.assert_close(net(x)[:, channel], x[:, channel] * (channel + 1))


def test_normalize_uses_its_constants_and_keeps_them_out_of_the_state_dict() -> None:
    module = Normalize([0.5, 0.25], [2.0, 4.0])
    x = torch.randn(2, 2, 3, 3)
    torch.testing.assert_close(module(x)[:, 0], (x[:, 0] - 0.5) / 2)
    torch.testing.assert_close(module(x)[:, 1], (x[:, 1] - 0.25) / 4)
    assert not module.state_dict()
    assert module.to(torch.float64).mean.dtype == torch.float64


@pytest.mark.parametrize("shape", [(1000, 3), (1000, 3, 2, 2)])
def test_drop_path_drops_whole_images_and_keeps_the_mean(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    result = DropPath(0.25)(torch.ones(shape)).flatten(1)
    first = result[:, :1]
    assert torch.equal(result, first.expand_as(result))
    torch.testing.assert_close(first.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.05)


def test_drop_path_at_its_ends_and_in_evaluation() -> None:
    x = torch.randn(4, 3, 2, 2)
    assert DropPath(0.0)(x) is x
    assert DropPath(0.5).eval()(x) is x
    assert torch.equal(DropPath(1.0)(x), torch.zeros_like(x))


def test_side_heads_are_computed_in_training_only() -> None:
    head, x = nn.Linear(3, 2), torch.randn(4, 3)
    results = with_aux(x, {"aux": in_training(head, x)})
    assert isinstance(results, dict)
    assert list(results) == ["logits", "aux"]
    assert torch.equal(results["aux"], head(x))
    head.eval()
    assert in_training(head, x) is None
    assert with_aux(x, {"aux": in_training(head, x)}) is x
