"""Calls of functions and methods of torch, as ops: one rule for each."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.nn import functional as F

from cnngraph.importer.steps import new_op
from cnngraph.importer.values import Recorder, Value, Weight, permuted
from cnngraph.ops import OPS, Op
from cnngraph.ops.merge import Add, Concat, Multiply

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
"""A function of torch, or the name of a method -> its rule, of a recorder and the arguments."""


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Decorator: makes a function the rule of these functions and methods."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return register


def _elementwise(kind: str, *targets: Any, **fields: str) -> None:
    """The rule of a function of one value; `fields` are the op's fields by argument."""
    op = OPS[kind]

    def apply(record: Recorder, input: Value, *args: Any, **kwargs: Any) -> Value:
        given = dict(zip(fields, args, strict=False)) | kwargs
        known = {field: given[name] for name, field in fields.items() if field and name in given}
        return record.step(op(**known), input)

    RULES.update(dict.fromkeys(targets, apply))


_elementwise("relu", F.relu, torch.relu, F.relu_, torch.relu_, "relu", "relu_", inplace="")
_elementwise("relu6", F.relu6, inplace="")
_elementwise("leaky_relu", F.leaky_relu, negative_slope="negative_slope", inplace="")
_elementwise("elu", F.elu, alpha="alpha", inplace="")
_elementwise("gelu", F.gelu, approximate="approximate")
_elementwise("silu", F.silu, inplace="")
_elementwise("mish", F.mish, inplace="")
_elementwise("sigmoid", torch.sigmoid, F.sigmoid, "sigmoid", "sigmoid_")
_elementwise("tanh", torch.tanh, F.tanh, "tanh", "tanh_")
_elementwise("softplus", F.softplus, beta="beta", threshold="threshold")
_elementwise("hardswish", F.hardswish, inplace="")
_elementwise("hardsigmoid", F.hardsigmoid, inplace="")
_elementwise("hardtanh", F.hardtanh, min_val="min_val", max_val="max_val", inplace="")
_elementwise("selu", F.selu, inplace="")
_elementwise("dropout", F.dropout, p="p", training="", inplace="")
_elementwise("dropout2d", F.dropout2d, p="p", training="", inplace="")


@rule(F.softmax, torch.softmax, "softmax")
def softmax(record: Recorder, input: Value, dim: int | None = None, **_: Any) -> Value:
    if dim not in (1, 1 - len(input.shape)) or input.layout == "last":
        raise record.unsupported(f"softmax over dimension {dim}")
    return record.step(new_op("softmax"), input)


@rule(F.conv2d, torch.conv2d)
def conv2d(
    record: Recorder,
    input: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    module = owner(record, weight, "conv2d")
    out, _, *kernel = weight.tensor.shape
    op = new_op(
        "conv2d",
        out_channels=out,
        kernel_size=tuple(kernel),
        stride=pair(stride),
        padding=pair(padding),
        dilation=pair(dilation),
        groups=groups,
        bias=bias is not None,
    )
    return record.step(op, input, module=module, weighted=True)


@rule(F.conv_transpose2d, torch.conv_transpose2d)
def conv_transpose2d(
    record: Recorder,
    input: Value,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    module = owner(record, weight, "conv_transpose2d")
    _, out, *kernel = weight.tensor.shape
    op = new_op(
        "conv_transpose2d",
        out_channels=out * groups,
        kernel_size=tuple(kernel),
        stride=pair(stride),
        padding=pair(padding),
        output_padding=pair(output_padding),
        groups=groups,
        dilation=pair(dilation),
        bias=bias is not None,
    )
    return record.step(op, input, module=module, weighted=True)


@rule(F.linear)
def linear(record: Recorder, input: Value, weight: Any, bias: Any = None) -> Value:
    module = owner(record, weight, "linear")
    return apply_linear(record, input, weight.tensor.shape[0], bias is not None, module)


def apply_linear(record: Recorder, input: Value, features: int, bias: bool, module: str) -> Value:
    """A linear layer over flat features, or over the last dimension of (N, H, W, C)."""
    if input.layout not in ("flat", "last"):
        raise record.unsupported(f"a linear layer over the width of a map, {input.shape}")
    kind = "linear" if input.layout == "flat" else "linear2d"
    op = new_op(kind, out_features=features, bias=bias)
    return record.step(op, input, module=module, weighted=True)


@rule(F.batch_norm, torch.batch_norm)
def batch_norm(
    record: Recorder,
    input: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    module = owner(record, weight or running_mean, "batch_norm")
    declared = getattr(record.root.get_submodule(module), "momentum", momentum)
    op = new_op(
        "batch_norm",
        eps=eps,
        momentum=declared,
        affine=weight is not None,
        track_running_stats=running_mean is not None,
    )
    return record.step(op, input, module=module, weighted=True)


@rule(F.layer_norm)
def layer_norm(
    record: Recorder,
    input: Value,
    normalized_shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    module = "" if weight is None else owner(record, weight, "layer_norm")
    affine, biased = weight is not None, bias is not None or weight is None
    return apply_layer_norm(record, input, normalized_shape, eps, affine, biased, module)


def apply_layer_norm(
    record: Recorder,
    input: Value,
    normalized_shape: Sequence[int],
    eps: float,
    affine: bool,
    bias: bool,
    module: str,
) -> Value:
    """A layer norm over the channels of each position, or over flat features."""
    if tuple(normalized_shape) != input.shape[-1:] or input.layout not in ("flat", "last"):
        raise record.unsupported(f"a layer norm over {tuple(normalized_shape)} of {input.shape}")
    op = new_op("layer_norm", eps=eps, elementwise_affine=affine, bias=bias)
    return record.step(op, input, module=module, weighted=affine)


@rule(F.group_norm)
def group_norm(
    record: Recorder,
    input: Value,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Value:
    module = "" if weight is None else owner(record, weight, "group_norm")
    op = new_op("group_norm", num_groups=num_groups, eps=eps, affine=weight is not None)
    return record.step(op, input, module=module, weighted=weight is not None)


@rule(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    record: Recorder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    op = new_op(
        "max_pool2d",
        kernel_size=pair(kernel_size),
        stride=pair(stride) if stride else None,
        padding=pair(padding),
        dilation=pair(dilation),
        ceil_mode=ceil_mode,
    )
    return record.step(op, input)


@rule(F.avg_pool2d)
def avg_pool2d(
    record: Recorder,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    op = new_op(
        "avg_pool2d",
        kernel_size=pair(kernel_size),
        stride=pair(stride) if stride else None,
        padding=pair(padding),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
    )
    return record.step(op, input)


@rule(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(
    record: Recorder, input: Value, output_size: Any, module: str = ""
) -> Value:
    return _adaptive(record, input, output_size, module, "avg")


@rule(F.adaptive_max_pool2d)
def adaptive_max_pool2d(
    record: Recorder, input: Value, output_size: Any, module: str = ""
) -> Value:
    return _adaptive(record, input, output_size, module, "max")


def _adaptive(record: Recorder, input: Value, size: Any, module: str, which: str) -> Value:
    if size in (1, (1, 1), [1, 1]):
        op = new_op(f"global_{which}_pool2d")
    else:
        size = tuple(size) if isinstance(size, list | tuple) else size
        op = new_op(f"adaptive_{which}_pool2d", output_size=size)
    return record.step(op, input, module=module)


@rule(torch.mean, "mean")
def mean(record: Recorder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return _reduce(record, input, dim, keepdim, new_op("global_avg_pool2d"), "mean")


@rule(torch.amax, "amax")
def amax(record: Recorder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
    return _reduce(record, input, dim, keepdim, new_op("global_max_pool2d"), "amax")


def _reduce(record: Recorder, input: Value, dim: Any, keepdim: bool, op: Op, what: str) -> Value:
    dims = {dim % len(input.shape) for dim in (dim if isinstance(dim, tuple | list) else [dim])}
    spatial = {1, 2} if input.layout == "last" else {2, 3}
    if input.layout not in ("map", "last") or dims != spatial:
        raise record.unsupported(f"`{what}` over dimensions {sorted(dims)}")
    pooled = record.step(op, input)
    return pooled if keepdim else record.step(new_op("flatten"), pooled)


@rule(F.pad, torch.nn.functional.pad)
def pad(
    record: Recorder,
    input: Value,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Value:
    sides = (*pad, 0, 0, 0, 0)[:4]
    if not any(pad):
        return input
    if len(pad) > 4 or input.layout != "map":
        raise record.unsupported(f"padding {tuple(pad)}")
    return record.step(new_op("pad", padding=sides, mode=mode, value=value or 0.0), input)


@rule(F.interpolate)
def interpolate(
    record: Recorder,
    input: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    if antialias or recompute_scale_factor:
        raise record.unsupported("`interpolate` with antialias or recompute_scale_factor")
    op = new_op(
        "upsample",
        size=None if size is None else pair(size),
        scale_factor=None if scale_factor is None else pair(scale_factor),
        mode=mode,
        align_corners=align_corners if mode in ("bilinear", "bicubic") else None,
    )
    return record.step(op, input)


@rule(torch.flatten, "flatten", "reshape", "view", torch.reshape, "squeeze", torch.squeeze)
def reshape(record: Recorder, input: Value, *_: Any, **__: Any) -> Value:
    """Any call that changes only the shape: what it does follows from both shapes."""
    shape = tuple(record.node.meta["value"].shape)
    source = input.shape
    if shape == source:
        return input
    if input.layout in ("map", "last") and shape == (source[0], prod(source[1:])):
        if input.layout == "last" and prod(source[1:3]) != 1:
            raise record.unsupported("flattening a map with the channels last")
        return record.step(new_op("flatten"), input)
    if input.layout == "map" and len(shape) == 5 and shape[3:] == source[2:]:
        return Value(input.name, shape, "grouped")
    if input.layout == "swapped" and shape == (source[0], source[1] * source[2], *source[3:]):
        whole = Value(input.name, shape, "map")
        return record.step(new_op("channel_shuffle", groups=source[2]), whole)
    if input.layout == "grouped" and shape == (source[0], source[1] * source[2], *source[3:]):
        return Value(input.name, shape, "map")
    raise record.unsupported(f"a reshape of {source} to {shape}")


@rule("permute", torch.permute)
def permute(record: Recorder, input: Value, *dims: Any) -> Value:
    order = tuple(dims[0]) if isinstance(dims[0], tuple | list) else dims
    found = permuted(input, tuple(dim % len(input.shape) for dim in order))
    if found is None:
        raise record.unsupported(f"a permutation {order} of {input.shape}")
    return found


@rule("transpose", torch.transpose)
def transpose(record: Recorder, input: Value, dim0: int, dim1: int) -> Value:
    order = list(range(len(input.shape)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(record, input, order)


@rule("movedim", torch.movedim)
def movedim(record: Recorder, input: Value, source: int, destination: int) -> Value:
    count = len(input.shape)
    order = [dim for dim in range(count) if dim != source % count]
    order.insert(destination % count, source % count)
    return permute(record, input, order)


@rule(
    "contiguous", "clone", "detach", "to", "float", "type_as", "expand_as", torch.clone,
    "requires_grad_", "unsafe_chunk",
)  # fmt: skip
def unchanged(record: Recorder, input: Value, *_: Any, **__: Any) -> Value:
    if tuple(record.node.meta["value"].shape) != input.shape:
        raise record.unsupported(f"`{record.node.target}`")
    return input


@rule(torch.chunk, "chunk")
def chunk(record: Recorder, input: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    sizes = [part.shape[dim] for part in record.node.meta["value"]]
    return _parts(record, input, sizes, dim)


@rule(torch.split, "split", "split_with_sizes", "tensor_split")
def split(record: Recorder, input: Value, sizes: Any, dim: int = 0) -> tuple[Value, ...]:
    return _parts(record, input, [part.shape[dim] for part in record.node.meta["value"]], dim)


def _parts(record: Recorder, input: Value, sizes: list[int], dim: int) -> tuple[Value, ...]:
    axis = len(input.shape) - 1 if input.layout == "last" else 1
    if dim % len(input.shape) != axis or len(set(sizes)) > 1:
        raise record.unsupported(f"a split of dimension {dim} into {sizes}")
    count = len(sizes)
    return tuple(
        record.step(new_op("chunk", chunks=count, index=index), input) for index in range(count)
    )


@rule(torch.cat, torch.concat, torch.concatenate)
def concat(record: Recorder, tensors: Sequence[Value], dim: int = 0) -> Value:
    axis = len(tensors[0].shape) - 1 if tensors[0].layout == "last" else 1
    if dim % len(tensors[0].shape) != axis:
        raise record.unsupported(f"a concatenation on dimension {dim}")
    return tensors[0] if len(tensors) == 1 else record.step(Concat(), *tensors)


@rule(operator.add, operator.iadd, torch.add, "add", "add_")
def add(record: Recorder, left: Any, right: Any, alpha: float = 1) -> Value:
    if not (isinstance(left, Value) and isinstance(right, Value)) or alpha != 1:
        raise record.unsupported("adding a constant")
    if left.spec_shape != right.spec_shape:
        raise record.unsupported(f"adding {right.spec_shape} to {left.spec_shape}")
    return record.step(Add(), left, right)


@rule(operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply")
def multiply(record: Recorder, left: Any, right: Any) -> Value:
    if not isinstance(left, Value):
        left, right = right, left
    if isinstance(right, int | float):
        return left if right == 1 else record.step(new_op("scale", factor=right), left)
    if isinstance(right, Weight):
        return layer_scale(record, left, right)
    return record.step(Multiply(), left, right)


def layer_scale(record: Recorder, input: Value, weight: Weight) -> Value:
    """The product with a parameter, one factor for each channel."""
    value = weight.tensor
    shape = (input.channels, *(1 for _ in input.spec_shape.spatial))
    if tuple(value.shape) != shape:
        what = f"multiplying by a parameter of {tuple(value.shape)}"
        raise record.unsupported(f"{what} (`layer_scale` has a parameter of {shape})")
    module = f"{weight.module}.{weight.name}".lstrip(".")
    return record.step(new_op("layer_scale"), input, module=module, weighted=True)


@rule(operator.truediv, torch.div, "div")
def divide(record: Recorder, left: Any, right: Any) -> Value:
    if not isinstance(left, Value) or not isinstance(right, int | float):
        raise record.unsupported("a division of tensors")
    return record.step(new_op("scale", factor=1 / right), left)


@rule(operator.getitem)
def item(record: Recorder, values: Any, index: Any) -> Any:
    if isinstance(values, tuple):
        return values[index]
    raise record.unsupported(f"indexing a tensor with {index}")


def owner(record: Recorder, weight: Any, what: str) -> str:
    """The path of the module with this weight."""
    if not isinstance(weight, Weight):
        raise record.unsupported(f"a {what} with a weight that is computed")
    return weight.module


def pair(value: Any) -> Any:
    """A pair of numbers, as a tuple; a word as it is."""
    if isinstance(value, str):
        return value
    items = tuple(value) if isinstance(value, Sequence | torch.Size) else (value, value)
    return items * 2 if len(items) == 1 else items
