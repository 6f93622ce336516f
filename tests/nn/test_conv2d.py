"""The convolution that chooses how it is computed: what the module computes, in every case."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from conftest import result_and_gradients
from torch import Tensor, nn

import cnngraph.kernels.conv2d
from cnngraph import kernels
from cnngraph.nn import conv2d

pytestmark = pytest.mark.usefixtures("convolutions_of_any_size")

CONVS: dict[str, dict[str, Any]] = {
    "3x3": {"kernel_size": 3, "padding": 1, "bias": False},
    "1x1": {"kernel_size": 1},
    "strided": {"kernel_size": (3, 5), "stride": (2, 1), "padding": (1, 2)},
    "same": {"kernel_size": 3, "padding": "same", "dilation": 2},
    "same, uneven": {"kernel_size": 4, "padding": "same"},
    "valid": {"kernel_size": 5, "padding": "valid"},
    "reflect": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "grouped": {"kernel_size": 3, "groups": 4},
}


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CONVS)
def test_results_and_gradients_are_the_modules(name: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 48, **CONVS[name]).to(dtype=dtype)
    x = torch.randn(3, 32, 11, 13).to(dtype).to(memory_format=layout)
    tolerance = {"rtol": 2e-2, "atol": 2e-1} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-3}
    found, expected = result_and_gradients(lambda x: conv2d(conv, x), conv, x), result_and_gradients(conv, conv, x)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def test_autocast_casts_as_it_does_for_torchs() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(32, 32, 3), torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = result_and_gradients(lambda x: conv2d(conv, x), conv, x), result_and_gradients(conv, conv, x)
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    assert found[0].dtype is torch.bfloat16
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-1)


def test_frozen_parts_get_no_gradient() -> None:
    conv, x = nn.Conv2d(32, 32, 3), torch.randn(2, 32, 8, 8)
    conv.weight.requires_grad_(False)
    conv2d(conv, x).sum().backward()
    assert conv.weight.grad is None
    assert conv.bias is not None
    assert conv.bias.grad is not None
    assert not conv2d(conv.requires_grad_(False), x).requires_grad


def test_hooks_subclasses_and_transforms_get_what_they_expect() -> None:
    conv, x = nn.Conv2d(32, 32, 3), torch.randn(2, 32, 8, 8)
    seen = []
    handle = conv.register_forward_hook(lambda module, inputs, output: seen.append(output))
    conv2d(conv, x)
    assert len(seen) == 1
    handle.remove()

    class Doubled(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    doubled = Doubled(32, 32, 3)
    torch.testing.assert_close(conv2d(doubled, x), doubled(x))

    def loss(x: Tensor) -> Tensor:
        return conv2d(conv, x).square().sum()

    expected = torch.autograd.functional.jacobian(loss, x)
    torch.testing.assert_close(torch.func.grad(loss)(x), expected)
    _, tangent = torch.func.jvp(loss, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(tangent, expected.sum(), rtol=1e-4, atol=1e-3)


def test_errors_are_torchs() -> None:
    conv = nn.Conv2d(32, 32, 3)
    with pytest.raises(RuntimeError, match="to have 32 channels, but got 31 channels"):
        conv2d(conv, torch.randn(1, 31, 8, 8))
    assert conv2d(conv, torch.randn(32, 8, 8)).shape == (32, 6, 6)


def test_small_ones_are_left_to_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(32, 32, 3)
    x = torch.randn(1, 32, 32, 32).to(memory_format=torch.channels_last)
    ours = "CppFunction" if kernels.available() else "ConvolutionBackward0"
    for least, expected in ((1, ours), (10**9, "ConvolutionBackward0")):
        monkeypatch.setattr("cnngraph.kernels.conv2d.LEAST_MACS", least)
        assert type(conv2d(conv, x).grad_fn).__name__ == expected


def test_a_hook_may_take_what_is_no_tensor() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_pre_hook(lambda module, inputs: inputs[0]["maps"])
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(conv2d(conv, cast(Any, {"maps": x})), nn.functional.conv2d(x, conv.weight, conv.bias))


@pytest.mark.parametrize("least", [0, 10**9])
def test_strides_of_small_1x1_kernels_never_reach_onednn(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In channels_last its weight gradient is wrong there, hangs, or destroys the heap: too much to be shown here."""
    torch.manual_seed(0)
    monkeypatch.setattr("cnngraph.kernels.conv2d.LEAST_MACS", least)
    conv = nn.Conv2d(6, 5, 1, stride=(2, 3))
    x = torch.randn(4, 6, 15, 14).to(memory_format=torch.channels_last)
    wide = copy.deepcopy(conv).double()
    expected = result_and_gradients(wide, wide, x.double())
    strides = []
    for place in (torch.nn.functional, cnngraph.kernels.conv2d):

        def spy(input: Tensor, weight: Tensor, bias: Tensor, stride: Any = 1, *rest: Any, own: Any = place.conv2d):
            strides.append(stride)
            return own(input, weight, bias, stride, *rest)

        monkeypatch.setattr(place, "conv2d", spy)
    for one, other in zip(result_and_gradients(lambda x: conv2d(conv, x), conv, x), expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-4)
    assert strides in ([1], [(1, 1)])
