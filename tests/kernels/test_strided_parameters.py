"""Operators read parameters and statistics of batch norms that are not contiguous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cnngraph import kernels

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

ops: Any = torch.ops.cnngraph
ONE = [1, 1]


def maps(*shape: int) -> Tensor:
    return torch.randn(shape).to(memory_format=torch.channels_last)


def norm(x: Tensor, rows: list[Tensor]) -> Any:
    return ops.batch_norm_act(x, *rows, 1e-5, "relu", [], maps(*x.shape) * 0)


def norm_backward(x: Tensor, rows: list[Tensor]) -> Any:
    mask = [True] * 4
    return ops.batch_norm_act_backward(x, x, *rows, False, 1e-5, "relu", [], mask, x)


def cat_of_norms(x: Tensor, rows: list[Tensor]) -> Any:
    lists = [[row, row] for row in (x, *rows)]
    return ops.cat_batch_norm_act(*lists, [1e-5] * 2, [True] * 2, [True, False], "relu", [])


def block(x: Tensor, rows: list[Tensor]) -> Any:
    weight, bias, mean, var = ([row] for row in rows)
    kernels = [torch.ones(4, x.shape[1], 1, 1)]
    return ops.dense_block(
        x, weight, bias, kernels, [], mean, var, 1e-5, "relu", [], ONE, [1], 1, 0
    )[0]


def block_backward(x: Tensor, rows: list[Tensor]) -> Any:
    weight, bias, mean, var = ([row] for row in rows)
    kernels = [torch.ones(4, x.shape[1], 1, 1)]
    norms = [mean, var, False, 1e-5, "relu", []]
    output = ops.dense_block(x, weight, bias, kernels, [], mean, var, *norms[3:], ONE, [1], 1, 1)[0]
    return ops.dense_block_backward(
        torch.ones_like(output), output, [], [], x, weight, bias, kernels, [], *norms, ONE, [1], 1,
        [True] * 4,
    )  # fmt: skip


def norm_and_convolution(x: Tensor, rows: list[Tensor]) -> Any:
    weight, bias, mean, var = rows
    packed = ops.pointwise_weight(torch.ones(4, x.shape[1], 1, 1))
    return ops.batch_norm_relu_pointwise_conv2d(
        x, mean, var, weight, bias, 1e-5, packed, 4, None, 0.0, 6.0
    )


@pytest.mark.parametrize("channels", [3, 40])
@pytest.mark.parametrize(
    "call", [norm, norm_backward, cat_of_norms, block, block_backward, norm_and_convolution]
)
def test_strided_parameters_and_fixed_statistics(
    call: Callable[[Tensor, list[Tensor]], Any], channels: int
) -> None:
    torch.manual_seed(0)
    x = maps(2, channels, 4, 5)
    rows = [(torch.rand(2 * channels) + 0.5)[::2] for _ in range(4)]  # of every other value
    columns = list((torch.rand(channels, 4) + 0.5).unbind(1))
    for strided in (rows, columns, [row.flip(0)[:1].expand(channels) for row in rows]):
        assert not any(row.is_contiguous() for row in strided)
        torch.testing.assert_close(
            call(x, strided), call(x, [row.contiguous() for row in strided]), rtol=0, atol=0
        )


def test_strided_running_statistics() -> None:
    values = torch.rand(4, 6) + 0.5
    strided = list(values.clone()[:, ::2])
    expected = [row.clone() for row in strided]
    for mean, var, batch_mean, batch_var in (strided, expected):
        ops.update_running_statistics(mean, var, None, batch_mean, batch_var, 0.1, 8)
    assert not strided[0].is_contiguous()
    for found, value in zip(strided, expected, strict=True):
        torch.testing.assert_close(found, value)
    assert not torch.equal(strided[0], values[0, ::2])


def test_gradients_that_are_differentiated_read_strided_weights() -> None:
    """As torch's batch norm over channels_last maps does not."""
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    grad, bias = torch.randn_like(x), torch.zeros(3)
    weight = torch.rand(6)[::2]
    mean, var = x.detach().mean((0, 2, 3)), x.detach().var((0, 2, 3), correction=0)

    def gradient(weight: Tensor) -> Tensor:
        return ops.batch_norm_act_backward(
            grad, x, weight, bias, mean, var, True, 1e-5, "relu", [], [True, False, False, False]
        )[0]

    assert gradient(weight).requires_grad
    torch.testing.assert_close(gradient(weight), gradient(weight.contiguous()))

    def gradient_of_block(weight: Tensor) -> Tensor:
        lists = [[weight], [bias], [torch.ones(2, 3, 1, 1)], [], [mean], [var]]
        output = ops.dense_block(x, *lists[:4], [], [], 1e-5, "relu", [], ONE, [1], 1, 1)[0]
        return ops.dense_block_backward(
            torch.ones_like(output), output, [], [], x, *lists, True, 1e-5, "relu", [], ONE, [1], 1,
            [True, False, False, False],
        )[0]  # fmt: skip

    torch.testing.assert_close(gradient_of_block(weight), gradient_of_block(weight.contiguous()))
