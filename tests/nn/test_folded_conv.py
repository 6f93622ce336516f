"""Convolutions that take in what follows them: equal to the modules, and only where nothing needs a gradient."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from conftest import profiled
from torch import Tensor, nn

import cnngraph
from cnngraph import kernels
from cnngraph.nn import folded_conv as function
from cnngraph.nn.folded_conv import _folded

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.75), nn.LeakyReLU(0.2), nn.SiLU(), nn.GELU(), nn.GELU("tanh"),
    nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.ELU(), nn.Mish(), nn.Hardsigmoid(), None,
]  # fmt: skip


def parts(
    bias: bool = True, dtype: torch.dtype = torch.float32, **settings: object
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, bias=bias, dtype=dtype, **settings)  # pyright: ignore[reportArgumentType]
    norm = nn.BatchNorm2d(8, dtype=dtype)
    with torch.no_grad():
        for value in (*norm.parameters(), norm.running_mean, norm.running_var):
            value.uniform_(0.5, 1.5)
    return conv.eval(), norm.eval()


def eager(conv: nn.Module, norm: nn.Module | None, act: nn.Module | None, x: Tensor, residual: Tensor | None) -> Tensor:
    y = conv(x)
    y = y if norm is None else norm(y)
    y = y if residual is None else y + residual
    return y if act is None else act(y)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("with_norm", [True, False])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.inference_mode()
def test_it_is_what_the_modules_compute(activation, with_norm: bool, with_residual: bool, dtype: torch.dtype) -> None:
    conv, norm = parts(dtype=dtype, padding=1)
    activation = activation and activation.eval()
    x = torch.randn(2, 6, 9, 7, dtype=dtype).to(memory_format=torch.channels_last)
    residual = torch.randn(2, 8, 9, 7, dtype=dtype) if with_residual else None
    kept = None if residual is None else residual.clone()
    arguments = (conv, norm if with_norm else None, activation, x, residual)
    found = function(*arguments)
    torch.testing.assert_close(found, eager(*arguments), rtol=1e-5, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    if residual is not None:
        assert torch.equal(residual, kept)


@pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("with_residual", [True, False])
@torch.inference_mode()
def test_by_winograds_filtering(activation, with_residual: bool) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(16, 24, 3, padding=1).eval(), nn.BatchNorm2d(24).eval()
    norm.running_var.uniform_(0.5, 1.5)
    activation = activation and activation.eval()
    x = torch.randn(2, 16, 15, 13).to(memory_format=torch.channels_last)
    residual = torch.randn(2, 24, 15, 13) if with_residual else None
    arguments = (conv, norm, activation, x, residual)
    torch.testing.assert_close(function(*arguments), eager(*arguments), rtol=1e-5, atol=1e-5)
    assert "cnngraph::winograd_conv2d" in profiled(lambda: function(*arguments))
    for other in (x.contiguous(), x[:, :, :6, :6]):  # another layout, and few pixels
        run = functools.partial(function, conv, None, activation, other)
        torch.testing.assert_close(run(), eager(conv, None, activation, other, None), rtol=1e-5, atol=1e-5)
        assert "cnngraph::winograd_conv2d" not in profiled(run)


@pytest.mark.parametrize(
    "settings",
    [
        {"bias": False}, {"stride": 2, "padding": 1}, {"padding": "same"}, {"padding": "valid"}, {"dilation": 2},
        {"groups": 2}, {"padding": (2, 1)}, {"padding_mode": "reflect", "padding": 1}, {"padding": "same", "dilation": 3},
    ],
    ids=str,
)  # fmt: skip
@torch.inference_mode()
def test_every_geometry(settings: dict) -> None:
    conv, norm = parts(**settings)
    x = torch.randn(2, 6, 12, 12)
    torch.testing.assert_close(
        function(conv, norm, nn.ReLU().eval(), x), torch.relu(norm(conv(x))), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_changed_weights_and_other_sizes_are_folded_anew() -> None:
    conv, norm = parts()
    for size in (8, 8, 10):
        x = torch.randn(2, 6, size, size)
        for tensor in (conv.weight, conv.bias, norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.mul_(1.25)
            torch.testing.assert_close(function(conv, norm, None, x), norm(conv(x)), rtol=1e-5, atol=1e-4)
    conv.weight = nn.Parameter(torch.randn_like(conv.weight))
    torch.testing.assert_close(function(conv, norm, None, x), norm(conv(x)), rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_weights_that_took_another_type_meanwhile_are_folded_anew() -> None:
    """`.half()` rounds them, and torch counts no change."""
    conv, norm = parts()
    x = torch.randn(2, 6, 8, 8)
    function(conv, None, None, x)
    conv.half().float()
    torch.testing.assert_close(function(conv, None, None, x), conv(x), rtol=1e-6, atol=1e-6)
    function(conv, norm, None, x)
    norm.eps = 1.0
    torch.testing.assert_close(function(conv, norm, None, x), norm(conv(x)), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_other_views_of_the_same_memory_are_folded_anew() -> None:
    conv = nn.Conv2d(6, 6, 3).eval()
    x = torch.randn(2, 6, 8, 8)
    function(conv, None, None, x)
    conv.weight = nn.Parameter(conv.weight.transpose(0, 1))
    torch.testing.assert_close(function(conv, None, None, x), conv(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("registered", [True, False])
def test_what_is_not_where_its_class_registers_it_is_not_folded(registered: bool) -> None:
    """Its changes would not be seen."""
    conv, norm = parts()
    x = torch.randn(2, 6, 8, 8)
    bias, weight = conv.bias.clone(), norm.weight.clone()
    del conv.bias, norm.weight
    if registered:
        conv.register_buffer("bias", bias)
        norm.register_buffer("weight", weight)
    else:
        conv.bias, norm.weight = bias, weight  # pyright: ignore[reportAttributeAccessIssue]
    for changed in (bias, weight):
        function(conv, norm, None, x)
        changed.mul_(3)
        torch.testing.assert_close(function(conv, norm, None, x), norm(conv(x)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_changed_stride_is_seen() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1).eval()
    x = torch.randn(2, 16, 12, 12).to(memory_format=torch.channels_last)
    for stride in ((1, 1), (2, 2), (1, 1)):
        conv.stride = stride
        torch.testing.assert_close(function(conv, None, None, x), conv(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_weights_are_folded_once_and_forgotten_with_their_module() -> None:
    conv, norm = parts()
    x = torch.randn(2, 6, 8, 8)
    function(conv, norm, None, x)
    weight = _folded[conv].weight
    function(conv, norm, None, x)
    assert _folded[conv].weight is weight
    before = len(_folded)
    del conv
    assert len(_folded) == before - 1


def test_where_a_gradient_is_needed_the_modules_run() -> None:
    conv, norm = parts()
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    function(conv, norm, nn.ReLU().eval(), x).sum().backward()
    assert x.grad is not None
    assert conv.weight.grad is not None
    assert norm.weight.grad is not None
    residual = torch.randn(2, 8, 6, 6, requires_grad=True)
    function(conv.requires_grad_(False), norm.requires_grad_(False), None, x.detach(), residual).sum().backward()
    assert residual.grad is not None
    before = norm.running_mean.clone()
    with torch.no_grad():
        function(conv, norm.train(), None, x)
    assert not torch.equal(norm.running_mean, before)


@torch.no_grad()
def test_hooks_and_autocast_are_honoured() -> None:
    conv, norm = parts()
    x = torch.randn(2, 6, 8, 8)
    seen: list[int] = []
    handle = norm.register_forward_hook(lambda *_: seen.append(1))
    function(conv, norm, None, x)
    assert seen == [1]
    handle.remove()
    with torch.autocast("cpu", torch.bfloat16):
        assert function(conv, norm, None, x).dtype is torch.bfloat16


NET = """
cnngraph: 1
name: net
input: [3, 16, 16]
graph:
  - conv2d: {name: stem, out_channels: 8, kernel_size: 3, padding: 1, bias: false}
  - batch_norm: {name: bn}
  - relu
  - residual:
      name: block
      body:
        - conv2d: {name: conv1, out_channels: 12, kernel_size: 3, stride: 2, padding: 1, bias: false}
        - batch_norm: {name: bn1}
      shortcut: project
  - relu
  - conv2d: {name: last, out_channels: 4, kernel_size: 1}
"""


def test_a_network_compiled_for_inference_runs_convolutions_only() -> None:
    eager_net = cnngraph.compile(NET, backend="eager")
    network = cnngraph.compile(NET, mode="inference")
    assert list(network.state_dict()) == list(eager_net.state_dict())
    network.load_state_dict(eager_net.state_dict())
    x = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected = eager_net.eval()(x)
        torch.testing.assert_close(network.eval()(x), expected, rtol=1e-4, atol=1e-5)
        run = profiled(lambda: network(x))
    assert not [name for name in run if "batch_norm" in name or "relu" in name or name == "aten::add"]
    assert any("_convolution_pointwise" in name for name in run)
    with torch.inference_mode():
        torch.testing.assert_close(copy.deepcopy(network)(x), expected, rtol=1e-4, atol=1e-5)
