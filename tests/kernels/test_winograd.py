"""Convolutions of 3x3 kernels by Winograd's minimal filtering, against torch's in float64."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import torch
from conftest import profiled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cnngraph import kernels
from cnngraph.kernels.constant_conv2d import winograd_conv2d, winograd_weight
from cnngraph.kernels.conv2d import conv2d

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 8e-3}

convolutions = st.fixed_dictionaries(
    {
        # From 96 channels on, tiles have 4x4 results for most sizes of maps.
        "channels": st.one_of(
            st.tuples(st.integers(16, 70), st.integers(16, 70)),
            st.tuples(st.integers(128, 140), st.integers(16, 140)),
        ),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
        "size": st.tuples(st.integers(9, 25), st.integers(9, 25)),
        "batch": st.integers(4, 6),
        "seed": st.integers(0, 9),
    }
)


def geometry(padding: tuple[int, int]) -> tuple[Any, ...]:
    return (1, 1), padding, (1, 1), 1


def draw(
    given: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(given["seed"])
    inputs, outputs = given["channels"]
    height, width = (
        size + 2 * padding - 2
        for size, padding in zip(given["size"], given["padding"], strict=True)
    )
    shapes = [
        (given["batch"], inputs, *given["size"]),
        (outputs, inputs, 3, 3),
        (given["batch"], outputs, height, width),
    ]
    x, weight, grad = (torch.randn(shape, generator=generator).to(dtype) for shape in shapes)
    bias = torch.randn(outputs, generator=generator).to(dtype)
    return (
        x.to(memory_format=torch.channels_last),
        weight,
        bias,
        grad.to(memory_format=torch.channels_last),
    )


def gradients(grad: Tensor, x: Tensor, weight: Tensor, padding: tuple[int, int]) -> list[Tensor]:
    return torch.ops.cnngraph.conv2d_backward(
        grad, x, weight, *geometry(padding), [True, True, True]
    )


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor, padding: tuple[int, int]
) -> list[Tensor]:
    leaves = [value.double().requires_grad_() for value in (x, weight, bias)]
    y = torch.conv2d(*leaves, padding=padding)
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.double())]


@pytest.mark.parametrize("dtype", ROUNDING)
@given(given=convolutions)
@settings(max_examples=25)
def test_result_and_gradients(dtype: torch.dtype, given: dict[str, Any]) -> None:
    x, weight, bias, grad = draw(given, dtype)
    found = [
        conv2d(x, weight, bias, *geometry(given["padding"])),
        *gradients(grad, x, weight, given["padding"]),
    ]
    expected = reference(x, weight, bias, grad, given["padding"])
    for name, one, other in zip(
        ("result", "input", "weight", "bias"), found, expected, strict=True
    ):
        assert one.dtype is dtype
        assert (one.double() - other).abs().max() < 10 * ROUNDING[dtype] * other.abs().max(), name


@pytest.mark.parametrize(
    ("change", "ours"),
    [
        ({}, True),
        ({"channels": (15, 32)}, False),
        ({"batch": 1, "size": (13, 14)}, False),
        ({"padding": (3, 1)}, False),
    ],
)
def test_supported_convolutions(change: dict[str, Any], ours: bool) -> None:
    given = {
        "channels": (32, 32),
        "padding": (1, 1),
        "size": (20, 20),
        "batch": 2,
        "seed": 0,
        **change,
    }
    x, weight, bias, _ = draw(given)

    def runs_torch(x: Tensor) -> bool:
        calls = profiled(lambda: conv2d(x, weight, bias, *geometry(given["padding"])))
        return "aten::convolution" in calls

    assert runs_torch(x) is not ours
    assert runs_torch(x.contiguous())


@pytest.mark.parametrize("channels", [64, 128])
def test_rounding_errors_are_those_of_a_sum_of_products(channels: int) -> None:
    """A sum of n random products, added one by one, has an error of about 1.1 roundings of the sum
    of their absolute values, because the k-th partial sum is sqrt(k) times a product's size."""
    given = {
        "channels": (channels, channels),
        "padding": (1, 1),
        "size": (40, 40),
        "batch": 4,
        "seed": 0,
    }
    x, weight, bias, grad = draw(given)
    found = [conv2d(x, weight, bias, *geometry((1, 1))), *gradients(grad, x, weight, (1, 1))[:2]]
    exact = reference(x, weight, bias, grad, (1, 1))
    sizes = reference(x.abs(), weight.abs(), bias.abs(), grad.abs(), (1, 1))
    for one, wanted, size in zip(found, exact, sizes, strict=False):
        rounding = torch.finfo(torch.float32).eps / 2 * size
        assert (one.double() - wanted).square().mean().sqrt() < rounding.square().mean().sqrt()


def test_results_have_the_same_bits_for_any_number_of_threads() -> None:
    given = {"channels": (40, 72), "padding": (1, 0), "size": (31, 17), "batch": 3, "seed": 2}
    x, weight, bias, grad = draw(given)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            repeated = [
                (conv2d(x, weight, bias, *geometry((1, 0))), *gradients(grad, x, weight, (1, 0)))
                for _ in range(2)
            ]
            assert all(torch.equal(one, other) for one, other in zip(*repeated, strict=True))
            found.append(repeated[0][:2])  # a weight's gradient has sums of each thread's own
    finally:
        torch.set_num_threads(threads)
    for results in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results, found[0], strict=True))


@pytest.mark.parametrize("channels", [16, 128])
def test_nan_and_infinity_only_reach_neighbouring_tiles(channels: int) -> None:
    x, weight, bias, _ = draw(
        {"channels": (channels, 16), "padding": (1, 1), "size": (20, 20), "batch": 2, "seed": 0}
    )
    x[0, 3, 10, 10], x[0, 5, 4, 4] = float("nan"), float("inf")
    found = conv2d(x, weight, bias, *geometry((1, 1))).isfinite().all(1)
    assert not found[0, 9:12, 9:12].any()  # the windows that contain the value
    assert not found[0, 3:6, 3:6].any()
    tile = 2 if channels == 16 else 4
    touched = torch.zeros_like(found)
    for y in (10, 4):
        first, last = (y - 1) // tile * tile, (y + 1) // tile * tile + tile
        touched[0, first:last, first:last] = True
    assert found[~touched].all()


def test_gradients_with_other_strides() -> None:
    given = {"channels": (32, 48), "padding": (1, 1), "size": (18, 18), "batch": 2, "seed": 3}
    x, weight, _, grad = draw(given)
    expected = gradients(grad, x, weight, (1, 1))
    for other in (
        grad.contiguous(),
        torch.cat([grad, grad], 1)[:, :48],
        grad.transpose(2, 3).contiguous().transpose(2, 3),
    ):
        for one, same in zip(gradients(other, x, weight, (1, 1)), expected, strict=True):
            torch.testing.assert_close(one, same, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("bounds", [(-inf, inf), (0.0, inf), (-0.5, 1.5)])
@pytest.mark.parametrize("with_residual", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(
    ("dtype", "tile"), [(torch.float32, 2), (torch.float32, 4), (torch.bfloat16, 2)]
)
def test_with_a_transformed_weight(
    dtype: torch.dtype,
    tile: int,
    with_bias: bool,
    with_residual: bool,
    bounds: tuple[float, float],
) -> None:
    given = {"channels": (24, 40), "padding": (2, 0), "size": (11, 16), "batch": 2, "seed": 5}
    x, weight, bias, residual = draw(given, dtype)
    arguments = (bias if with_bias else None, (2, 0), residual if with_residual else None, *bounds)
    transformed = winograd_weight(weight, tile)
    found = winograd_conv2d(x, transformed, 40, *arguments)
    exact = torch.conv2d(
        x.double(), weight.double(), bias.double() if with_bias else None, padding=(2, 0)
    )
    exact = exact + residual.double() if with_residual else exact
    assert found.dtype is dtype
    error = (found.double() - exact.clamp(*bounds)).abs().max()
    assert error < 10 * ROUNDING[dtype] * exact.abs().max()
    torch.library.opcheck(torch.ops.cnngraph.winograd_weight.default, (weight, tile))
    torch.library.opcheck(
        torch.ops.cnngraph.winograd_conv2d.default, (x, transformed, 40, *arguments)
    )


def test_bounds_let_nan_through() -> None:
    x, weight, _, _ = draw(
        {"channels": (16, 16), "padding": (1, 1), "size": (9, 9), "batch": 1, "seed": 0}
    )
    x[0, 0, 0, 0] = float("nan")
    assert (
        winograd_conv2d(x, winograd_weight(weight, 2), 16, None, (1, 1), low=0.0)[0, :, 0, 0]
        .isnan()
        .all()
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 33}, "expected the transformed weight of 33 kernels over 16 channels"),
        ({"bias": torch.zeros(15)}, r"expected a bias of shape \[16\]"),
        (
            {"residual": torch.zeros(1, 16, 9, 8)},
            r"expected a residual of shape \[1, 16, 9, 9\]",
        ),
        ({"input": torch.zeros(1, 16, 9, 9).double()}, "expected a float32 or bfloat16 input"),
        ({"padding": (3, 1)}, "expected paddings from 0 to 2"),
    ],
)
def test_mismatched_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    fitting = {"input": torch.zeros(1, 16, 9, 9), "channels": 16, "bias": None, "padding": (1, 1)}
    fitting["transformed_weight"] = winograd_weight(torch.zeros(16, 16, 3, 3), 2)
    with pytest.raises(RuntimeError, match=message):
        winograd_conv2d(**{**fitting, **change})


@pytest.mark.parametrize("weight", [torch.zeros(16, 16, 1, 1), torch.zeros(16, 16, 3, 3).double()])
def test_only_3x3_kernels_are_transformed(weight: Tensor) -> None:
    with pytest.raises(RuntimeError, match="expected 3x3 kernels in float32 or bfloat16"):
        winograd_weight(weight, 2)
    with pytest.raises(RuntimeError, match="expected a tile of 2 or 4, got 3"):
        winograd_weight(torch.zeros(16, 16, 3, 3), 3)


def test_torch_refuses_a_bias_that_does_not_fit() -> None:
    x, weight, _, _ = draw(
        {"channels": (32, 32), "padding": (1, 1), "size": (20, 20), "batch": 2, "seed": 0}
    )
    with pytest.raises(RuntimeError, match="bias"):
        conv2d(x, weight, torch.zeros(3), *geometry((1, 1)))


@pytest.mark.parametrize("size", [(0, 16, 9, 9), (2, 16, 2, 2)])
def test_nothing_to_compute(size: tuple[int, ...]) -> None:
    found = winograd_conv2d(
        torch.zeros(size), winograd_weight(torch.zeros(16, 16, 3, 3), 2), 16, None, (0, 0)
    )
    assert found.shape == (size[0], 16, size[2] - 2, size[3] - 2)
