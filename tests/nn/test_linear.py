"""The linear layer over few rows: what the module computes, in every case."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import result_and_gradients
from torch import Tensor, nn

from cnngraph import kernels
from cnngraph.nn import linear

pytestmark = pytest.mark.usefixtures("convolutions_of_any_size")

# Rows, inputs and outputs: whole tiles and parts of them, more than a block, one of each.
SIZES = [(16, 96, 64), (3, 1037, 7), (5, 33, 50), (1, 1, 1), (65, 40, 30), (2, 700, 101)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_results_and_gradients_are_those_of_float64(
    sizes: tuple[int, ...], dtype: torch.dtype, bias: bool
) -> None:
    rows, inputs, outputs = sizes
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias).to(dtype=dtype)
    x = torch.randn(rows, inputs).to(dtype)
    found = result_and_gradients(lambda x: linear(layer, x), layer, x)
    wide = nn.Linear(inputs, outputs, bias=bias).double()
    wide.load_state_dict(layer.state_dict())
    expected = result_and_gradients(wide, wide, x.double())
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is dtype
        scale = other.abs().max().item() + 1e-30
        assert (one.double() - other).abs().max().item() < (
            1e-5 if dtype is torch.float32 else 1e-2
        ) * scale


@pytest.mark.skipif(not kernels.available(), reason="the compiled kernels are not built")
def test_it_runs_as_a_convolution_of_single_pixels() -> None:
    result = linear(nn.Linear(8, 4), torch.randn(2, 8))
    convolution = result.grad_fn.next_functions[0][0]  # pyright: ignore
    assert type(convolution).__name__ == "CppFunction"


def test_autocast_casts_like_torch() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(300, 40), torch.randn(6, 300)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = (
            result_and_gradients(lambda x: linear(layer, x), layer, x),
            result_and_gradients(layer, layer, x),
        )
    assert [value.dtype for value in found] == [value.dtype for value in expected]
    assert found[0].dtype is torch.bfloat16
    wide = copy.deepcopy(layer).double()
    for one, exact in zip(found, result_and_gradients(wide, wide, x.double()), strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=2e-2, atol=2e-1)


def test_nan_and_infinity_are_kept() -> None:
    layer, x = nn.Linear(40, 30), torch.ones(5, 40)
    x[1, 3], x[2, 5] = float("nan"), float("inf")
    layer.weight.data.fill_(1.0)
    result = linear(layer, x)
    assert result[1].isnan().all()
    assert result[2].isposinf().all()
    assert result[[0, 3, 4]].isfinite().all()
    result.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[:, 3].isnan().all()
    assert layer.weight.grad[:, 5].isposinf().all()


def test_an_empty_batch() -> None:
    layer = nn.Linear(40, 30)
    result = linear(layer, torch.randn(0, 40))
    result.sum().backward()
    assert result.shape == (0, 30)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


def test_rows_apart_in_memory() -> None:
    layer, x = nn.Linear(40, 30), torch.randn(6, 80)
    exact = copy.deepcopy(layer).double()(x[::2, ::2].double())
    torch.testing.assert_close(linear(layer, x[::2, ::2]).double(), exact, rtol=1e-5, atol=1e-5)


def test_frozen_parts_get_no_gradient() -> None:
    layer, x = nn.Linear(40, 30), torch.randn(4, 40)
    layer.weight.requires_grad_(False)
    linear(layer, x).sum().backward()
    assert layer.weight.grad is None
    assert layer.bias.grad is not None
    assert not linear(layer.requires_grad_(False), x).requires_grad


def test_hooks_subclasses_and_other_ranks_run_the_module() -> None:
    layer, x = nn.Linear(40, 30), torch.randn(4, 40)
    seen = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    linear(layer, x)
    assert len(seen) == 1

    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    doubled = Doubled(40, 30)
    torch.testing.assert_close(linear(doubled, x), doubled(x))
    assert linear(nn.Linear(40, 30), torch.randn(2, 3, 40)).shape == (2, 3, 30)
    assert linear(nn.Linear(40, 30), torch.randn(40)).shape == (30,)


def test_errors_equal_torch() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        linear(nn.Linear(40, 30), torch.randn(4, 41))
    with pytest.raises(RuntimeError, match="same dtype"):
        linear(nn.Linear(40, 30), torch.randn(4, 40, dtype=torch.float64))


def test_derivatives_of_both_orders() -> None:
    layer = nn.Linear(5, 3).double()
    x = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: linear(layer, x), x)
    assert torch.autograd.gradgradcheck(lambda x: linear(layer, x), x)
