"""Direct calls of the operators: valid ones, with up to three arguments changed.

A call must raise an error of Python, or compute what the same call computes for plain tensors
(contiguous copies, nothing lazy). A crash ends the process; the last number printed is its cause.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cnngraph import kernels

assert kernels.available(), "the compiled kernels are not built"

Call = tuple[str, list[Any]]

ALLOWED = (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError, OverflowError)
"""What a wrong call may raise. Others, such as AssertionError and AttributeError, are findings."""

NUMBERS = (-(2**63), -(2**31), -3, -1, 0, 1, 2, 3, 5, 2**31 - 1, 2**31, 2**62)
DTYPES = (
    torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool,
    torch.complex64,
)  # fmt: skip


# --- valid calls ----------------------------------------------------------------------------------


class Maker:
    """Draws tensors of one type and layout."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.dtype = random.choice([torch.float32, torch.float32, torch.float64, torch.bfloat16])
        self.channels_last = random.random() < 0.6

    def size(self, *sizes: int) -> int:
        return self.random.choice(sizes)

    def map(self, *shape: int) -> Tensor:
        value = torch.randn(shape).to(self.dtype)
        if self.channels_last and value.dim() == 4:
            return value.contiguous(memory_format=torch.channels_last)
        return value

    def row(self, count: int) -> Tensor:
        wide = torch.float64 if self.dtype is torch.float64 else torch.float32
        return torch.rand(count).to(self.random.choice([self.dtype, wide])) + 0.5

    def optional(self, value: Tensor) -> Tensor | None:
        return value if self.random.random() < 0.7 else None


ACTIVATIONS: tuple[tuple[str, list[float]], ...] = (
    ("relu", []), ("identity", []), ("leaky_relu", [0.1]), ("hardtanh", [0.0, 6.0]),
    ("gelu", []), ("silu", []), ("mish", []), ("hardswish", []),
)  # fmt: skip


def conv2d(make: Maker) -> Call:
    groups = make.size(1, 1, 1, 2)
    depth, outputs = make.size(1, 3, 16, 32, 40), make.size(1, 4, 16, 32, 48) * groups
    kernel = [make.size(1, 1, 3, 3, 2), make.size(1, 1, 3, 3, 5)]
    if make.random.random() < 0.2:
        size, kernel = [1, 1], [1, 1]
    else:
        size = [make.size(1, 2, 7, 12), make.size(1, 3, 8, 12)]
    padding = [make.size(0, 1, 1, 2), make.size(0, 1, 1, 2)]
    stride = [make.size(1, 1, 2), make.size(1, 1, 2)]
    x = make.map(make.size(0, 1, 2, 4, 16, 33), depth * groups, *size)
    weight = make.map(outputs, depth, *kernel)
    bias = make.optional(torch.randn(outputs).to(make.dtype))
    return "conv2d", [x, weight, bias, stride, padding, [make.size(1, 1, 2), 1], groups]


def conv2d_backward(make: Maker) -> Call:
    _, (x, weight, _, stride, padding, dilation, groups) = conv2d(make)
    sizes = [
        (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, spread in zip(
            x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    grad = make.map(x.shape[0], weight.shape[0], *(max(size, 1) for size in sizes))
    mask = [make.random.random() < 0.7 for _ in range(3)]
    return "conv2d_backward", [grad, x, weight, stride, padding, dilation, groups, mask]


def winograd_weight(make: Maker) -> Call:
    weight = make.map(make.size(1, 16, 33), make.size(1, 16, 20), 3, 3)
    return "winograd_weight", [weight, make.random.choice((2, 4))]


def winograd_conv2d(make: Maker) -> Call:
    outputs, depth = make.size(1, 16, 33), make.size(1, 16, 20)
    weight = torch.ops.cnngraph.winograd_weight(torch.randn(outputs, depth, 3, 3), make.size(2, 4))
    height, width, padding = make.size(1, 5, 9), make.size(3, 8), [make.size(1, 2), 1]
    x = make.map(2, depth, height, width)
    like = make.map(2, outputs, height + 2 * padding[0] - 2, width + 2 * padding[1] - 2)
    residual = make.optional(like)
    bias = make.optional(torch.randn(outputs))
    return "winograd_conv2d", [x, weight, outputs, bias, padding, residual, -1.0, 1.0]


def pointwise_weight(make: Maker) -> Call:
    return "pointwise_weight", [make.map(make.size(1, 16, 33), make.size(1, 16, 20), 1, 1)]


def pointwise_conv2d(make: Maker) -> Call:
    outputs, depth = make.size(1, 16, 33), make.size(1, 16, 20)
    weight = torch.ops.cnngraph.pointwise_weight(torch.randn(outputs, depth, 1, 1))
    height, width = make.size(1, 5, 9), make.size(1, 3, 8)
    residual = make.optional(make.map(2, outputs, height, width))
    bias = make.optional(torch.randn(outputs))
    x = make.map(2, depth, height, width)
    return "pointwise_conv2d", [x, weight, outputs, bias, residual, 0.0, 6.0]


def batch_norm_relu_pointwise_conv2d(make: Maker) -> Call:
    outputs, depth = make.size(1, 16, 33), make.size(1, 16, 20)
    weight = torch.ops.cnngraph.pointwise_weight(torch.randn(outputs, depth, 1, 1))
    statistics = [torch.rand(depth) + 0.5 for _ in range(2)]
    affine = [make.optional(torch.rand(depth)) for _ in range(2)]
    x = make.map(2, depth, make.size(1, 5, 9), make.size(1, 3, 8))
    bias = make.optional(torch.randn(outputs))
    arguments = [x, *statistics, *affine, 1e-5, weight, outputs, bias, 0.0, 6.0]
    return "batch_norm_relu_pointwise_conv2d", arguments


def depthwise_conv2d(make: Maker) -> Call:
    channels, taps, step = make.size(1, 16, 33), make.size(1, 3), make.size(1, 2)
    height, width = make.size(3, 5, 9), make.size(3, 8)
    size = [(length - taps) // step + 1 for length in (height, width)]
    residual = make.optional(make.map(2, channels, *size))
    bias = make.optional(torch.randn(channels))
    x, weight = make.map(2, channels, height, width), torch.randn(taps, taps, channels)
    geometry = [step, step], [0, 0], [1, 1]
    return "depthwise_conv2d", [x, weight, bias, *geometry, residual, -1.0, 1.0]


def window(make: Maker) -> list[list[int]]:
    kernel = [make.size(1, 2, 3), make.size(2, 3)]
    padding = [make.size(0, kernel[0] // 2), make.size(0, kernel[1] // 2)]
    stride = make.random.choice([kernel, [1, 1], [2, 1], []])
    return [kernel, stride, padding, [make.size(1, 1, 2), 1]]


def max_pool2d(make: Maker) -> Call:
    x = make.map(make.size(1, 2), make.size(1, 3, 16, 33), make.size(5, 9), make.size(6, 17))
    flags = [make.random.random() < 0.5 for _ in range(3)]
    return "max_pool2d", [x, *window(make), *flags]


def max_pool2d_backward(make: Maker) -> Call:
    _, arguments = max_pool2d(make)
    x, where, ceil_mode, relu = arguments[0], arguments[1:5], arguments[5], arguments[6]
    grad, indices = torch.ops.cnngraph.max_pool2d(x, *where, ceil_mode, relu, True)
    return "max_pool2d_backward", [torch.randn_like(grad), indices, *x.shape[2:], *where]


def batch_norm_act(make: Maker) -> Call:
    channels = make.size(1, 3, 16, 65)
    pixels = make.random.choice([[], [5], [4, 5], [1, 1], [2, 3, 2]])
    x = make.map(make.size(0, 2, 5), channels, *pixels)
    fixed = make.random.random() < 0.5
    mean, var = (make.row(channels) if fixed else None for _ in range(2))
    name, arguments = make.random.choice(ACTIVATIONS)
    residual = make.optional(make.map(*x.shape))
    weight, bias = (make.optional(make.row(channels)) for _ in range(2))
    return "batch_norm_act", [x, weight, bias, mean, var, 1e-5, name, arguments, residual]


def batch_norm_act_backward(make: Maker) -> Call:
    _, (x, weight, bias, _, _, eps, name, arguments, residual) = batch_norm_act(make)
    mean, var = make.row(x.shape[1]), make.row(x.shape[1])
    mask = [make.random.random() < 0.7 for _ in range(4)]
    flag = make.random.random() < 0.5
    return "batch_norm_act_backward", [
        make.map(*x.shape), x, weight, bias, mean, var, flag, eps, name, arguments, mask, residual,
    ]  # fmt: skip


def update_running_statistics(make: Maker) -> Call:
    rows = [torch.rand(8).to(make.dtype) for _ in range(4)]
    count = make.optional(torch.tensor(3))
    momentum = make.random.choice([None, 0.1])
    return "update_running_statistics", [*rows[:2], count, *rows[2:], momentum, 12]


def cat_batch_norm_act(make: Maker) -> Call:
    batch, height, width = 2, make.size(1, 4), make.size(3, 5)
    lists: list[list[Any]] = [[] for _ in range(8)]
    name, arguments = make.random.choice(ACTIVATIONS[:4])
    for _ in range(make.size(1, 2, 3)):
        channels, fixed = make.size(1, 5, 16), make.random.random() < 0.5
        norm = make.random.random() < 0.7
        active = make.random.random() < 0.5 and (norm or name == "relu")
        rows = [make.row(channels) for _ in range(4)]
        values = [
            make.map(batch, channels, height, width), rows[0], make.optional(rows[1]),
            rows[2] if fixed else None, rows[3] if fixed else None, 1e-5, norm, active,
        ]  # fmt: skip
        for items, value in zip(lists, values, strict=True):
            items.append(value)
    return "cat_batch_norm_act", [*lists, name, arguments]


def dense_block(make: Maker) -> Call:
    layers, steps_of_layer = make.size(1, 2, 3), make.size(1, 1, 2)
    channels = make.size(3, 32, 40)
    x = make.map(make.size(1, 2), channels, make.size(3, 6), make.size(3, 5))
    with_bias, fixed = make.random.random() < 0.3, make.random.random() < 0.3
    lists: list[list[Tensor]] = [[] for _ in range(6)]
    dilation: list[int] = []
    for _ in range(layers):
        read = channels
        for _ in range(steps_of_layer):
            outputs = make.size(2, 32)
            kernel = make.random.choice([[1, 1], [3, 3], [1, 3]])
            weight = make.map(outputs, read, *kernel) / read
            rows = [make.row(read) for _ in range(4)]
            for items, value in zip(lists[:3], (*rows[:2], weight), strict=True):
                items.append(value)
            if with_bias:
                lists[3].append(torch.randn(outputs).to(make.dtype))
            if fixed:
                lists[4].append(rows[2])
                lists[5].append(rows[3])
            dilation += [make.size(1, 1, 2), 1]
            read = outputs
        channels += read
    name, arguments = make.random.choice(ACTIVATIONS[:4])
    groups = [1] * (layers * steps_of_layer)
    keep = make.size(0, 1, 2)
    return "dense_block", [
        x, *lists, 1e-5, name, arguments, dilation, groups, steps_of_layer, keep,
    ]  # fmt: skip


def dense_block_backward(make: Maker) -> Call:
    _, call = dense_block(make)
    x, norm_weights, norm_biases, conv_weights, conv_biases, means, vars = call[:7]
    keep = make.size(1, 2)
    output, batch_means, batch_vars, maps, activations = torch.ops.cnngraph.dense_block(
        *call[:-1], keep
    )
    count = 1 + len(norm_weights) * 3 + len(conv_biases)
    mask = [make.random.random() < 0.7 for _ in range(count)]
    return "dense_block_backward", [
        torch.randn_like(output), output, maps, activations, x, norm_weights, norm_biases,
        conv_weights, conv_biases, means or batch_means, vars or batch_vars, not means, *call[7:13],
        mask,
    ]  # fmt: skip


MAKERS: tuple[Callable[[Maker], Call], ...] = (
    conv2d, conv2d, conv2d_backward, winograd_weight, winograd_conv2d, pointwise_weight,
    pointwise_conv2d, batch_norm_relu_pointwise_conv2d, depthwise_conv2d, max_pool2d,
    max_pool2d_backward, batch_norm_act, batch_norm_act_backward, update_running_statistics,
    cat_batch_norm_act, dense_block, dense_block_backward,
)  # fmt: skip


# --- changes --------------------------------------------------------------------------------------


def negated(value: Tensor) -> Tensor:
    """The same numbers as a view that torch negates lazily."""
    if value.dtype not in (torch.float32, torch.float64):
        return value
    view = torch.complex(torch.zeros_like(value), -value).conj().imag
    assert view.is_neg()
    return view


def relaid(value: Tensor, random: random.Random) -> Tensor:
    """The same numbers in another layout."""
    match random.randrange(5):
        case 0:
            return negated(value)
        case 1:  # a slice of a larger tensor
            if value.dim() == 0:
                return value
            dim = random.randrange(value.dim())
            wide = torch.cat([value, value, value], dim)
            return wide.narrow(dim, value.shape[dim], value.shape[dim])
        case 2:  # the dimensions in another order
            order = random.sample(range(value.dim()), value.dim())
            back = [order.index(dim) for dim in range(value.dim())]
            return value.permute(order).contiguous().permute(back)
        case 3:  # every other element
            return value.repeat_interleave(2, -1)[..., ::2] if value.dim() else value
        case _:
            return value.detach().clone().requires_grad_(value.dtype.is_floating_point)


def without_memory(value: Tensor) -> Tensor:
    value = value.detach().clone()
    value.untyped_storage().resize_(0)
    return value


def can_be_read(value: Tensor) -> bool:
    return (
        not value.is_meta
        and value.layout is torch.strided
        and bool(value.data_ptr() or not value.numel())
    )


def broken(value: Tensor, random: random.Random) -> Any:
    """Another size, type, device or kind."""
    if value.dtype is torch.uint8 and random.random() < 0.5:
        return torch.randint_like(value, 256)
    if random.random() < 0.05:
        return without_memory(value)
    dim = random.randrange(value.dim()) if value.dim() else None
    match random.randrange(10):
        case 0 if dim is not None:
            return value.narrow(dim, 0, max(0, value.shape[dim] - 1))
        case 1 if dim is not None:
            return torch.cat([value, value], dim)
        case 2 if dim is not None:
            return value.narrow(dim, 0, 0)
        case 3:
            return value.unsqueeze(0) if random.random() < 0.5 else value.flatten()
        case 4:
            return value.to(random.choice(DTYPES))
        case 5:
            return value.to("meta")
        case 6:
            return value.to_sparse() if value.dim() else value
        case 7:
            return None
        case 8 if dim is not None and value.shape[dim]:  # overlapping
            return value.narrow(dim, 0, 1).expand_as(value)
        case _:
            return value.new_empty(0)


def changed(value: Any, random: random.Random) -> tuple[Any, bool]:
    """The argument after a change, and whether it stands for the same numbers."""
    if isinstance(value, Tensor):
        if not can_be_read(value):
            return value, True
        if random.random() < 0.4:
            return relaid(value, random), True
        return broken(value, random), False
    if isinstance(value, bool):
        return not value, False
    if isinstance(value, int):
        return random.choice(NUMBERS), False
    if isinstance(value, float):
        return random.choice([0.0, -1.0, float("nan"), float("inf"), 1e300]), False
    if isinstance(value, str):
        return random.choice(["", "relu", "gelu_tanh", "x" * 1000, "\0"]), False
    if isinstance(value, list):
        items = list(value)
        match random.randrange(5):
            case 0:
                return [], False
            case 1:
                return items[:-1], False
            case 2:
                return [*items, *items[:1]], False
            case _ if items:
                place = random.randrange(len(items))
                items[place], same = changed(items[place], random)
                return items, same
    return value, True


def call(number: int) -> tuple[str, list[Any], bool]:
    """A call, and whether its tensors are those of a valid call, in other layouts."""
    chooser = random.Random(number)
    torch.manual_seed(number)
    name, arguments = chooser.choice(MAKERS)(Maker(chooser))
    same = True
    for _ in range(chooser.choice([0, 1, 1, 2, 3])):
        place = chooser.randrange(len(arguments))
        arguments[place], kept = changed(arguments[place], chooser)
        same &= kept
    if name != "update_running_statistics" and chooser.random() < 0.3:
        for value in tensors_in(arguments):
            if value.is_leaf and value.dtype.is_floating_point:
                value.requires_grad_()
    return name, arguments, same


# --- what must hold -------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """A copy of an argument in the usual layouts."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, Tensor) or not can_be_read(value):
        return value
    copy = value.detach().resolve_neg().resolve_conj()
    last = copy.dim() == 4 and not copy.is_contiguous()
    copy = copy.clone(memory_format=torch.channels_last if last else torch.contiguous_format)
    return copy.requires_grad_(value.requires_grad)


def tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return (
        [t for item in value for t in tensors_in(item)] if isinstance(value, list | tuple) else []
    )


def run(number: int) -> Counter[str]:
    return Counter([outcome(number)])


def outcome(number: int) -> str:
    """Makes a call and returns what became of it; raises if a promise is broken."""
    name, arguments, same = call(number)
    operator = getattr(torch.ops.cnngraph, name).default
    copies = [plain(argument) for argument in arguments]
    try:
        result = operator(*arguments)
    except ALLOWED as error:
        assert str(error).strip(), f"{name} raised {type(error).__name__} without a text"
        return "refused"
    in_place = name == "update_running_statistics"
    # Whether a dense block keeps activations depends on the layout.
    values = slice(4 if name == "dense_block" else None)
    found = tensors_in(arguments[:3] if in_place else result)
    if same:
        repeated = operator(*copies)
        if in_place:
            require_equal(found, tensors_in(copies[:3]))
        else:
            require_equal(tensors_in(result[values]), tensors_in(repeated[values]))
    results = [t for t in found if t.requires_grad and t.numel()]
    if in_place or not results:
        return "computed"
    inputs = [t for t in tensors_in(arguments) if t.requires_grad]
    loss = torch.stack([t.double().sum() for t in results]).sum()
    try:
        differentiate(loss, inputs, twice=number % 2 == 0)
    except ALLOWED:
        if same:
            raise
        return "refused in backward"
    return "differentiated"


def differentiate(loss: Tensor, inputs: list[Tensor], twice: bool) -> None:
    grads = torch.autograd.grad(loss, inputs, create_graph=twice, allow_unused=True)
    for one in grads:
        if one is not None and one.requires_grad:
            one.double().square().sum().backward()
            break


def require_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    rough = any(tensor.dtype in (torch.bfloat16, torch.float16) for tensor in found)
    tolerance = 3e-2 if rough else 1e-4
    for one, other in zip(found, expected, strict=True):
        if one.is_meta or one.layout is not torch.strided:
            continue
        torch.testing.assert_close(
            one.detach().resolve_neg(), other.detach(), rtol=tolerance, atol=tolerance,
            equal_nan=True, check_stride=False,
        )  # fmt: skip
