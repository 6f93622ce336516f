"""Wrong arguments of the operators raise errors like torch's; what torch allows works.

`tests.fuzz.operators` calls all operators with arguments changed at random.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnngraph import kernels
from cnngraph.nn import linear

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

ops: Any = torch.ops.cnngraph
ONE, ZERO = [1, 1], [0, 0]


def negated(value: Tensor) -> Tensor:
    """The same numbers as a view that torch negates lazily."""
    view = torch.complex(torch.zeros_like(value), -value).conj().imag
    assert view.is_neg()
    return view


@pytest.mark.parametrize("size", [0, 1, 7, 63, 65])
def test_a_bias_of_another_length_is_refused(size: int) -> None:
    x, weight = torch.randn(16, 96, 1, 1), torch.randn(64, 96, 1, 1)
    with pytest.raises(RuntimeError, match="expected a bias of shape \\[64\\]"):
        ops.conv2d(x, weight, torch.randn(size), ONE, ZERO, ONE, 1)


def test_linear_layers_expand_a_bias_like_torch(convolutions_of_any_size: None) -> None:
    layer = nn.Linear(96, 64)
    layer.bias = nn.Parameter(torch.ones(1))
    x = torch.randn(16, 96)
    torch.testing.assert_close(linear(layer, x), layer(x), rtol=0, atol=0)
    layer.bias = nn.Parameter(torch.ones(63))
    with pytest.raises(RuntimeError, match=r"size of tensor a \(64\) must match|expanded size"):
        linear(layer, x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": []}, "expected stride to be one or two integers"),
        ({"stride": [0, 1]}, "stride must be 1 or more"),
        ({"dilation": [1, -1]}, "dilation must be 1 or more"),
        ({"padding": [1, 2**62]}, "padding must be 0 or more and at most 536870912"),
        ({"padding": [1, 2**31 - 1], "dilation": [1, 2**31 - 1]}, "padding must be 0 or more"),
        ({"padding": [1, 1, 1]}, "expected padding to be one or two integers"),
        ({"groups": 0}, "0 groups do not divide"),
        ({"weight": torch.randn(4, 3, 0, 3)}, "the weight is empty"),
        ({"weight": torch.randn(4, 3, 9, 9)}, "does not fit into an input"),
        ({"weight": torch.randn(4, 3)}, "4 dimensions"),
        ({"weight": torch.randn(4, 3, 3, 3).double()}, "expected a weight of type Float"),
        ({"bias": torch.randn(4).double()}, "expected a bias of type Float"),
    ],
)
def test_wrong_convolutions_are_refused(change: dict[str, Any], message: str) -> None:
    call: dict[str, Any] = {
        "input": torch.randn(2, 3, 6, 6), "weight": torch.randn(4, 3, 3, 3), "bias": None,
        "stride": ONE, "padding": ONE, "dilation": ONE, "groups": 1,
    }  # fmt: skip
    assert ops.conv2d(*call.values()).shape == (2, 4, 6, 6)
    with pytest.raises(RuntimeError, match=message):
        ops.conv2d(*{**call, **change}.values())


def test_a_gradient_of_another_size_is_refused() -> None:
    x, weight = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    for grad in (torch.randn(2, 4, 5, 6), torch.randn(1, 4, 6, 6), torch.randn(2, 4, 36)):
        with pytest.raises(RuntimeError, match=r"expected a gradient of shape \[2, 4, 6, 6\]"):
            ops.conv2d_backward(grad, x, weight, ONE, ONE, ONE, 1, [True, True, True])


def test_a_pool_without_a_stride_has_the_stride_of_its_window() -> None:
    x = torch.randn(2, 3, 8, 9, requires_grad=True)
    found, _ = ops.max_pool2d(x, [2, 3], [], ZERO, ONE, False, False, True)
    expected = F.max_pool2d(x, [2, 3])
    assert torch.equal(found, expected)
    for result in (found, expected):
        (gradient,) = torch.autograd.grad(result.square().sum(), x, create_graph=True)
        assert gradient.square().sum().item() > 0
    (found_grad,), (expected_grad,) = (
        torch.autograd.grad(result.sum(), x) for result in (found, expected)
    )
    assert torch.equal(found_grad, expected_grad)


def test_gradients_of_another_pool_are_refused() -> None:
    grad = torch.ones(1, 2, 4, 4)
    indices = torch.zeros(1, 2, 4, 4, dtype=torch.uint8)
    for size in ((4, 8), (7, 11), (0, 0), (-8, 8), (2**62, 8)):
        with pytest.raises(RuntimeError, match="max_pool2d_backward: "):
            ops.max_pool2d_backward(grad, indices, *size, [2, 2], [2, 2], ZERO, ONE)


def test_lazily_negated_arguments_count_with_their_sign() -> None:
    x, weight, bias = torch.randn(2, 3, 4, 4), torch.rand(3), torch.randn(3)
    mean, var = torch.randn(3), torch.rand(3) + 0.5

    def cat(*tensors: Tensor) -> Tensor:
        lists = [[tensor] for tensor in tensors]
        return ops.cat_batch_norm_act(*lists, [1e-5], [True], [True], "relu", [])[0]

    assert torch.equal(
        cat(*map(negated, (x, weight, bias, mean, var))), cat(x, weight, bias, mean, var)
    )
    running = [torch.zeros(3), torch.ones(3)]
    expected = [value.clone() for value in running]
    lazy = [negated(value) for value in running]
    ops.update_running_statistics(*lazy, None, negated(mean), negated(var), 0.1, 8)
    ops.update_running_statistics(*expected, None, mean, var, 0.1, 8)
    for found, value in zip(lazy, expected, strict=True):
        torch.testing.assert_close(found, value)


def test_an_empty_concatenation_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one input or more"):
        ops.cat_batch_norm_act([], [torch.ones(1)], [], [], [], [], [], [], "relu", [])


def block(**change: Any) -> list[Any]:
    call: dict[str, Any] = {
        "input": torch.randn(2, 4, 3, 3, requires_grad=True),
        "norm_weights": [torch.ones(4), torch.ones(3)], "norm_biases": [torch.ones(4), torch.ones(3)],
        "conv_weights": [torch.randn(3, 4, 1, 1), torch.randn(2, 3, 3, 3)], "conv_biases": [],
        "means": [], "vars": [], "eps": 1e-5, "activation": "relu", "activation_args": [],
        "dilation": [1, 1, 1, 1], "groups": [1, 1], "steps_of_layer": 2, "keep": 0,
    }  # fmt: skip
    return list({**call, **change}.values())


def test_a_dense_block_keeps_what_backward_needs() -> None:
    call = block()
    for keep in (0, 1, 2):
        (gradient,) = torch.autograd.grad(ops.dense_block(*call[:-1], keep)[0].sum(), call[0])
        assert gradient.isfinite().all()
    with pytest.raises(RuntimeError, match="`keep` must be 0, 1 or 2"):
        ops.dense_block(*call[:-1], 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": [1]}, "expected 2 numbers of groups, got 1"),
        ({"groups": [0, 1]}, "in 0 groups"),
        ({"dilation": [1, 1, 1]}, "expected 4 dilations, got 3"),
        ({"dilation": [1, 1, 0, 1]}, "dilation must be 1 or more"),
        ({"dilation": [1, 1, 1, 2**31 - 1]}, "dilation must be 1 or more and at most"),
        ({"norm_biases": [torch.ones(4)]}, "expected 2 norm biases, got 1"),
        ({"conv_biases": [torch.ones(3), torch.ones(3)]}, "a convolution's bias of shape"),
        ({"means": [torch.ones(4), torch.ones(3)]}, "expected 2 variances, got 0"),
        ({"norm_weights": [], "norm_biases": []}, "cannot hold 0"),
        ({"steps_of_layer": 0}, "layers of 0 norms"),
    ],
)
def test_wrong_dense_blocks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        ops.dense_block(*block(**change))


def test_what_a_dense_block_kept_is_checked_in_backward() -> None:
    call = block(keep=2)
    with torch.no_grad():
        output, means, vars, maps, activations = ops.dense_block(*call)
    mask = [True] * 7

    def backward(maps: Any, activations: Any, means: Any, mask: Any = mask) -> Any:
        with torch.no_grad():
            return ops.dense_block_backward(
                torch.ones_like(output), output, maps, activations, *call[:5], means, vars, True,
                *call[7:13], mask,
            )  # fmt: skip

    assert len(backward(maps, activations, means)) == 7
    for wrong in (
        ([], activations, means), (maps, activations[:1], means), (maps, activations, means[:1]),
        (maps, activations, means, mask[:-1]), ([maps[0][:1]], activations, means),
        (maps, [activations[0][..., :1], activations[1]], means),
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="dense_block"):
            backward(*wrong)


@pytest.mark.parametrize("left", [0, 4])
def test_tensors_whose_memory_was_freed_are_refused(left: int) -> None:
    def freed(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor with so many bytes of its memory left; FSDP makes some with none."""
        value = torch.ones(shape, dtype=dtype)
        value.untyped_storage().resize_(left)
        return value

    x, row, weight = torch.ones(2, 3, 4, 4), torch.ones(3), torch.ones(3, 3, 3, 3)
    where, indices = (ONE, ONE, ZERO, ONE), torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    transformed = ops.winograd_weight(weight, 2)
    norm: list[Any] = [None, None, 1e-5, "relu", []]
    lists: list[Any] = [[None]] * 4
    calls = [
        lambda: ops.conv2d(freed(*x.shape), weight, None, ONE, ONE, ONE, 1),
        lambda: ops.conv2d(x, freed(*weight.shape), None, ONE, ONE, ONE, 1),
        lambda: ops.conv2d(x, weight, freed(3), ONE, ONE, ONE, 1),
        lambda: ops.conv2d_backward(
            freed(*x.shape), x, weight, ONE, ONE, ONE, 1, [True, True, True]
        ),
        lambda: ops.max_pool2d(freed(*x.shape), *where, False, False, True),
        lambda: ops.max_pool2d_backward(freed(*x.shape), indices, 4, 4, *where),
        lambda: ops.max_pool2d_backward(x, freed(*x.shape, dtype=torch.uint8), 4, 4, *where),
        lambda: ops.batch_norm_act(freed(*x.shape), row, row, *norm),
        lambda: ops.batch_norm_act(x, freed(3), row, *norm),
        lambda: ops.batch_norm_act(x, row, row, *norm, freed(*x.shape)),
        lambda: ops.cat_batch_norm_act([x, freed(*x.shape)], *[[None] * 2] * 4, [1e-5] * 2, [True, False], [False] * 2, "relu", []),
        lambda: ops.cat_batch_norm_act([x], [freed(3)], *lists[1:], [1e-5], [True], [True], "relu", []),
        lambda: ops.dense_block(*block(input=freed(2, 4, 3, 3))),
        lambda: ops.dense_block(*block(conv_weights=[freed(3, 4, 1, 1), torch.ones(2, 3, 3, 3)])),
        lambda: ops.winograd_weight(freed(16, 16, 3, 3), 2),
        lambda: ops.winograd_conv2d(x, freed(*transformed.shape), 3, None, ONE, None, 0.0, 1.0),
        lambda: ops.pointwise_weight(freed(3, 3, 1, 1)),
        lambda: ops.update_running_statistics(freed(3), row, None, row, row, 0.1, 8),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(RuntimeError, match="was freed|not allocated yet"), torch.no_grad():
            call()
    for arguments in (
        [freed(*x.shape), x.clone().requires_grad_(), row, row, row, row],
        [x, x.clone().requires_grad_(), freed(3), row, row, row],
        [x, x.clone().requires_grad_(), row, row, freed(3), row],
        [x, x.clone().requires_grad_(), row, row, freed(3), torch.ones(3, device="meta")],
        [x, x.clone().requires_grad_(), row, row, row, freed(3)],
    ):
        with pytest.raises(RuntimeError, match="was freed"):
            ops.batch_norm_act_backward(
                *arguments, False, 1e-5, "relu", [], [True, False, False, False]
            )


def test_a_differentiated_gradient_of_another_size_is_refused() -> None:
    x, weight = torch.randn(2, 3, 6, 6, requires_grad=True), torch.randn(4, 3, 3, 3)
    for grad in (torch.randn(2, 4, 5, 6), torch.randn(1, 4, 6, 6)):
        with pytest.raises(RuntimeError, match=r"expected a gradient of shape \[2, 4, 6, 6\]"):
            ops.conv2d_backward(grad, x, weight, ONE, ONE, ONE, 1, [True, True, True])


def test_sizes_that_would_overflow_are_refused() -> None:
    """Expanded tensors have any size without any memory."""
    one = torch.zeros(1)
    for call in (
        lambda: ops.pointwise_weight(one.expand(1, 2**60, 1, 1)),
        lambda: ops.winograd_weight(one.expand(1, 2**57, 3, 3), 4),
        lambda: ops.conv2d(
            one.expand(8, 2**57, 1, 1), one.expand(16, 2**57, 1, 1), None, ONE, ZERO, ONE, 1
        ),
    ):
        with pytest.raises(RuntimeError, match=r"the (input|weight) of shape .* too many values"):
            call()
    x, packed = torch.zeros(1, 8, 3, 3), ops.pointwise_weight(torch.zeros(8, 8, 1, 1))
    transformed = ops.winograd_weight(torch.zeros(8, 8, 3, 3), 2)
    for channels in (0, -8, 2**31, 2**59, 2**60 + 8):
        for call in (
            lambda c: ops.winograd_conv2d(x, transformed, c, None, ONE, None, 0.0, 6.0),
            lambda c: ops.pointwise_conv2d(x, packed, c, None, None, 0.0, 6.0),
            lambda c: ops.batch_norm_relu_pointwise_conv2d(
                x, *[torch.ones(8)] * 4, 1e-5, packed, c, None, 0.0, 6.0
            ),
        ):
            with pytest.raises(RuntimeError, match="expected channels, got"):
                call(channels)


def test_second_derivatives_of_strided_1x1_kernels_over_few_channels() -> None:
    """oneDNN's gradient of such a weight writes past its memory."""
    found, expected = [], []
    for results, function in ((found, ops.conv2d), (expected, F.conv2d)):
        torch.manual_seed(0)
        dtype = torch.float64 if function is F.conv2d else torch.float32
        x = torch.randn(2, 3, 7, 7).to(dtype, memory_format=torch.channels_last).requires_grad_()
        weight = torch.randn(16, 3, 1, 1).to(dtype).requires_grad_()
        bias = torch.randn(16).to(dtype).requires_grad_()
        inputs = [x, weight, bias]
        output = function(x, weight, bias, [2, 2], [1, 1], ONE, 1)
        first = torch.autograd.grad(output.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results += [value.double() for value in (*first, *second)]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3)


def test_operators_for_evaluation_refuse_gradients() -> None:
    weight = torch.randn(16, 16, 3, 3, requires_grad=True)
    with pytest.raises(NotImplementedError, match="winograd_weight has no gradient"):
        ops.winograd_weight(weight, 2)
    with torch.no_grad():
        assert ops.winograd_weight(weight, 2).numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_empty_batch_of_one_pixel_maps_has_gradients(dtype: torch.dtype) -> None:
    grad, x = torch.zeros(0, 48, 1, 1, dtype=dtype), torch.zeros(0, 32, 1, 1, dtype=dtype)
    weight = torch.ones(48, 32, 1, 1, dtype=dtype)
    found = torch.ops.cnngraph.conv2d_backward(
        grad, x, weight, (1, 1), (0, 0), (1, 1), 1, [True, True, True]
    )
    assert [item.shape for item in found] == [x.shape, weight.shape, (48,)]
    assert not found[1].any()
