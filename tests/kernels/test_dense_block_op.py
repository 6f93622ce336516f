"""The dense_block operators: their contract with torch, their derivatives, and the same bits for
any number of threads."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from cnngraph import kernels
from cnngraph.kernels.dense_block import Step, dense_block
from cnngraph.ops.activation import ReLU
from cnngraph.ops.conv import Conv2d
from cnngraph.ops.fused import BatchNormAct, DenseBlock
from cnngraph.ops.norm import BatchNorm
from cnngraph.ops.saved import Batch
from cnngraph.shape import TensorShape

pytestmark = pytest.mark.skipif(
    not kernels.available(), reason="the compiled kernels are not built"
)

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def step_of(
    channels: int, made: int, size: int, fixed: bool, dtype: torch.dtype, bias: bool
) -> Step:
    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype).requires_grad_()

    mean = torch.randn(channels, dtype=dtype) if fixed else None
    var = torch.rand(channels, dtype=dtype) + 0.5 if fixed else None
    weight = leaf(made, channels, size, size)
    return Step(
        leaf(channels), leaf(channels), mean, var, weight, leaf(made) if bias else None, (1, 1), 1
    )


def block(
    channels: int,
    growth: int,
    layers: int,
    steps=2,
    fixed=False,
    dtype=torch.float64,
    bias=False,
    between=3,
) -> list[list[Step]]:
    torch.manual_seed(0)
    made = []
    for _ in range(layers):
        layer, read = [], channels
        for step in range(steps):
            last = step == steps - 1
            layer.append(
                step_of(read, growth if last else between, 3 if last else 1, fixed, dtype, bias)
            )
            read = between
        made.append(layer)
        channels += growth
    return made


def on(device: str, layers: list[list[Step]]) -> list[list[Step]]:
    """The same on that device; a leaf that moves stays a leaf."""

    def moved(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device).requires_grad_(tensor.requires_grad)

    def there(step: Step) -> Step:
        tensors = {name: value for name, value in vars(step).items() if isinstance(value, Tensor)}
        return replace(step, **{name: moved(tensor) for name, tensor in tensors.items()})

    return [[there(step) for step in layer] for layer in layers]


def parameters_of(layers: list[list[Step]]) -> list[Tensor]:
    return [tensor for layer in layers for step in layer for tensor in step.differentiable]


def with_parameters(layers: list[list[Step]], parameters: tuple[Tensor, ...]) -> list[list[Step]]:
    given = iter(parameters)

    def rebuilt(step: Step) -> Step:
        weight, bias, conv = next(given), next(given), next(given)
        conv_bias = None if step.conv_bias is None else next(given)
        return replace(
            step, norm_weight=weight, norm_bias=bias, conv_weight=conv, conv_bias=conv_bias
        )

    return [[rebuilt(step) for step in layer] for layer in layers]


def arguments_of(
    x: Tensor, layers: list[list[Step]], keep: int, activation: str = "silu"
) -> tuple[object, ...]:
    steps = [step for layer in layers for step in layer]
    return (
        x,
        [step.norm_weight for step in steps],
        [step.norm_bias for step in steps],
        [step.conv_weight for step in steps],
        [step.conv_bias for step in steps if step.conv_bias is not None],
        [step.mean for step in steps if step.mean is not None],
        [step.var for step in steps if step.var is not None],
        1e-5,
        activation,
        [],
        [1] * (2 * len(steps)),
        [1] * len(steps),
        len(layers[0]),
        keep,
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("fixed", [False, True], ids=["batch", "fixed"])
@pytest.mark.parametrize("keep", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("channels", [4, 32])
def test_opcheck(
    keep: int, fixed: bool, layout: torch.memory_format, steps: int, channels: int
) -> None:
    bias = fixed and channels == 4
    layers = block(channels, 2, 2, steps, fixed, torch.float32, bias, between=channels)
    x = torch.randn(2, channels, 3, 5).contiguous(memory_format=layout)
    arguments = arguments_of(x, layers, keep)
    if keep == 0:  # without a gradient: what is kept for one is missing
        arguments = tree_map_only(Tensor, Tensor.detach, arguments)
    else:
        x.requires_grad_()
    torch.library.opcheck(torch.ops.cnngraph.dense_block, arguments)  # pyright: ignore


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("channels", [4, 32])
def test_opcheck_of_the_backward(layout: torch.memory_format, wanted: bool, channels: int) -> None:
    layers = block(channels, 2, 2, dtype=torch.float32, between=channels)
    x = torch.randn(2, channels, 3, 5).contiguous(memory_format=layout)
    detached = tree_map_only(Tensor, Tensor.detach, arguments_of(x, layers, 2))
    output, means, vars, maps, activations = torch.ops.cnngraph.dense_block(*detached)
    x, *parameters = detached[:5]
    mask = [wanted] + [True] * (12)
    arguments = (
        torch.randn_like(output),
        output,
        maps,
        activations,
        x,
        *parameters,
        means,
        vars,
        True,
    )
    torch.library.opcheck(
        torch.ops.cnngraph.dense_block_backward, (*arguments, *detached[7:13], mask)
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("fixed", [False, True], ids=["batch", "fixed"])
@pytest.mark.parametrize("steps", [1, 2])
def test_derivatives_are_those_of_finite_differences(
    fixed: bool, layout: torch.memory_format, steps: int, device: str
) -> None:
    layers = on(device, block(3, 2, 3, steps, fixed, bias=True))
    x = (
        torch.randn(2, 3, 3, 2, dtype=torch.float64, device=device)
        .contiguous(memory_format=layout)
        .requires_grad_()
    )
    for keep in (True, False):
        assert torch.autograd.gradcheck(
            lambda x, *p, keep=keep: dense_block(
                x, with_parameters(layers, p), 1e-2, "silu", (), keep
            )[0],
            (x, *parameters_of(layers)),
        )


@pytest.mark.parametrize("fixed", [False, True], ids=["batch", "fixed"])
@pytest.mark.parametrize("size", [(3, 5), (41, 23)])
def test_the_first_convolutions_of_layers_are_made_with_their_norms(
    fixed: bool, size: tuple[int, int]
) -> None:
    """In float32 over channels_last, with or without what is kept for other steps; float64 takes
    another way."""
    layers = block(37, 40, 3, 2, fixed, torch.float64, between=33)
    x = torch.randn(2, 37, *size, dtype=torch.float64)
    grad = torch.randn(2, 37 + 3 * 40, *size, dtype=torch.float64)

    def run(dtype: torch.dtype, keep: bool) -> list[Tensor]:
        def leaf(value: Tensor) -> Tensor:
            return value.detach().to(dtype).requires_grad_(value.requires_grad)

        leaves = [leaf(x).contiguous(memory_format=torch.channels_last).requires_grad_()]
        leaves += map(leaf, parameters_of(layers))
        given = with_parameters(layers, tuple(leaves[1:]))
        if fixed:
            given = [
                [replace(s, mean=s.mean.to(dtype), var=s.var.to(dtype)) for s in layer]
                for layer in given
            ]
        output = dense_block(leaves[0], given, 1e-5, "relu", (), keep)[0]
        return [output, *torch.autograd.grad(output, leaves, grad.to(dtype))]

    expected = run(torch.float64, True)
    for keep in (True, False):
        for one, other in zip(run(torch.float32, keep), expected, strict=True):
            assert (one - other).norm() < 1e-5 * other.norm()


def test_input_of_the_first_convolutions_is_never_stored() -> None:
    layers = block(32, 32, 2, dtype=torch.float32, between=32)
    x = torch.randn(2, 32, 9, 9)
    for layout, kept in (
        (torch.channels_last, [0, 32, 0, 32]),
        (torch.contiguous_format, [32, 32, 64, 32]),
    ):
        with torch.no_grad():
            *_, activations = torch.ops.cnngraph.dense_block(
                *arguments_of(x.contiguous(memory_format=layout), layers, 2)
            )
        assert [value.numel() // (2 * 81) for value in activations] == kept


@pytest.mark.parametrize(("channels", "size"), [(32, 1), (31, 1), (40, 3)])
@pytest.mark.parametrize("itemsize", [4, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_the_op_predicts_which_layers_are_multiplied_with_their_norms(
    channels: int, size: int, itemsize: int, bias: bool
) -> None:
    """The memory of a step is computed without torch, by the policy that the kernel states."""
    conv = Conv2d(out_channels=32, kernel_size=size, padding=size // 2, bias=bias)
    norm = BatchNormAct(batch_norm=BatchNorm(), activation=ReLU())
    op = DenseBlock(layers=(((norm, conv),),))
    shape, result = TensorShape((channels, 8, 8)), TensorShape((32, 8, 8))
    predicted = op._is_multiplied(Batch(1, itemsize), conv, shape, result)
    assert predicted == (
        itemsize == 4 and not bias and kernels.extension.pointwise_takes([32, channels, size, size])
    )


@pytest.mark.parametrize("fixed", [False, True], ids=["batch", "fixed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_gradient_may_be_a_slice_of_channels(
    dtype: torch.dtype, fixed: bool, device: str
) -> None:
    growth = 32 if dtype is torch.float32 else 2  # multiplied with the norm, and not
    layers = on(device, block(40, growth, 2, fixed=fixed, dtype=dtype, between=growth))
    parameters, channels = parameters_of(layers), 40 + 2 * growth
    torch.manual_seed(0)
    x = torch.randn(2, 40, 3, 5, dtype=dtype, device=device).to(memory_format=torch.channels_last)
    wide = torch.randn(2, channels + 4, 3, 5, dtype=dtype, device=device)
    wide = wide.to(memory_format=torch.channels_last)[:, 4:]

    def run(grad: Tensor) -> list[Tensor]:
        leaf = x.detach().requires_grad_()
        output = dense_block(leaf, layers, 1e-5, "silu", [], keep_activations=False)[0]
        assert output.is_contiguous(memory_format=torch.channels_last)
        return list(torch.autograd.grad(output, [leaf, *parameters], grad))

    dense = wide.contiguous(memory_format=torch.channels_last)
    for found, expected in zip(run(wide), run(dense), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("fixed", [False, True], ids=["batch", "fixed"])
def test_second_derivatives_are_those_of_finite_differences(fixed: bool) -> None:
    layers = block(2, 1, 2, 1, fixed)
    x = torch.randn(2, 2, 2, 2, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, *p: dense_block(x, with_parameters(layers, p), 1e-1, "silu", (), False)[0],
        (x, *parameters_of(layers)),
    )


def test_compiled_autograd() -> None:
    compiled_autograd = pytest.importorskip("torch._dynamo.compiled_autograd")
    layers = block(4, 2, 2, bias=True)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    leaves = [x, *parameters_of(layers)]

    def loss() -> Tensor:
        return dense_block(x, layers, 1e-5, "silu", (), True)[0].square().sum()

    expected = torch.autograd.grad(loss(), leaves)
    value = loss()
    with compiled_autograd._enable(torch.compile(backend="aot_eager", dynamic=False)):
        value.backward()
    for leaf, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_for_any_number_of_threads(
    layout: torch.memory_format, dtype: torch.dtype
) -> None:
    """With convolutions that add up nothing."""
    torch.manual_seed(0)
    layers = [
        [step_of(channels, channels, 1, False, dtype, bias=False)] for channels in (24, 48, 96)
    ]
    layers = [
        [replace(step, conv_weight=step.conv_weight[:, :1], groups=len(step.norm_bias))]
        for (step,) in layers
    ]
    x = torch.randn(8, 24, 30, 31).to(dtype).contiguous(memory_format=layout)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            output = dense_block(leaf, layers, 1e-5, "relu", (), False)[0]
            norms = [tensor for (step,) in layers for tensor in (step.norm_weight, step.norm_bias)]
            grad = torch.linspace(-1, 1, output.numel()).view_as(output).to(dtype)
            found.append([output, *torch.autograd.grad(output, [leaf, *norms], grad)])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            assert torch.equal(one, same)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_statistics_keep_their_digits_far_from_zero(
    layout: torch.memory_format, device: str
) -> None:
    layers = on(device, block(3, 2, 2, 1, dtype=torch.float32))
    x = (torch.randn(8, 3, 64, 64, device=device) + 1000).contiguous(memory_format=layout)
    output, means, vars = dense_block(x, layers, 1e-5, "relu", (), False)
    assert [len(mean) for mean in means] == [3, 5]
    for mean, var in zip(means, vars, strict=True):
        maps = output.detach()[:, : len(mean)].double()
        torch.testing.assert_close(mean.double(), maps.mean((0, 2, 3)), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            var.double(), maps.var((0, 2, 3), correction=0), rtol=1e-5, atol=1e-6
        )


def test_results_share_no_memory() -> None:
    layers = block(4, 2, 3)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        output, *lists = torch.ops.cnngraph.dense_block(*arguments_of(x, layers, 2))
    found = [output, *(tensor for tensors in lists for tensor in tensors)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == len(found)
    assert x.data_ptr() not in {tensor.data_ptr() for tensor in found}


def test_wrong_arguments_are_refused() -> None:
    layers = block(4, 2, 2)
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64)

    def call(x: Tensor = x, **changes: object) -> None:
        wrong = [[replace(step, **changes) for step in layer] for layer in layers]
        dense_block(x, wrong, 1e-5, "relu", (), True)

    call()
    with pytest.raises(RuntimeError, match="a norm's weight should hold 4 elements"):
        call(norm_weight=torch.ones(7))
    with pytest.raises(RuntimeError, match="expected a convolution's weight of type Double"):
        call(conv_weight=torch.ones(2, 4, 1, 1))
    with pytest.raises(RuntimeError, match="cannot keep the map's size"):
        call(conv_weight=torch.ones(3, 4, 2, 2, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="4 dimensions"):
        call(x[0])
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        call(x[:1, :, :1, :1])
    with pytest.raises(ValueError, match="unknown activation"):
        dense_block(x, layers, 1e-5, "selu", (), True)
    with pytest.raises(NotImplementedError, match="Half"):
        dense_block(x.half(), block(4, 2, 2, dtype=torch.half), 1e-5, "relu", (), True)


def test_flops_are_counted() -> None:
    layers = block(4, 2, 2)
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    with FlopCounterMode(display=False) as counted:
        dense_block(x, layers, 1e-5, "relu", (), True)[0].sum().backward()
    macs = 2 * 15 * sum(step.conv_weight.numel() for layer in layers for step in layer)
    assert counted.get_total_flops() == 3 * 2 * macs
