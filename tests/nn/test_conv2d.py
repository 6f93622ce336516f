"""The convolution that chooses how it is computed: what the module computes, in every case."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest
import torch
from conftest import result_and_gradients
from hypothesis import given
from hypothesis import strategies as st
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
def test_results_and_gradients_equal_the_module_in_float64(
    name: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 48, **CONVS[name]).to(dtype=dtype)
    x = torch.randn(3, 32, 11, 13).to(dtype).to(memory_format=layout)
    tolerance = (
        {"rtol": 2e-2, "atol": 2e-1} if dtype is torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-3}
    )
    found = result_and_gradients(lambda x: conv2d(conv, x), conv, x)
    for one, exact in zip(found, in_float64(conv, x), strict=True):
        assert one.dtype is dtype
        torch.testing.assert_close(one.double(), exact, **tolerance)


def in_float64(conv: nn.Conv2d, x: Tensor) -> list[Any]:
    """The result and gradients of the module."""
    wide = copy.deepcopy(conv).double()
    with torch.autocast("cpu", enabled=False):
        return result_and_gradients(wide, wide, x.double())


def test_autocast_casts_like_torch() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(32, 32, 3), torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (
            result_and_gradients(lambda x: conv2d(conv, x), conv, x),
            result_and_gradients(conv, conv, x),
        )
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    assert found[0].dtype is torch.bfloat16
    for one, exact in zip(found, in_float64(conv, x), strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=2e-2, atol=2e-1)


def test_frozen_parts_get_no_gradient() -> None:
    conv, x = nn.Conv2d(32, 32, 3), torch.randn(2, 32, 8, 8)
    conv.weight.requires_grad_(False)
    conv2d(conv, x).sum().backward()
    assert conv.weight.grad is None
    assert conv.bias is not None
    assert conv.bias.grad is not None
    assert not conv2d(conv.requires_grad_(False), x).requires_grad


def test_hooks_subclasses_and_transforms_run_the_module() -> None:
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


def test_errors_equal_torch() -> None:
    conv = nn.Conv2d(32, 32, 3)
    with pytest.raises(RuntimeError, match="to have 32 channels, but got 31 channels"):
        conv2d(conv, torch.randn(1, 31, 8, 8))
    assert conv2d(conv, torch.randn(32, 8, 8)).shape == (32, 6, 6)


def test_small_convolutions_run_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = nn.Conv2d(32, 32, 3)
    x = torch.randn(1, 32, 32, 32).to(memory_format=torch.channels_last)
    ours = "CppFunction" if kernels.available() else "ConvolutionBackward0"
    for least, expected in ((1, ours), (10**9, "ConvolutionBackward0")):
        monkeypatch.setattr("cnngraph.kernels.conv2d.LEAST_MACS", least)
        assert type(conv2d(conv, x).grad_fn).__name__ == expected


def test_pre_hook_may_replace_a_non_tensor_input() -> None:
    conv = nn.Conv2d(3, 4, 3)
    conv.register_forward_pre_hook(lambda module, inputs: inputs[0]["maps"])
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(
        conv2d(conv, cast(Any, {"maps": x})), nn.functional.conv2d(x, conv.weight, conv.bias)
    )


UNSAFE = {
    "strided 1x1": ((4, 6, 15, 14), {"kernel_size": 1, "stride": (2, 3)}),
    "strided 1x1, padded": ((4, 6, 15, 14), {"kernel_size": 1, "stride": 2, "padding": (1, 2)}),
    "strided 1x1, grouped": ((4, 6, 15, 14), {"kernel_size": 1, "stride": 2, "groups": 2}),
    "no column": (
        (3, 16, 64, 1),
        {"kernel_size": (3, 1), "stride": 2, "padding": 1, "dilation": 2},
    ),
    "no row": ((3, 16, 2, 9), {"kernel_size": (1, 3), "stride": (3, 1), "padding": 1}),
    "dilated past the map": (
        (2, 4, 3, 5),
        {"kernel_size": (2, 1), "padding": (4, 0), "dilation": (8, 1)},
    ),
}
"""Shapes and convolutions that crash, hang or corrupt memory in oneDNN's channels_last code."""


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("least", [0, 10**9])
def test_convolutions_that_crash_in_onednn_take_a_safe_path(
    name: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The faults themselves are not shown here: they end the process."""
    torch.manual_seed(0)
    monkeypatch.setattr("cnngraph.kernels.conv2d.LEAST_MACS", least)
    shape, settings = UNSAFE[name]
    conv = nn.Conv2d(shape[1], 4, **settings)
    x = torch.randn(shape).to(memory_format=torch.channels_last)
    expected = in_float64(conv, x)
    reached = []
    own = torch.nn.functional.conv2d

    def spy(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **named: Any
    ) -> Tensor:
        geometry = dict(zip(("stride", "padding", "dilation"), rest, strict=False)) | named
        pairs = {key: geometry.get(key, default) for key, default in
                 (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)))}  # fmt: skip
        unsafe = cnngraph.kernels.conv2d.is_unsafe(input, weight, **pairs)
        reached.append(unsafe and bias is not None)
        return own(input, weight, bias, *rest, **named)

    monkeypatch.setattr(torch.nn.functional, "conv2d", spy)
    found = result_and_gradients(lambda x: conv2d(conv, x), conv, x)
    for one, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=1e-5, atol=1e-4)
    assert reached == [False]


@given(
    size=st.integers(1, 6), kernel=st.integers(1, 5), stride=st.integers(1, 5),
    padding=st.integers(0, 5), dilation=st.integers(1, 6),
)  # fmt: skip
def test_windows_that_only_read_padding_are_found(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    """Exactly those whose result does not depend on the map."""
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        return
    x, weight = torch.ones(1, 16, 9, size), torch.ones(1, 16, 1, kernel)
    geometry = ((1, stride), (0, padding), (1, dilation))
    summed = torch.conv2d(x.double(), weight.double(), None, *geometry).sum()
    assert cnngraph.kernels.conv2d.is_unsafe(x, weight, *geometry) == (summed == 0)
