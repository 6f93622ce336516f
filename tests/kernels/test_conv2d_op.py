"""The conv2d operators against torch's convolution in float64."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from conftest import in_subprocess, profiled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cnngraph import kernels
from cnngraph.kernels.conv2d import conv2d

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 1e-2}

geometries = st.fixed_dictionaries(
    {
        "channels": st.tuples(st.integers(1, 70), st.integers(1, 70)),
        "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 2)),
        "size": st.tuples(st.integers(9, 30), st.integers(9, 30)),
        "batch": st.integers(1, 5),
        "seed": st.integers(0, 9),
    }
)


def draw(
    given: dict[str, Any], dtype: torch.dtype, layout: torch.memory_format
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(given["seed"])
    inputs, outputs = given["channels"]
    x = torch.randn(given["batch"], inputs, *given["size"], generator=generator)
    weight = torch.randn(outputs, inputs, *given["kernel"], generator=generator)
    shape = torch.conv2d(
        x, weight, None, given["stride"], given["padding"], given["dilation"]
    ).shape
    grad = torch.randn(shape, generator=generator)
    x, weight, grad = (value.to(dtype).to(memory_format=layout) for value in (x, weight, grad))
    return x, weight, grad


def reference(
    x: Tensor, weight: Tensor, grad: Tensor, geometry: list[Any]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    leaves = [
        value.double().requires_grad_() for value in (x, weight, torch.zeros(weight.shape[0]))
    ]
    y = torch.conv2d(*leaves, *geometry)
    return y.detach(), *torch.autograd.grad(y, leaves, grad.double())


def worst(found: Tensor, expected: Tensor, size: Tensor) -> float:
    """The largest error next to `size`: what a sum came to if no term of it cancelled another."""
    return ((found.double() - expected).abs() / size.clamp(min=1e-30)).max().item()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", TOLERANCE)
@given(given=geometries)
@settings(max_examples=40)
def test_result_and_gradients(
    dtype: torch.dtype, layout: torch.memory_format, given: dict[str, Any]
) -> None:
    assert_near(
        *draw(given, dtype, layout), [given["stride"], given["padding"], given["dilation"], 1]
    )


def assert_near(
    x: Tensor, weight: Tensor, grad: Tensor, geometry: list[Any], with_bias: bool = True
) -> None:
    dtype = x.dtype
    expected = reference(x, weight, grad, geometry)
    sizes = reference(x.abs(), weight.abs(), grad.abs(), geometry)
    bias = torch.zeros(weight.shape[0], dtype=dtype) if with_bias else None
    found = [
        conv2d(x, weight, bias, *geometry),
        *torch.ops.cnngraph.conv2d_backward(grad, x, weight, *geometry, [True, True, True]),
    ]
    for name, one, other, size in zip(
        ("result", "input", "weight", "bias"), found, expected, sizes, strict=True
    ):
        assert one.dtype is dtype
        assert worst(one, other, size) < TOLERANCE[dtype], name


@pytest.mark.parametrize("channels", [(32, 32), (33, 47), (160, 32), (39, 300)])
@pytest.mark.parametrize("size", [(12, 11), (61, 37)])
def test_pointwise_kernels(channels: tuple[int, int], size: tuple[int, int]) -> None:
    """Numbers of channels and pixels that fill blocks and tiles, and that do not."""
    given = {"channels": channels, "kernel": (1, 1), "size": size, "batch": 1, "seed": 0}
    given |= {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    assert_near(
        *draw(given, torch.float32, torch.channels_last),
        [(1, 1), (0, 0), (1, 1), 1],
        with_bias=False,
    )


@pytest.mark.skipif(
    kernels.build_info().get("cpu_capability") == "avx512",
    reason="on AVX-512 the library computes 1x1 convolutions",
)
def test_a_pointwise_kernel_needs_no_library() -> None:
    x, grad = (torch.randn(2, 32, 9, 9).to(memory_format=torch.channels_last) for _ in range(2))
    weight = torch.randn(32, 32, 1, 1)
    geometry = ((1, 1), (0, 0), (1, 1), 1)

    def run(x: Tensor = x) -> None:
        conv2d(x, weight, None, *geometry)
        torch.ops.cnngraph.conv2d_backward(grad, x, weight, *geometry, [True, True, False])

    assert not any("aten::" in name and "conv" in name for name in profiled(run))
    assert "aten::convolution" in profiled(lambda: run(x.contiguous()))


@pytest.mark.parametrize("size", [1, 3])
def test_pixels_with_gaps_between_them_cost_only_a_copy(size: int) -> None:
    x = torch.randn(2, 40, 9, 9).to(memory_format=torch.channels_last)[:, :32]
    dense = x.contiguous(memory_format=torch.channels_last)
    grad = torch.randn(2, 32, 9, 9).to(memory_format=torch.channels_last)
    weight = torch.randn(32, 32, size, size)
    geometry = ((1, 1), (size // 2, size // 2), (1, 1), 1)

    def run(x: Tensor = x) -> tuple[Tensor, ...]:
        gradients = torch.ops.cnngraph.conv2d_backward(
            grad, x, weight, *geometry, [True, True, False]
        )
        return conv2d(x, weight, None, *geometry), *gradients[:2]

    def convolutions(x: Tensor) -> set[str]:
        return {name for name in profiled(lambda: run(x)) if "conv" in name}

    assert convolutions(x) == convolutions(dense)
    for found, expected in zip(run(), run(dense), strict=True):
        assert torch.equal(found, expected)
    arguments = (x.detach().requires_grad_(), weight, None, *geometry)
    torch.library.opcheck(torch.ops.cnngraph.conv2d.default, arguments)


@pytest.mark.parametrize(("channels", "padding"), [((33, 18), (3, 0)), ((1, 1), (0, 0))])
def test_a_strided_pointwise_kernel_needs_no_library(
    channels: tuple[int, int], padding: tuple[int, int]
) -> None:
    """The library's weight gradient hangs there, now and then."""
    given = {"channels": channels, "kernel": (1, 1), "size": (9, 13), "batch": 1, "seed": 0}
    given |= {"stride": (3, 2), "padding": padding, "dilation": (1, 1)}
    x, weight, grad = draw(given, torch.float32, torch.contiguous_format)
    geometry = [given["stride"], given["padding"], given["dilation"], 1]
    assert_near(x, weight, grad, geometry)
    ran = profiled(
        lambda: torch.ops.cnngraph.conv2d_backward(grad, x, weight, *geometry, [False, True, False])
    )
    assert not any("aten::" in name and "conv" in name for name in ran)


def test_a_weight_gradient_over_many_pixels_keeps_its_digits() -> None:
    """Of 307,200 positive terms, whose sum one by one would err by up to 2e-2."""
    given = {"channels": (16, 32), "kernel": (1, 1), "size": (160, 160), "batch": 12, "seed": 0}
    given |= {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}
    x, weight, grad = draw(given, torch.float32, torch.channels_last)
    geometry = [(1, 1), (0, 0), (1, 1), 1]
    x, grad = x.abs(), grad.abs()
    _, _, expected, _ = reference(x, weight, grad, geometry)
    _, found, _ = torch.ops.cnngraph.conv2d_backward(
        grad, x, weight, *geometry, [False, True, False]
    )
    assert worst(found, expected, expected) < 1e-5


def test_nan_and_infinity_are_kept() -> None:
    x, grad = torch.ones(1, 32, 4, 4), torch.ones(1, 32, 4, 4)
    x[0, 3, 1, 1], x[0, 5, 0, 0] = float("nan"), float("inf")
    x, grad = (value.to(memory_format=torch.channels_last) for value in (x, grad))
    weight = torch.zeros(32, 32, 1, 1)
    _, found, _ = torch.ops.cnngraph.conv2d_backward(
        grad, x, weight, (1, 1), (0, 0), (1, 1), 1, [False, True, False]
    )
    assert found[:, 3].isnan().all()
    assert found[:, 5].isposinf().all()
    assert (found[:, :3] == 16).all()


@pytest.mark.parametrize("mask", [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)])
def test_only_the_gradients_asked_for(mask: tuple[int, int, int]) -> None:
    x = torch.randn(2, 32, 9, 9).to(memory_format=torch.channels_last)
    weight, grad = torch.randn(32, 32, 3, 3), torch.randn(2, 32, 7, 7)
    found = torch.ops.cnngraph.conv2d_backward(
        grad, x, weight, (1, 1), (0, 0), (1, 1), 1, list(map(bool, mask))
    )
    assert [value.numel() > 0 for value in found] == list(map(bool, mask))


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("weight_layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("groups", [1, 2])
def test_torch_knows_the_operator(layout, weight_layout, groups: int) -> None:
    x = torch.randn(2, 32, 9, 9).to(memory_format=layout).requires_grad_()
    weight = torch.randn(32, 32 // groups, 3, 3).to(memory_format=weight_layout).requires_grad_()
    bias = torch.randn(32, requires_grad=True)
    for some_bias in (bias, None):
        arguments = (x, weight, some_bias, (2, 2), (1, 1), (1, 1), groups)
        torch.library.opcheck(torch.ops.cnngraph.conv2d.default, arguments)


def test_derivatives_of_both_orders() -> None:
    x, weight = (
        torch.randn(2, 3, 6, 5, dtype=torch.float64),
        torch.randn(4, 3, 3, 2, dtype=torch.float64),
    )
    bias = torch.randn(4, dtype=torch.float64)
    leaves = [value.requires_grad_() for value in (x, weight, bias)]

    def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return conv2d(x, weight, bias, (2, 1), (1, 0), (1, 1), 1)

    assert torch.autograd.gradcheck(convolve, leaves)
    assert torch.autograd.gradgradcheck(convolve, leaves)


def test_the_same_bits_each_time() -> None:
    x, weight, grad = draw(
        {"channels": (64, 64), "kernel": (3, 3), "size": (30, 30), "batch": 4, "seed": 1}
        | {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)},
        torch.float32,
        torch.channels_last,
    )
    arguments = (grad, x, weight, (1, 1), (1, 1), (1, 1), 1, [False, True, False])
    first = torch.ops.cnngraph.conv2d_backward(*arguments)[1]
    assert all(
        torch.equal(torch.ops.cnngraph.conv2d_backward(*arguments)[1], first) for _ in range(3)
    )


def test_an_empty_batch() -> None:
    x = torch.randn(0, 32, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(32, 32, 3, 3, requires_grad=True)
    y = conv2d(x, weight, None, (1, 1), (1, 1), (1, 1), 1)
    y.sum().backward()
    assert y.shape == (0, 32, 8, 8)
    assert weight.grad is not None
    assert not weight.grad.any()


def test_it_counts_as_many_flops_as_torchs() -> None:
    x = torch.randn(2, 32, 9, 9).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(16, 32, 3, 3, requires_grad=True)

    def count(convolve: Any) -> int:
        with FlopCounterMode(display=False) as counter:
            convolve(x, weight, None, (1, 1), (1, 1), (1, 1), 1).sum().backward()
        return counter.get_total_flops()

    assert count(conv2d) == count(torch.conv2d) > 0


BEFORE_A_GUARD = """
import ctypes, mmap, torch
from cnngraph import kernels

libc = ctypes.CDLL(None, use_errno=True)

def before_a_guard(values):
    values = values.to(memory_format=torch.channels_last)
    pages = -(-values.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    assert libc.mprotect(ctypes.c_void_p(address + pages), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    flat = torch.frombuffer(memory, dtype=torch.float32, offset=pages - values.nbytes, count=values.numel())
    n, c, h, w = values.shape
    return flat.view(n, h, w, c).permute(0, 3, 1, 2).copy_(values)

for inputs, outputs, kernel in [(6, 16, 1), (16, 6, 1), (2, 16, 3), (12, 12, 1), (32, 32, 3), (17, 33, 3)]:
    x, grad = torch.randn(4, inputs, 12, 12), torch.randn(4, outputs, 13 - kernel, 13 - kernel)
    weight = torch.zeros(outputs, inputs, kernel, kernel)
    arguments = (weight, (1, 1), (0, 0), (1, 1), 1, [True, True, False])
    backward = torch.ops.cnngraph.conv2d_backward
    expected = backward(grad.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last), *arguments)
    found = backward(before_a_guard(grad), before_a_guard(x), *arguments)
    assert all(map(torch.equal, found, expected))
print('"read no further"')
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pages are protected as on Linux")
def test_nothing_is_read_past_the_end_of_a_map() -> None:
    assert in_subprocess(BEFORE_A_GUARD)[0] == "read no further"
